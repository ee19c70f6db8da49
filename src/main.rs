//! Arguments become a command; an error becomes a message and an exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match sluice::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            sluice::cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}

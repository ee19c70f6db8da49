//! The command line: one file for each command, with `Args` and `run(Args) -> anyhow::Result<ExitCode>`. A command that
//! needs a runtime starts one itself, so that other commands stay quick.
#![expect(clippy::disallowed_types, reason = "commands of one user, who chose what they read")]

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

mod call;
mod check;
mod client;
mod confine;
mod connect;
mod demo;
mod gateway;
mod guardian;
mod health;
mod key;
mod run;
mod sandbox;
mod serve;
mod single;
mod stage;
mod stdio_demo;
mod terminal;
#[cfg(test)]
mod tests;
mod token;
mod tools;

#[cfg(feature = "fuzzing")]
pub use client::{ReadEvents, read_events};
#[cfg(test)]
use tests::parse;

/// Share stdio MCP servers with many remote clients.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wrap the built-in MCP server and print how to call it
    Demo(demo::Args),
    /// Wrap one stdio MCP server, without a configuration file
    Run(run::Args),
    /// Serve what a configuration file describes
    Serve(serve::Args),
    /// Say everything that is wrong with a configuration file, and start nothing
    Check(check::Args),
    /// Make API keys
    Key(key::Args),
    /// Sign a development JWT
    Token(token::Args),
    /// List the tools behind a URL
    Tools(tools::Args),
    /// Call a tool behind a URL
    Call(call::Args),
    /// Speak stdio here and HTTP to a remote gateway
    Connect(connect::Args),
    /// The built-in MCP server, on stdio
    StdioDemo(stdio_demo::Args),
    /// Ask a gateway whether it is alive
    Health(health::Args),
    /// Restrict this process to its directory, and run a program
    #[command(hide = true)]
    Confine(confine::Args),
    /// Start servers for a gateway, and end them with it
    #[command(hide = true)]
    Guardian(guardian::Args),
    /// Become the server that is ordered on stdin
    #[command(hide = true)]
    Stage(stage::Args),
}

/// The longest time that a failed command waits for its message to be written.
const COMPLAINT: Duration = Duration::from_secs(2);

/// Writes the reason why a command failed to stderr. Gives up after 2 s if nothing reads stderr.
pub fn complain(error: &anyhow::Error) {
    let text = format!("{error:#}");
    crate::telemetry::say(format!("sluice: {}\n", crate::text::visible_lines(&text)), COMPLAINT);
}

impl Cli {
    /// Runs the command that was given.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Demo(args) => demo::run(args),
            Command::Run(args) => run::run(args),
            Command::Serve(args) => serve::run(args),
            Command::Check(args) => check::run(args),
            Command::Key(args) => key::run(args),
            Command::Token(args) => token::run(args),
            Command::Tools(args) => tools::run(args),
            Command::Call(args) => call::run(args),
            Command::Connect(args) => connect::run(args),
            Command::StdioDemo(args) => stdio_demo::run(args),
            Command::Health(args) => health::run(args),
            Command::Confine(args) => confine::run(args),
            Command::Guardian(args) => guardian::run(args),
            Command::Stage(args) => stage::run(args),
        }
    }
}

//! Shared by the tests of the commands.

use clap::Parser;

/// Parses the arguments of a command, without the names of the program and the command.
pub(super) fn parse<A: clap::Args>(arguments: &[&str]) -> clap::error::Result<A> {
    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Line<A: clap::Args> {
        #[command(flatten)]
        args: A,
    }
    Line::try_parse_from(arguments).map(|line| line.args)
}

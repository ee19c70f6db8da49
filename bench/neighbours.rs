//! The table of the hostile neighbour: one tenant attacks a gateway in each way that is known, and another tenant's calls
//! are measured alone and beside the attack, in windows that take turns. docs/NEIGHBOURS.md says how to read it.
//!
//! The gateway and its children are the real programs. The attacker is a process of its own with the lowest priority,
//! since the point is the gateway's fairness and not the machine's.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]
#![expect(
    clippy::disallowed_methods,
    reason = "blocking on purpose: a runtime would add its own delays to what it measures"
)]

#[path = "neighbours/arguments.rs"]
mod arguments;
#[path = "neighbours/attacker.rs"]
mod attacker;
#[path = "neighbours/attacks.rs"]
mod attacks;
#[path = "neighbours/cgroups.rs"]
mod cgroups;
#[path = "neighbours/client.rs"]
mod client;
#[path = "neighbours/configuration.rs"]
mod configuration;
#[path = "neighbours/disk.rs"]
mod disk;
#[path = "neighbours/gateway.rs"]
mod gateway;
#[path = "neighbours/http.rs"]
mod http;
#[path = "neighbours/http2.rs"]
mod http2;
#[path = "neighbours/processes.rs"]
mod processes;
#[path = "neighbours/row.rs"]
mod row;
#[path = "neighbours/table.rs"]
mod table;
#[path = "neighbours/victim.rs"]
mod victim;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use table::Table;

fn main() -> ExitCode {
    match Command::parse(std::env::args().skip(1)) {
        Ok(Command::Measure(arguments)) => measure(&arguments),
        Ok(Command::Attack(hostile)) => attacker::run(hostile),
        Err(problem) => {
            eprintln!("{problem}\n\n{}", arguments::USAGE);
            ExitCode::from(2)
        }
    }
}

/// Measures each row. A row that misses a limit is measured once more, and the second result counts: another program on
/// the machine can slow down one measurement, and a gateway that is unfair fails in both. An error always counts.
fn measure(arguments: &Arguments) -> ExitCode {
    let mut table = Table::new(arguments);
    for row in row::ROWS.iter().filter(|row| arguments.wants(row.name)) {
        let mut result = row.measure(arguments);
        if result.is_slow(arguments) && !result.has_errors() {
            table.note(&format!("{} is measured again: {}", row.name, result.line()));
            result = row.measure(arguments);
        }
        table.add(row.name, result);
    }
    table.finish()
}

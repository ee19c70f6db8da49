//! The load tool of the side-by-side benchmark: many clients, each with several calls in flight, every answer checked
//! to be the caller's own. It shares the machine with what it measures, so it is one thread with nothing to spare.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

#[path = "load/arguments.rs"]
mod arguments;
#[path = "load/client.rs"]
mod client;
#[path = "load/connection.rs"]
mod connection;
#[path = "load/events.rs"]
mod events;
#[path = "load/message.rs"]
mod message;
#[path = "load/responder.rs"]
mod responder;
#[path = "load/score.rs"]
mod score;

use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::{Duration, Instant};

use arguments::Arguments;
use client::Client;
use score::Score;

/// A client that gets no connection or no answer to `initialize` in this time ends the run.
const SETUP_LIMIT: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => {
            eprintln!("{problem}\n\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    match run(arguments) {
        Ok(score) => score.exit_code(),
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::from(3)
        }
    }
}

fn run(mut arguments: Arguments) -> io::Result<Score> {
    if arguments.ceiling {
        arguments.url = responder::start()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let score = tokio::task::LocalSet::new().block_on(&runtime, measure(Rc::new(arguments.clone())))?;
    println!("{}", if arguments.json { score.json() } else { score.line() });
    Ok(score)
}

/// Connects the clients one after another, lets them all call at once, and adds up what came back.
async fn measure(arguments: Rc<Arguments>) -> io::Result<Score> {
    let mut clients = Vec::with_capacity(arguments.clients);
    for number in 0..arguments.clients {
        let client = tokio::time::timeout(SETUP_LIMIT, Client::connect(number, Rc::clone(&arguments))).await;
        clients.push(
            client.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("client {number}: no session")))??,
        );
    }
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in clients {
        tasks.spawn_local(client.call_until_done(begin));
    }
    let mut total = Score::default();
    while let Some(done) = tasks.join_next().await {
        total.add(done.map_err(io::Error::other)?);
    }
    total.close(&arguments, begin);
    Ok(total)
}

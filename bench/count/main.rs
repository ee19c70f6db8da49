//! Sends messages of each kind through a gateway, for callgrind to count the instructions that one of them takes
//! (`count.py`). Gateway, client and server are tasks of one thread, so that each run does the same: the client's
//! socket is on loopback, and the pipes are those of real children, whose processes sleep while [`child`] speaks for
//! them.
//!
//! What is counted is what the function [`measured`] does. It runs once for each kind and round, in the order that is
//! printed. The share of client and server is in it too: it is small, and always the same.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a tool that fails where anything is not as it expects"
)]

mod child;
mod client;
mod kind;

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Parser as _;
use sluice::config::{Config, Environment};
use sluice::gateway::{Gateway, Host};
use sluice::shutdown::Shutdown;
use tokio::runtime::Runtime;

use child::Child;
use client::Client;
use kind::Kind;

/// Rounds of each kind. The first of them warms up.
const ROUNDS: usize = 6;
/// Messages of a round.
const MESSAGES: usize = 50;
/// The API key of the client.
const KEY: &str = "slk_COUNTING_0123456789abcdefghijklmnopqrstuvwxyz";

fn main() -> ExitCode {
    // The gateway executes this program again, for its guardian and for what becomes a child.
    if std::env::args_os().len() > 1 {
        return sluice::cli::Cli::parse().run().expect("the guardian, or a stage");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (address, shutdown, gateway) = runtime.block_on(start());
    let (streamable, sse) = runtime.block_on(async {
        let streamable = Client::streamable(address).await;
        let sse = Client::sse(address).await;
        (streamable, sse)
    });
    let mut clients = [streamable, sse];
    for kind in Kind::ALL {
        for round in 0..ROUNDS {
            let client = &mut clients[usize::from(kind.is_sse())];
            measured(&runtime, client, kind);
            if round > 0 {
                println!("{} {MESSAGES} {}", runtime.block_on(client.server.heard()), kind.name());
            } else {
                println!("{} 0 {}", runtime.block_on(client.server.heard()), kind.name());
            }
        }
    }
    drop(clients);
    shutdown.drain.cancel();
    shutdown.kill.cancel();
    runtime.block_on(gateway).expect("the gateway ends");
    ExitCode::SUCCESS
}

/// A gateway with one server, on this thread.
async fn start() -> (SocketAddr, Shutdown, tokio::task::JoinHandle<()>) {
    let folder = std::env::temp_dir().join(format!("sluice-count-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("sluice.toml");
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\nkeep_alive = \"1h\"\nheader_timeout = \"1h\"\n[admin]\nlisten = \"off\"\n\
         [tenants.t]\n[sandbox]\nmode = \"none\"\n\
         [servers.s]\ncommand = \"sleep\"\nargs = [\"{}\"]\n[servers.s.limits]\nping_interval = \"1h\"\n",
        Child::seconds()
    );
    std::fs::write(&file, text).unwrap();
    let environment: Environment = [(sluice::config::KEY, KEY)].into_iter().collect();
    let config = Config::load(&file, &environment).unwrap_or_else(|problems| panic!("{problems}")).config;
    std::fs::remove_dir_all(&folder).unwrap();
    let shutdown = Shutdown::default();
    let host = Host::shared(std::env::current_exe().unwrap());
    let gateway = Gateway::bind(config, shutdown.clone(), host).await.unwrap();
    let address = gateway.address();
    (address, shutdown, tokio::spawn(gateway.run()))
}

/// One round. callgrind counts within this function, and writes a file when it returns.
#[inline(never)]
fn measured(runtime: &Runtime, client: &mut Client, kind: Kind) {
    runtime.block_on(async {
        for _ in 0..MESSAGES {
            kind.send(client).await;
        }
    });
}

//! The tenant that is measured: a warm session on each transport, and now and then a new one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::client::{Session, Who, Wire};
use crate::configuration::VICTIMS_KEY;

/// No answer may take longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// A pause between two calls: a client thinks.
const PAUSE: Duration = Duration::from_millis(1);
const WIRES: [Wire; 2] = [Wire::Streamable, Wire::Sse];

/// A client of a tenant that does nothing wrong.
#[derive(Debug)]
pub(crate) struct Victim {
    who: Who,
    /// The warm sessions, in the order of [`WIRES`]; `None` for one that is broken.
    sessions: [Option<Session>; 2],
}

/// What one window has shown.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The 99th percentile of the times of calls on the warm sessions.
    pub(crate) p99: Duration,
    /// From the connection of a new client to the answer to its first call.
    pub(crate) new_session: Duration,
    pub(crate) errors: Vec<String>,
}

impl Victim {
    /// Opens the warm sessions on a server.
    pub(crate) fn open(address: SocketAddr, server: &str) -> io::Result<Self> {
        let who = Who {
            source: Ipv4Addr::LOCALHOST,
            address,
            key: VICTIMS_KEY.to_owned(),
            server: server.to_owned(),
            patience: PATIENCE,
        };
        let mut victim = Self { who, sessions: [None, None] };
        for (session, wire) in victim.sessions.iter_mut().zip(WIRES) {
            let mut opened = Session::open(&victim.who, wire, "")?;
            opened.echo()?;
            *session = Some(opened);
        }
        Ok(victim)
    }

    /// Opens a new session, and makes so many calls on each of the warm ones.
    pub(crate) fn window(&mut self, calls: usize) -> Window {
        let mut window = Window::default();
        let begin = Instant::now();
        if let Err(error) = self.new_session() {
            window.errors.push(format!("a new session after {:?}: {error}", begin.elapsed()));
        }
        window.new_session = begin.elapsed();
        let mut times = Vec::with_capacity(calls * WIRES.len());
        for _ in 0..calls {
            for (session, wire) in self.sessions.iter_mut().zip(WIRES) {
                std::thread::sleep(PAUSE);
                let begin = Instant::now();
                let called = match session {
                    Some(session) => session.echo(),
                    None => Session::open(&self.who, wire, "").map(|opened| *session = Some(opened)),
                };
                times.push(begin.elapsed());
                if let Err(error) = called {
                    *session = None;
                    window.errors.push(format!("{wire:?} after {:?}: {error}", begin.elapsed()));
                }
            }
            if window.errors.len() > 3 {
                break;
            }
        }
        times.sort_unstable();
        window.p99 = times.get((times.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        window
    }

    fn new_session(&self) -> io::Result<()> {
        let mut session = Session::open(&self.who, Wire::Streamable, "")?;
        session.echo()?;
        session.close()
    }
}

//! A process that attacks as one tenant, until its stdin is closed.

use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::attacks;
use crate::client::Who;
use crate::configuration::HOSTILE_KEY;
use crate::http::HOSTILE_ADDRESS;

/// The longest time until an attack is in effect, and until it has ended when it is told to.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time in which threads may end what they do by themselves.
const END: Duration = Duration::from_millis(100);
/// The pause after what has failed: refusals are not what is measured.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest time for a read or a write. Attackers wait longer than victims.
const ANSWER: Duration = Duration::from_secs(60);
/// The priority of an attacker's own process: the lowest.
const NICE: i32 = 19;
/// What an attacker says when its attack is in effect.
const READY: &str = "ready";

/// What an attack is given.
#[derive(Debug)]
pub(crate) struct Hostile {
    name: String,
    who: Who,
    is_small: bool,
    is_over: AtomicBool,
    is_ready: AtomicBool,
}

impl Hostile {
    pub(crate) fn new(name: String, address: SocketAddr, key: String, is_small: bool) -> Self {
        let who = Who { source: HOSTILE_ADDRESS, address, key, server: "hostile".to_owned(), patience: ANSWER };
        Self { name, who, is_small, is_over: AtomicBool::new(false), is_ready: AtomicBool::new(false) }
    }

    /// Who attacks, as a caller of a server.
    pub(crate) fn who(&self, server: &str) -> Who {
        Who { server: server.to_owned(), ..self.who.clone() }
    }

    /// One of two sizes.
    pub(crate) fn size(&self, small: usize, large: usize) -> usize {
        if self.is_small { small } else { large }
    }

    /// Whether the attack is to end.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Says that the attack is in effect; once.
    pub(crate) fn ready(&self) {
        if !self.is_ready.swap(true, Ordering::Relaxed) {
            println!("{READY}");
        }
    }

    /// Does something again and again until the attack is over.
    pub(crate) fn again(&self, mut attempt: impl FnMut() -> io::Result<()>) {
        while !self.is_over() {
            if attempt().is_err() {
                thread::sleep(PAUSE);
            }
        }
    }

    /// Does something again and again on so many threads.
    pub(crate) fn on_threads(&self, count: usize, attempt: impl Fn(usize) -> io::Result<()> + Sync) {
        thread::scope(|scope| {
            for number in 0..count {
                let attempt = &attempt;
                scope.spawn(move || self.again(|| attempt(number)));
            }
        });
    }

    /// Keeps what is open until the attack is over.
    pub(crate) fn hold<T>(&self, open: T) {
        self.ready();
        while !self.is_over() {
            thread::sleep(PAUSE);
        }
        drop(open);
    }
}

/// Attacks until stdin is closed. Threads that still wait for something then end with the process.
pub(crate) fn run(hostile: Hostile) -> ExitCode {
    let Some(attack) = attacks::find(&hostile.name) else {
        eprintln!("there is no attack {}", hostile.name);
        return ExitCode::from(2);
    };
    // Only root may lift it again, and nobody has to.
    let _ = rustix::process::setpriority_process(None, NICE);
    let hostile: &'static Hostile = Box::leak(Box::new(hostile));
    let (done, over) = sync_channel(1);
    thread::spawn(move || {
        attack(hostile);
        let _ = done.send(());
    });
    let mut rest = Vec::new();
    let _ = io::stdin().read_to_end(&mut rest);
    hostile.is_over.store(true, Ordering::Relaxed);
    match over.recv_timeout(END) {
        Ok(()) | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => ExitCode::SUCCESS,
    }
}

/// An attacker, for who measures.
#[derive(Debug)]
pub(crate) struct Attacker(Child);

impl Attacker {
    /// Starts it, and waits until its attack is in effect, or for [`PATIENCE`].
    pub(crate) fn start(name: &str, address: SocketAddr, arguments: &Arguments) -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let mut command = match &arguments.cgroups {
            Some(cgroups) => cgroups.attacker(&own),
            None => Command::new(own),
        };
        let mut process = command
            .args(["attack", name, &address.to_string(), HOSTILE_KEY])
            .arg(if arguments.is_small { "small" } else { "large" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (done, ready) = sync_channel(1);
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || {
                let mut line = String::new();
                let _ = BufReader::new(stdout).read_line(&mut line);
                let _ = done.send(line.trim_end() == READY);
            });
        }
        match ready.recv_timeout(PATIENCE) {
            Ok(false) => Err(io::Error::other(format!("the attack {name} does not begin"))),
            Ok(true) | Err(_) => Ok(Self(process)),
        }
    }

    /// Ends it.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Attacker {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

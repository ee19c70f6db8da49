//! Accepts connections until the gateway drains, and gives each a place, or refuses it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::bind::{Bound, bind};
use super::connection;
use super::connection_memory::ConnectionMemory;
use super::connection_table::{ConnectionTable, NoRoom};
use super::limits::Limits;
use super::network::Network;
use super::peer::Peer;
use super::router::Router;
use crate::shutdown::Shutdown;
use crate::telemetry::{Cause, ConnectionMetrics, MemoryUse, Rejection};

/// The pause after a failed accept. The usual cause is a lack of file descriptors, which an immediate retry would not
/// solve.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The largest number of connections without a place that wait for one, or are told why they get none, at the same
/// time. More are closed at once.
const WAITING: usize = 64;
/// The longest time that a connection waits for a place.
const TO_WAIT: Duration = Duration::from_secs(1);

/// A bound listener. A listener on 127.0.0.1 or ::1 is bound to both.
#[derive(Debug)]
pub struct Listener {
    bound: Bound,
}

/// The state of a listener that serves.
struct Serving {
    router: Router,
    shutdown: Shutdown,
    /// The tasks of connections.
    tasks: TaskTracker,
    metrics: ConnectionMetrics,
    table: Arc<ConnectionTable>,
    /// For connections without a place.
    waiting: Arc<Semaphore>,
}

impl Listener {
    /// Binds the address. Port 0 lets the system choose the port.
    ///
    /// # Errors
    /// The address that could not be bound, which may be the one of the other family, and the error of the system.
    pub fn bind(address: SocketAddr) -> Result<Self, (SocketAddr, io::Error)> {
        Ok(Self { bound: bind(address)? })
    }

    /// The configured address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// Accepts and serves connections until the gateway drains. Open connections continue as tasks of `tasks`, until
    /// they end or `shutdown` kills them. `metrics` counts them.
    pub async fn serve(self, router: Router, shutdown: Shutdown, tasks: TaskTracker, metrics: ConnectionMetrics) {
        let (table, waiting) = (Arc::default(), Arc::new(Semaphore::new(WAITING)));
        let serving = Arc::new(Serving { router, shutdown, tasks, metrics, table, waiting });
        loop {
            let accepted = tokio::select! {
                () = serving.shutdown.drain.cancelled() => return,
                accepted = self.bound.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => serving.take(stream, address),
                Err(error) => {
                    serving.note_failure(&error);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Serving {
    /// Serves a new connection if there is a place for it now or soon, or refuses it.
    fn take(self: &Arc<Self>, stream: TcpStream, address: SocketAddr) {
        let limits = self.router.limits();
        let address = address.ip().to_canonical();
        let (network, serving) = (Network::of(address), Arc::clone(self));
        let is_exempt = network.is_this_machine();
        match self.table.claim(network, is_exempt, &limits.room) {
            Ok(place) => drop(self.tasks.spawn(serving.serve(stream, Peer { address, place }, limits))),
            Err(no_room) => {
                let Ok(permit) = Arc::clone(&self.waiting).try_acquire_owned() else {
                    self.refused(no_room);
                    return;
                };
                self.tasks.spawn(async move {
                    let claimed = serving.table.claim_within(network, is_exempt, &limits.room, TO_WAIT);
                    let claimed = tokio::select! {
                        claimed = claimed => claimed,
                        () = serving.shutdown.drain.cancelled() => return,
                    };
                    match claimed {
                        Ok(place) => {
                            drop(permit);
                            serving.serve(stream, Peer { address, place }, limits).await;
                        }
                        Err(no_room) => {
                            let why = serving.refused(no_room);
                            connection::refuse(stream, why, limits, serving.shutdown.clone()).await;
                        }
                    }
                });
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: Peer, limits: Limits) {
        let network = Network::of(peer.address);
        let charged = self.router.memory().map(|memory| ConnectionMemory::open(memory, network)).transpose();
        let Ok(memory) = charged else {
            // The bound on the number of connections makes this rare: the budget has become smaller.
            self.router.memory_refused(MemoryUse::Connection);
            return;
        };
        let (router, shutdown, metrics) = (self.router.clone(), self.shutdown.clone(), self.metrics.clone());
        self.metrics.open.inc();
        connection::serve(stream, peer, memory, router, limits, shutdown, metrics).await;
        self.metrics.open.dec();
    }

    /// Counts and logs a connection that gets no place. Returns the reason in words.
    fn refused(&self, no_room: NoRoom) -> &'static str {
        let (rejection, why) = match no_room {
            NoRoom::All => (
                Rejection::Full,
                "all connections are in use (http.max_connections, limits.memory_budget); try again later",
            ),
            NoRoom::Share => (
                Rejection::AddressShare,
                "your address holds all connections that one address may hold (http.max_connections, \
                 http.max_connections_per_address); close some",
            ),
        };
        self.metrics.rejected(rejection);
        if Cause::new("a connection was refused", rejection.as_str()).is_news(1) {
            tracing::warn!(reason = rejection.as_str(), "a connection was refused: {why}");
        }
        why
    }

    /// Logs a failed accept. Where the process has no descriptors left, a connection makes way.
    fn note_failure(&self, error: &io::Error) {
        if matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE)) {
            self.table.make_way();
        }
        if Cause::new("a connection could not be accepted", "listener").is_news(1) {
            tracing::warn!(%error, "a connection could not be accepted");
        }
    }
}

//! Accepts connections until the gateway drains, and gives each a place, or refuses it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::bind::{Bound, bind};
use super::connection_memory::ConnectionMemory;
use super::connection_table::{ConnectionTable, NoRoom, Place};
use super::limits::Limits;
use super::network::Network;
use super::peer::Peer;
use super::router::Router;
use super::{connection, proxy_protocol};
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
    waiting: Semaphore,
}

/// A connection that is not served yet.
struct Arrival {
    stream: TcpStream,
    /// The address of the peer, or of the client for whom a proxy has opened the connection.
    address: IpAddr,
    limits: Limits,
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
        let (table, waiting) = (Arc::default(), Semaphore::new(WAITING));
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
        let arrival = Arrival { stream, address: address.ip().to_canonical(), limits: self.router.limits() };
        let serving = Arc::clone(self);
        match self.claim(&arrival) {
            Ok(place) => drop(self.tasks.spawn(serving.serve(arrival, place))),
            Err(no_room) => drop(self.tasks.spawn(async move { serving.wait(arrival, no_room).await })),
        }
    }

    fn claim(&self, arrival: &Arrival) -> Result<Place, NoRoom> {
        let Arrival { address, limits, .. } = arrival;
        self.table.claim(Network::of(*address), limits.is_exempt(*address), &limits.room)
    }

    async fn serve(self: Arc<Self>, arrival: Arrival, place: Place) {
        self.metrics.open.inc();
        if let Some((arrival, place)) = self.announced(arrival, place).await
            && let Some((Arrival { stream, address, limits }, memory)) = self.charged(arrival).await
        {
            let (router, shutdown, metrics) = (self.router.clone(), self.shutdown.clone(), self.metrics.clone());
            connection::serve(stream, Peer { address, memory, place }, router, limits, shutdown, metrics).await;
        }
        self.metrics.open.dec();
    }

    /// The connection, and what it is charged for: nothing on the admin listener. A connection that had to make way gives
    /// its memory back when it has ended, which is a moment after its place was given away: the newcomer waits for that.
    /// `None` if the connection is refused, because the memory budget has no room for it in time.
    async fn charged(&self, arrival: Arrival) -> Option<(Arrival, Option<ConnectionMemory>)> {
        let Some(memory) = self.router.memory() else { return Some((arrival, None)) };
        let network = Network::of(arrival.address);
        let charged = tokio::select! {
            charged = self.table.try_within(TO_WAIT, || ConnectionMemory::open(memory, network)) => charged,
            () = self.shutdown.drain.cancelled() => return None,
        };
        if let Ok(memory) = charged {
            return Some((arrival, Some(memory)));
        }
        // The bound on the number of connections makes this rare: the budget has become smaller, or a connection that
        // had to make way has not ended in time.
        self.router.memory_refused(MemoryUse::Connection);
        let why = self.refused(NoRoom::All);
        if let Ok(_permit) = self.waiting.try_acquire() {
            connection::refuse(arrival.stream, why, arrival.limits, self.shutdown.clone()).await;
        }
        None
    }

    /// The connection with the address and the place of the client for whom a proxy has opened it, as its header of the
    /// PROXY protocol says; as it is without such a header. `None` if the connection has ended: the header is invalid
    /// or late, or there is no place.
    async fn announced(&self, mut arrival: Arrival, place: Place) -> Option<(Arrival, Place)> {
        if !arrival.limits.proxies.protocol || !arrival.limits.proxies.trusts(arrival.address) {
            return Some((arrival, place));
        }
        let makes_way = place.makes_way();
        let read = tokio::select! {
            read = proxy_protocol::read(&mut arrival.stream, arrival.limits.headers) => read,
            () = makes_way.cancelled() => {
                self.metrics.rejected(Rejection::MadeWay);
                return None;
            }
            () = self.shutdown.drain.cancelled() => return None,
        };
        match read {
            Ok(None) => Some((arrival, place)),
            Ok(Some(client)) => {
                drop(place);
                arrival.address = client;
                match self.claim(&arrival) {
                    Ok(place) => Some((arrival, place)),
                    Err(no_room) => self.waited(arrival, no_room).await,
                }
            }
            Err(error) => {
                self.metrics.rejected(Rejection::ProxyHeader);
                if Cause::new("a connection of a proxy was closed", "http.proxy_protocol").is_news(1) {
                    let proxy = arrival.address;
                    tracing::warn!(%error, %proxy, "a connection of a proxy was closed (http.proxy_protocol)");
                }
                None
            }
        }
    }

    /// Serves a connection for which there is no place yet.
    async fn wait(self: Arc<Self>, arrival: Arrival, no_room: NoRoom) {
        if let Some((arrival, place)) = self.waited(arrival, no_room).await {
            self.serve(arrival, place).await;
        }
    }

    /// Waits for a place. If there is none in time, or too many wait, the connection is refused, and the result is
    /// `None`.
    async fn waited(&self, arrival: Arrival, no_room: NoRoom) -> Option<(Arrival, Place)> {
        let Ok(_permit) = self.waiting.try_acquire() else {
            self.refused(no_room);
            return None;
        };
        let claimed = tokio::select! {
            claimed = self.table.try_within(TO_WAIT, || self.claim(&arrival)) => claimed,
            () = self.shutdown.drain.cancelled() => return None,
        };
        match claimed {
            Ok(place) => Some((arrival, place)),
            Err(no_room) => {
                let why = self.refused(no_room);
                connection::refuse(arrival.stream, why, arrival.limits, self.shutdown.clone()).await;
                None
            }
        }
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

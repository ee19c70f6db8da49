//! Accepts connections, each with a permit, and serves HTTP/1.1 and HTTP/2 on them until the gateway drains.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http_body_util::Either;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::bind::{Bound, bind};
use super::http2_body::Http2Bodies;
use super::idle::Requests;
use super::linger::answer;
use super::router::Router;
use super::stall::NoStall;
use crate::config::Http;
use crate::shutdown::Shutdown;
use crate::telemetry::Cause;

/// The pause after a failed accept. The usual cause is a lack of file descriptors, which an immediate retry would not
/// solve.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The time in milliseconds after which a peer that acknowledges no data is considered gone (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT_MS: u32 = 60_000;
/// The time that a peer has to close an idle connection after the gateway asked for it.
const TO_CLOSE: Duration = Duration::from_secs(1);
/// The largest number of concurrent streams on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Limits of a listener and of each of its connections.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The largest number of open connections. Further connections wait in the kernel.
    pub connections: usize,
    /// The longest time for the first bytes of a connection, for the headers of a request, and without a request. Also
    /// the interval of pings with HTTP/2.
    pub headers: Duration,
    /// The longest time that a write may make no progress.
    pub stall: Duration,
    /// The longest time for reading the rest of a body whose request was answered early.
    pub linger: Duration,
}

impl From<&Http> for Limits {
    fn from(http: &Http) -> Self {
        Self {
            connections: http.max_connections,
            headers: http.header_timeout,
            stall: http.slow_client_timeout,
            linger: http.body_timeout,
        }
    }
}

/// A bound listener. A listener on 127.0.0.1 or ::1 is bound to both.
#[derive(Debug)]
pub struct Listener {
    bound: Bound,
    limits: Limits,
}

impl Listener {
    /// Binds the address. Port 0 lets the system choose the port.
    ///
    /// # Errors
    /// The address that could not be bound, which may be the one of the other family, and the error of the system.
    pub fn bind(address: SocketAddr, limits: Limits) -> Result<Self, (SocketAddr, io::Error)> {
        Ok(Self { bound: bind(address)?, limits })
    }

    /// The configured address, with the actual port.
    pub fn address(&self) -> SocketAddr {
        self.bound.address
    }

    /// Accepts and serves connections until the gateway drains. Open connections continue as tasks of `tasks`, until
    /// they end or `shutdown` kills them. `open` counts them.
    pub async fn serve(self, router: Router, shutdown: Shutdown, tasks: TaskTracker, open: Gauge) {
        let permits = Arc::new(Semaphore::new(self.limits.connections));
        loop {
            let accepted = tokio::select! {
                () = shutdown.drain.cancelled() => return,
                accepted = accept(&self.bound, &permits) => accepted,
            };
            let (stream, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if Cause::new("a connection could not be accepted", "listener").is_news(1) {
                        tracing::warn!(%error, "a connection could not be accepted");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let connection = serve_connection(stream, router.clone(), self.limits, shutdown.clone());
            let open = open.clone();
            tasks.spawn(async move {
                open.inc();
                connection.await;
                open.dec();
                drop(permit);
            });
        }
    }
}

async fn accept(bound: &Bound, permits: &Arc<Semaphore>) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let stream = bound.accept().await?;
    Ok((stream, permit))
}

async fn serve_connection(stream: TcpStream, router: Router, limits: Limits, shutdown: Shutdown) {
    // Without TCP_NODELAY each small answer waits for the acknowledgement of the answer before: 40 ms a call.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    // Best effort: without the option, a peer that has vanished is noticed later.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MS);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.headers);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).keep_alive_interval(limits.headers);
    let io = TokioIo::new(NoStall::new(stream, limits.stall, limits.headers));
    let requests = Arc::<Requests>::default();
    let idle = Arc::clone(&requests);
    let bodies = Arc::<Http2Bodies>::default();
    let mut events = events(shutdown, Arc::clone(&idle), Arc::clone(&bodies), limits);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let open = requests.begin(request.version());
        let (router, bodies) = (router.clone(), Arc::clone(&bodies));
        async move {
            let reply = answer(&router, request, limits.linger).await;
            Ok::<_, Infallible>(match open {
                Some(open) => reply.map(|body| Either::Right(bodies.watch(body.hold(open)))),
                None => reply.map(Either::Left),
            })
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            Some(event) = events.next() => match event {
                Event::Kill => return,
                // A request that has just begun is answered first.
                Event::TimeToClose if idle.are_over() => return,
                Event::Drain => connection.as_mut().graceful_shutdown(),
                Event::Idle | Event::TimeToClose => {
                    connection.as_mut().graceful_shutdown();
                    events.push(tokio::time::sleep(TO_CLOSE).map(|()| Event::TimeToClose).boxed());
                }
            },
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// The reason to end a connection from outside.
#[derive(Clone, Copy)]
enum Event {
    /// The gateway drains.
    Drain,
    /// The gateway ends all connections.
    Kill,
    /// The connection has had no request for too long.
    Idle,
    /// The peer of an idle connection was asked to close the connection [`TO_CLOSE`] ago.
    TimeToClose,
}

/// The events of one connection. The set polls an event only when the event wakes, not whenever the connection is
/// polled. Beside them, unread responses are taken away, which is no event.
fn events(
    shutdown: Shutdown,
    idle: Arc<Requests>,
    bodies: Arc<Http2Bodies>,
    limits: Limits,
) -> FuturesUnordered<BoxFuture<'static, Event>> {
    FuturesUnordered::from_iter([
        shutdown.drain.cancelled_owned().map(|()| Event::Drain).boxed(),
        shutdown.kill.cancelled_owned().map(|()| Event::Kill).boxed(),
        async move { idle.are_missing_for(limits.headers).await }.map(|()| Event::Idle).boxed(),
        async move { bodies.cut_unread(limits.stall).await }.map(|never| match never {}).boxed(),
    ])
}

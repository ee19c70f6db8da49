//! Serves HTTP/1.1 and HTTP/2 on one connection, until the peer closes it, it is idle, or it has to end.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use http::header::{CONNECTION, RETRY_AFTER};
use http_body_util::Either;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::connection_memory::{READ_BUFFER, SEND_BUFFER, Unauthenticated, WINDOW};
use super::head_timer::HeadTimer;
use super::http2_body::Http2Bodies;
use super::idle::Requests;
use super::limits::{Limits, RETRY_SECONDS};
use super::linger::answer;
use super::peer::Peer;
use super::problem::{Refusal, problem};
use super::router::Router;
use super::stall::NoStall;
use super::wakes::Poller;
use super::when_woken::WhenWoken;
use crate::shutdown::Shutdown;
use crate::telemetry::{ConnectionMetrics, MemoryUse, Rejection};

/// The time in milliseconds after which a peer that acknowledges no data is considered gone (`TCP_USER_TIMEOUT`).
const USER_TIMEOUT_MS: u32 = 60_000;
/// The time that a peer has to close an idle connection after the gateway asked for it.
const TO_CLOSE: Duration = Duration::from_secs(1);
/// The time that a peer without a place has to ask for something and to read the refusal.
const TO_REFUSE: Duration = Duration::from_secs(2);
/// The largest number of concurrent streams on one HTTP/2 connection.
const MAX_STREAMS: u32 = 256;

/// Serves requests of `peer` with `router`, until the connection ends.
pub async fn serve(
    stream: TcpStream,
    peer: Peer,
    router: Router,
    limits: Limits,
    shutdown: Shutdown,
    metrics: ConnectionMetrics,
) {
    let Some((builder, io)) = prepared(stream, &limits) else { return };
    let requests = Arc::<Requests>::default();
    let idle = Arc::clone(&requests);
    let bodies = Arc::<Http2Bodies>::default();
    let mut events = events(shutdown, peer.place.makes_way(), Arc::clone(&idle), Arc::clone(&bodies), &limits);
    let peer = Arc::new(peer);
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let open = requests.begin(request.version());
        let (router, bodies, peer) = (router.clone(), Arc::clone(&bodies), Arc::clone(&peer));
        let memory = peer.memory.as_ref();
        let charged = memory.map_or_else(|| Ok(Unauthenticated::default()), |memory| memory.begin(&request));
        async move {
            let reply = match charged {
                Ok(charge) => answer(&router, &peer, request, charge, limits.linger).await,
                Err(why) => {
                    router.memory_refused(MemoryUse::Request);
                    Refusal::no_memory("the request", why).reply()
                }
            };
            Ok::<_, Infallible>(match open {
                Some(open) => reply.map(|body| Either::Right(bodies.watch(body.hold(open)))),
                None => reply.map(Either::Left),
            })
        }
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let (mut poller, mut rare) = (Poller::default(), WhenWoken::default());
    let ended = loop {
        tokio::select! {
            biased;
            ended = poll_fn(|context| poller.poll(connection.as_mut(), context)) => break ended,
            Some(event) = poll_fn(|context| rare.poll(context, |own| events.poll_next_unpin(own))) => match event {
                Event::Kill => return,
                Event::MakeWay => return metrics.rejected(Rejection::MadeWay),
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

/// Answers a peer that has no place with status 503 and `why`, if the peer asks for something within [`TO_REFUSE`], and
/// closes the connection.
pub async fn refuse(stream: TcpStream, why: &'static str, limits: Limits, shutdown: Shutdown) {
    let Some((builder, io)) = prepared(stream, &limits) else { return };
    let service = service_fn(move |_: http::Request<hyper::body::Incoming>| {
        let mut reply = problem(StatusCode::SERVICE_UNAVAILABLE, why);
        reply.headers_mut().insert(RETRY_AFTER, RETRY_SECONDS.into());
        reply.headers_mut().insert(CONNECTION, http::HeaderValue::from_static("close"));
        async move { Ok::<_, Infallible>(reply) }
    });
    let connection = builder.serve_connection(io, service);
    tokio::select! {
        _ = tokio::time::timeout(TO_REFUSE, connection) => {}
        () = shutdown.kill.cancelled() => {}
    }
}

/// The connection with its options, and what serves HTTP on it. `None` if the peer has gone.
fn prepared(stream: TcpStream, limits: &Limits) -> Option<(Builder<TokioExecutor>, TokioIo<NoStall>)> {
    // Without TCP_NODELAY each small answer waits for the acknowledgement of the answer before: 40 ms a call.
    stream.set_nodelay(true).ok()?;
    // Best effort: without the option, a peer that has vanished is noticed later.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, USER_TIMEOUT_MS);
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(HeadTimer::default()).header_read_timeout(limits.headers).max_buf_size(READ_BUFFER);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).keep_alive_interval(limits.headers);
    builder.http2().initial_connection_window_size(WINDOW).initial_stream_window_size(WINDOW);
    builder.http2().max_send_buf_size(SEND_BUFFER);
    Some((builder, TokioIo::new(NoStall::new(stream, limits.stall, limits.headers))))
}

/// The reason to end a connection from outside.
#[derive(Clone, Copy)]
enum Event {
    /// The gateway drains.
    Drain,
    /// The gateway ends all connections.
    Kill,
    /// The place of the connection has been given to another one.
    MakeWay,
    /// The connection has had no request for too long.
    Idle,
    /// The peer of an idle connection was asked to close the connection [`TO_CLOSE`] ago.
    TimeToClose,
}

/// The events of one connection. The set polls an event only when the event wakes. Beside them, unread responses are
/// taken away, which is no event.
fn events(
    shutdown: Shutdown,
    makes_way: CancellationToken,
    idle: Arc<Requests>,
    bodies: Arc<Http2Bodies>,
    limits: &Limits,
) -> FuturesUnordered<BoxFuture<'static, Event>> {
    let (headers, stall) = (limits.headers, limits.stall);
    FuturesUnordered::from_iter([
        shutdown.drain.cancelled_owned().map(|()| Event::Drain).boxed(),
        shutdown.kill.cancelled_owned().map(|()| Event::Kill).boxed(),
        makes_way.cancelled_owned().map(|()| Event::MakeWay).boxed(),
        async move { idle.are_missing_for(headers).await }.map(|()| Event::Idle).boxed(),
        async move { bodies.cut_unread(stall).await }.map(|never| match never {}).boxed(),
    ])
}

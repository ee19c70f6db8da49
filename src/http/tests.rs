//! The handlers of both transports serve a conversation that is no session: they know the trait alone.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;

use super::body::Body;
use super::connection_memory::Unauthenticated;
use super::connection_table::ConnectionTable;
use super::limits::Room;
use super::network::Network;
use super::peer::Peer;
use super::{App, Loopback, Router, Snapshot};
use crate::auth::{Authenticator, Principal};
use crate::config::{Config, Server, ServerName, TenantId};
use crate::jsonrpc::{Envelope, Kind};
use crate::memory::{Account, Memory};
use crate::pool::Pools;
use crate::session::{Conversation, Conversations, NewSession, Rejected, SessionId, Transport};
use crate::shutdown::Shutdown;
use crate::stream::{Budget, Cursor, Exchange, Expiry, Outbox};
use crate::worker::{Failure, Refused};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const ROOM: Room = Room { most: 1, reserve: 0, most_per_address: None };
const LIMITS: Budget = Budget { messages: 16, bytes: 1 << 16 };

/// Answers each request with its method, at once and without a child.
struct Mirror {
    id: SessionId,
    transport: Transport,
    version: Mutex<Option<String>>,
    stream: Mutex<Option<Arc<Exchange>>>,
    expiry: Expiry,
    account: Account,
}

impl Conversation for Mirror {
    fn id(&self) -> &SessionId {
        &self.id
    }

    fn version(&self) -> Option<String> {
        self.version.lock().clone()
    }

    fn expiry(&self) -> &Expiry {
        &self.expiry
    }

    fn give(&self, _: &[u8], envelope: &Envelope<'_>, exchange: &Arc<Exchange>) -> Result<(), Refused> {
        let method = envelope.method.as_deref().unwrap_or_default();
        let id = envelope.raw_id().filter(|_| envelope.kind == Kind::Request);
        match (method, id) {
            ("panic", _) => unreachable!("on purpose"),
            ("busy", None) => return Err(Refused::Busy),
            ("busy", Some(id)) => {
                self.answer(exchange, Failure::refused(Refused::Busy).response(&id));
                return Err(Refused::Busy);
            }
            (_, None) => self.stream().unwrap().inform("{\"heard\":1}".into()).unwrap(),
            (_, Some(id)) => {
                if method == "initialize" {
                    *self.version.lock() = Some("2025-11-25".to_owned());
                } else if method == "slow" {
                    exchange.inform("{\"interim\":1}".into()).unwrap();
                }
                let answer = format!(r#"{{"jsonrpc":"2.0","id":{},"result":"{method}"}}"#, id.as_str());
                self.answer(exchange, answer.into());
            }
        }
        Ok(())
    }

    fn account(&self) -> &Account {
        &self.account
    }

    fn answer(&self, exchange: &Exchange, response: Bytes) {
        exchange.answer(response).unwrap();
    }

    fn open_stream(&self) -> Cursor {
        let (outbox, cursor) = Outbox::new(LIMITS);
        *self.stream.lock() = Some(Arc::new(Exchange::of_stream(outbox, &self.account)));
        cursor
    }

    fn stream(&self) -> Option<Arc<Exchange>> {
        self.stream.lock().clone()
    }
}

/// Holds one conversation at most, and the reason for which the last one ended.
#[derive(Default)]
struct Mirrors {
    open: Mutex<Option<Arc<Mirror>>>,
    ended: Mutex<Option<&'static str>>,
}

impl Conversations for Mirrors {
    fn open(&self, new: &NewSession<'_>) -> Result<Arc<dyn Conversation>, Rejected> {
        if self.open.lock().is_some() {
            return Err(Rejected::Full(1, Duration::ZERO));
        }
        let mirror = Arc::new(Mirror {
            id: SessionId::random().unwrap(),
            transport: new.transport,
            version: Mutex::default(),
            stream: Mutex::default(),
            expiry: Expiry::default(),
            account: new.account.clone(),
        });
        *self.open.lock() = Some(Arc::clone(&mirror));
        Ok(mirror)
    }

    fn find(&self, id: &str, _: &Principal, _: &ServerName, transport: Transport) -> Option<Arc<dyn Conversation>> {
        let open = self.open.lock().clone()?;
        (open.id.as_str() == id && open.transport == transport).then_some(open as Arc<dyn Conversation>)
    }

    fn end(&self, id: &SessionId, why: &'static str) {
        if self.open.lock().take_if(|open| open.id == *id).is_some() {
            *self.ended.lock() = Some(why);
        }
    }

    fn has_room(&self, _: usize) -> bool {
        self.open.lock().is_none()
    }
}

fn gateway() -> (Router, Arc<Mirrors>) {
    let mut config = Config::for_servers([Server::new("mirror".parse().unwrap(), "none", Vec::new())]);
    config.auth.anonymous = Some(TenantId::fallback());
    let auth = Authenticator::new(&config.auth).unwrap();
    let snapshot = Snapshot::new(&config, auth, Loopback::of(&config), &Pools::of_nobody(), None);
    let mirrors = Arc::<Mirrors>::default();
    let app = App {
        snapshot: ArcSwap::from_pointee(snapshot),
        conversations: Arc::clone(&mirrors) as Arc<dyn Conversations>,
        metrics: Arc::default(),
        forwarded: Arc::default(),
        memory: Memory::new(1 << 30),
        shutdown: Shutdown::default(),
    };
    (Router::Public(Arc::new(app)), mirrors)
}

async fn send(router: &Router, method: Method, path: &str, session: &str, body: &str) -> Response<Body> {
    let accept = if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
    let mut request = Request::builder().method(method).uri(path).header("Host", "localhost").header("Accept", accept);
    if !session.is_empty() {
        request = request.header("Mcp-Session-Id", session);
    }
    let (mut parts, ()) = request.header("Content-Type", "application/json").body(()).unwrap().into_parts();
    let place = Arc::<ConnectionTable>::default().claim(Network::of(HOME), true, &ROOM).unwrap();
    let (peer, charge) = (Peer { address: HOME, memory: None, place }, Unauthenticated::default());
    router.respond(&peer, &mut parts, &charge, &mut Full::new(Bytes::from(body.to_owned()))).await
}

async fn text(reply: Response<Body>) -> (u16, String) {
    let status = reply.status().as_u16();
    let body = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

async fn next(stream: &mut Body) -> String {
    let frame = stream.frame().await.unwrap().unwrap();
    String::from_utf8_lossy(frame.data_ref().unwrap()).into_owned()
}

fn request(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}"}}"#)
}

fn notification(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#)
}

#[tokio::test]
async fn streamable_http_serves_a_conversation_that_is_no_session() {
    let (gateway, mirrors) = gateway();
    let reply = send(&gateway, Method::POST, "/mcp", "", &request("initialize")).await;
    let session = reply.headers().get("mcp-session-id").unwrap().to_str().unwrap().to_owned();
    assert_eq!(session, mirrors.open.lock().as_ref().unwrap().id.as_str());
    assert_eq!(text(reply).await, (200, r#"{"jsonrpc":"2.0","id":7,"result":"initialize"}"#.to_owned()));
    let post = async |body: String| text(send(&gateway, Method::POST, "/mcp", &session, &body).await).await;
    assert_eq!(post(request("x")).await, (200, r#"{"jsonrpc":"2.0","id":7,"result":"x"}"#.to_owned()));
    let (_, events) = post(request("slow")).await;
    assert!(events.contains("data: {\"interim\":1}\n") && events.contains("\"result\":\"slow\""), "{events}");
    let mut stream = send(&gateway, Method::GET, "/mcp", &session, "").await.into_body();
    assert!(next(&mut stream).await.starts_with(':'));
    assert_eq!(post(notification("x")).await, (202, String::new()));
    assert!(next(&mut stream).await.contains("{\"heard\":1}"));
    assert_eq!(post(notification("busy")).await.0, 503);
    let (status, error) = post(request("busy")).await;
    assert!(status == 200 && error.contains("\"error\""), "{status}: {error}");
    let full = send(&gateway, Method::POST, "/mcp", "", &request("initialize")).await;
    assert!(text(full).await.1.contains("sessions_full"));
    assert_eq!(send(&gateway, Method::DELETE, "/mcp", &session, "").await.status(), 200);
    assert_eq!(*mirrors.ended.lock(), Some("deleted by the client"));
    assert_eq!(post(request("x")).await.0, 404);
}

#[tokio::test]
async fn http_with_sse_serves_a_conversation_that_is_no_session() {
    let (gateway, mirrors) = gateway();
    let mut stream = send(&gateway, Method::GET, "/sse", "", "").await.into_body();
    let endpoint = next(&mut stream).await;
    let path = endpoint.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let path = format!("/{path}");
    for method in ["initialize", "x", "busy"] {
        let reply = send(&gateway, Method::POST, &path, "", &request(method)).await;
        assert_eq!(text(reply).await, (202, "Accepted".to_owned()));
        let event = next(&mut stream).await;
        assert!(event.contains(if method == "busy" { "\"error\"" } else { method }), "{event}");
    }
    assert_eq!(send(&gateway, Method::GET, "/sse", "", "").await.status(), 429);
    drop(stream);
    assert_eq!(*mirrors.ended.lock(), Some("stream closed"));
    assert_eq!(send(&gateway, Method::POST, &path, "", &request("x")).await.status(), 404);
}

#[tokio::test]
async fn paths_and_methods_that_are_not_served_say_what_is() {
    let (gateway, _) = gateway();
    let head = |name: &str, reply: &Response<Body>| {
        reply.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
    };
    for (path, allow) in [
        ("/healthz", "GET, HEAD"),
        ("/readyz", "GET, HEAD"),
        ("/mcp", "GET, POST, DELETE"),
        ("/servers/mirror/mcp/", "GET, POST, DELETE"),
        ("/sse/", "GET"),
        ("/.well-known/oauth-protected-resource", "GET"),
    ] {
        let reply = send(&gateway, Method::PUT, path, "", "").await;
        assert_eq!((reply.status().as_u16(), head("allow", &reply)), (405, allow.to_owned()), "{path}");
    }
    for path in ["/", "/mcp/x", "/mcp//", "/servers//mcp", "/servers/mirror", "/servers/mirror/x/mcp", "/healthz/"] {
        let (status, text) = text(send(&gateway, Method::GET, path, "", "").await).await;
        assert!(status == 404 && text.contains("/servers/NAME/mcp"), "{path}: {status} {text}");
    }
    // No body in response to HEAD, on a path of each kind, but the headers that GET would have.
    for (path, status) in [("/healthz", 200), ("/mcp", 405), ("/nowhere", 404)] {
        let reply = send(&gateway, Method::HEAD, path, "", "").await;
        assert_eq!(reply.status().as_u16(), status, "{path}");
        assert_eq!(head("x-content-type-options", &reply), "nosniff", "{path}");
        assert_ne!(head("content-length", &reply).parse::<usize>().unwrap(), 0, "{path}");
        assert_eq!(text(reply).await, (status, String::new()), "{path}");
    }
}

#[tokio::test]
async fn a_handler_that_panics_costs_its_request_alone() {
    let (gateway, _) = gateway();
    let reply = send(&gateway, Method::POST, "/mcp", "", &request("initialize")).await;
    let session = reply.headers().get("mcp-session-id").unwrap().to_str().unwrap().to_owned();
    let reply = send(&gateway, Method::POST, "/mcp", &session, &request("panic")).await;
    assert_eq!(reply.headers().get("x-content-type-options").unwrap(), "nosniff");
    let (status, said) = text(reply).await;
    assert!(status == 500 && said.contains("the gateway failed on this request"), "{status} {said}");
    assert_eq!(text(send(&gateway, Method::POST, "/mcp", &session, &request("x")).await).await.0, 200);
}

//! A connection without a request does not stay, whatever its protocol and however lively its peer is.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Gateway, fixture, in_time};

/// Time for a request's headers, and for the next request.
const HEADERS: Duration = Duration::from_millis(300);

async fn gateway() -> Gateway {
    Gateway::start_with([fixture("echo")], |config| {
        config.http.header_timeout = HEADERS;
        config.http.slow_client_timeout = HEADERS;
    })
    .await
}

/// Answers pings and settings until the connection is closed.
async fn answer_pings(mut stream: TcpStream, mut beginning: Vec<u8>) -> usize {
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    preface.append(&mut beginning);
    stream.write_all(&preface).await.unwrap();
    let mut pings = 0;
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).await.is_err() {
            break;
        }
        let answer = match (head[3], head[4]) {
            (6, 0) => [b"\0\0\x08\x06\x01\0\0\0\0".as_slice(), &payload].concat(),
            (4, 0) => b"\0\0\0\x04\x01\0\0\0\0".to_vec(),
            _ => continue,
        };
        pings += usize::from(head[3] == 6);
        if stream.write_all(&answer).await.is_err() {
            break;
        }
    }
    pings
}

#[tokio::test]
async fn a_peer_that_answers_pings_and_asks_for_nothing_does_not_keep_its_connection() {
    let gateway = gateway().await;
    // Nothing at all, and the beginning of headers that never end.
    let headers = b"\0\0\x01\x01\0\0\0\0\x01\x82".to_vec();
    for beginning in [Vec::new(), headers] {
        let stream = TcpStream::connect(gateway.admin().address).await.unwrap();
        in_time("the admin listener closes it", answer_pings(stream, beginning.clone())).await;
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        in_time("the connection is closed", answer_pings(stream, beginning)).await;
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_quiet_stream_keeps_its_connection() {
    let gateway = gateway().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let url = format!("http://{}/sse", gateway.address);
    let reply = client.get(url).header("Accept", "text/event-stream").send().await.unwrap();
    let mut events = reply.bytes_stream();
    assert!(events.next().await.unwrap().unwrap().starts_with(b"event: endpoint"));
    let quiet = tokio::time::timeout(HEADERS * 10, events.next()).await;
    assert!(!matches!(quiet, Ok(None | Some(Err(_)))), "the stream has ended: {quiet:?}");
    drop(events);
    gateway.finish().await;
}

/// The frames of a GET for `path` as stream 1, behind settings that give streams no window.
fn get_without_window(address: SocketAddr, path: &str) -> Vec<u8> {
    let literal = |name: u8, value: &str| [&[name, value.len() as u8], value.as_bytes()].concat();
    // Indexed: ":method: GET" and ":scheme: http". Literals under indexed names: ":path", ":authority", "accept".
    let headers = [
        b"\x82\x86".to_vec(),
        literal(0x04, path),
        literal(0x01, &address.to_string()),
        [b"\x0f".as_slice(), &literal(0x04, "text/event-stream")].concat(),
    ]
    .concat();
    let settings = b"\0\0\x06\x04\0\0\0\0\0\0\x04\0\0\0\0".to_vec();
    [settings, vec![0, 0, headers.len() as u8, 1, 5, 0, 0, 0, 1], headers].concat()
}

#[tokio::test]
async fn a_client_that_gives_its_responses_no_window_keeps_neither_session_nor_connection() {
    let gateway = gateway().await;
    for path in ["/healthz", "/nowhere", "/sse"] {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let frames = get_without_window(gateway.address, path);
        let pings = in_time("the connection is closed", answer_pings(stream, frames)).await;
        assert!(pings > 0, "{path}: the connection was not closed at once");
        gateway.until("the session is over", |metrics| metrics.sum("sluice_sessions", "") == 0.0).await;
    }
    gateway.finish().await;
}

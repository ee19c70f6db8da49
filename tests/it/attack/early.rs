//! A request that is refused before its body has come gets its answer, however large the body is, and holds the gateway
//! no longer than it may.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Gateway, Request, fixture, in_time, key};

/// More than all buffers on the way hold.
const LARGE: usize = 20 << 20;

async fn gateway() -> (Gateway, String) {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| good = key(config, "acme", "me")).await;
    (gateway, good)
}

/// A body of `LARGE` bytes behind `request`, by its length or in chunks.
fn with_large_body(request: Request, address: SocketAddr, chunked: bool) -> Vec<u8> {
    let body = vec![b'x'; LARGE];
    if !chunked {
        return request.body(body).bytes(address);
    }
    let head = String::from_utf8(request.body("").bytes(address)).unwrap();
    let mut bytes = head.replace("Content-Length: 0", "Transfer-Encoding: chunked").into_bytes();
    for chunk in body.chunks(64 * 1024) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Requests that are refused by what stands before their body, and the status of each.
fn refused_early(key: &str) -> Vec<(Request, u16)> {
    let post = |path: &str| Request::post(path, "").header("Authorization", &format!("Bearer {key}"));
    vec![
        (post("/mcp").without("Authorization"), 401),
        (post("/mcp").header("Authorization", "Bearer wrong"), 401),
        (post("/mcp").header("Origin", "http://evil.example"), 403),
        (post("/mcp").header("Host", "evil.example"), 403),
        (post("/nowhere"), 404),
        (post("/servers/none/mcp"), 404),
        (post(&format!("/messages?sessionId={}", "x".repeat(43))), 404),
        (post("/messages"), 400),
        (post("/sse"), 405),
        (Request::new("PUT", "/mcp"), 405),
        (post("/healthz"), 405),
        (post("/mcp").header("Accept", "application/json"), 406),
        (post("/mcp"), 413),
        (post("/mcp").header("Content-Type", "text/plain"), 415),
    ]
}

#[tokio::test]
async fn a_refusal_arrives_though_the_client_writes_all_of_its_body_first() {
    let (gateway, key) = gateway().await;
    for (request, status) in refused_early(&key) {
        for chunked in [false, true] {
            let bytes = with_large_body(request.clone(), gateway.address, chunked);
            let mut stream = TcpStream::connect(gateway.address).await.unwrap();
            let written = in_time("all is taken", stream.write_all(&bytes)).await;
            assert!(written.is_ok(), "{status}, chunked {chunked}: {written:?} in {request:?}");
            let mut said = Vec::new();
            let read = in_time("the connection ends", stream.read_to_end(&mut said)).await;
            let said = String::from_utf8_lossy(&said);
            assert!(read.is_ok() && said.starts_with(&format!("HTTP/1.1 {status} ")), "{read:?} {said} {request:?}");
            assert!(said.to_lowercase().contains("connection: close"), "{said}");
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_refusal_arrives_over_http_2_and_the_connection_goes_on() {
    let (gateway, key) = gateway().await;
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    for (path, bearer, status) in
        [("/mcp", "wrong", 401), ("/nowhere", &key, 404), ("/sse", &key, 405), ("/mcp", &key, 413)]
    {
        let request = client.post(format!("http://{}{path}", gateway.address)).bearer_auth(bearer);
        let request = request.header("Accept", "*/*").header("Content-Type", "application/json");
        let reply = in_time("an answer", request.body(vec![b'x'; LARGE]).send()).await.unwrap();
        assert_eq!(reply.status(), status, "{path}");
        assert!(reply.text().await.unwrap().contains("\"detail\""), "{path}");
        assert_eq!(gateway.metrics().await.sum("sluice_connections", ""), 1.0, "one connection for all");
    }
    drop(client);
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_not_told_to_send_what_is_refused() {
    let (gateway, key) = gateway().await;
    for (request, status) in refused_early(&key) {
        let head = request.header("Expect", "100-continue").header("Content-Length", &LARGE.to_string());
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(&head.bytes(gateway.address)).await.unwrap();
        let mut start = [0; 12];
        in_time("the answer", stream.read_exact(&mut start)).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&start), format!("HTTP/1.1 {status}"), "no 100 comes before it");
    }
    // One that is not refused is told to go on.
    let ping = Request::post("/mcp", json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    let ping = ping.header("Authorization", &format!("Bearer {key}")).header("Expect", "100-continue");
    let bytes = ping.bytes(gateway.address);
    let head = memchr::memmem::find(&bytes, b"\r\n\r\n").unwrap() + 4;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&bytes[..head]).await.unwrap();
    let mut start = [0; 25];
    in_time("the leave", stream.read_exact(&mut start)).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 100 Continue\r\n\r\n");
    drop(stream);
    gateway.finish().await;
}

#[tokio::test]
async fn a_small_body_that_is_refused_costs_the_connection_nothing() {
    let (gateway, _) = gateway().await;
    let body = "x".repeat(10_000);
    let refused = Request::post("/mcp", &body).bytes(gateway.address);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    for _ in 0..3 {
        stream.write_all(&refused).await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"}") {
            let mut buffer = [0; 4096];
            let read = in_time("an answer", stream.read(&mut buffer)).await.unwrap();
            assert!(read > 0, "the connection has ended after {}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&buffer[..read]);
        }
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("HTTP/1.1 401 ") && !said.contains("connection: close"), "{said}");
    }
    drop(stream);
    gateway.finish().await;
}

#[tokio::test]
async fn a_body_that_drips_or_never_ends_is_not_waited_for() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        let _ = key(config, "acme", "me");
        config.http.body_timeout = Duration::from_millis(300);
    })
    .await;
    let mut bystander = gateway.connect().await;
    bystander.write(&Request::get("/healthz").bytes(gateway.address)).await;
    // One byte at a time, in time.
    let head = Request::post("/mcp", "").header("Content-Length", "1000000").bytes(gateway.address);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&head).await.unwrap();
    let began = Instant::now();
    let drips = async {
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    in_time("the gateway has enough", drips).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // As fast as can be, without an end.
    let head = Request::post("/mcp", "").header("Content-Length", "1000000000000").bytes(gateway.address);
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(&head).await.unwrap();
    let mut sent: u64 = 0;
    let chunk = vec![b'x'; 1 << 20];
    let floods = async {
        while stream.write_all(&chunk).await.is_ok() {
            sent += 1;
        }
    };
    in_time("the gateway has enough", floods).await;
    assert!(sent < 100, "{sent} MiB were read for nothing");
    assert_eq!(bystander.response().await.status, 200);
    gateway.until("no connection is held", |metrics| metrics.sum("sluice_connections", "") == 0.0).await;
    gateway.finish().await;
}

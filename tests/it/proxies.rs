//! Proxies in front of the gateway tell whose connection and request it is, if the configuration trusts them; nobody
//! else is believed. Clients are told apart by what they may hold at the same time: one connection or request each.

use std::time::Duration;

use sluice::config::{Config, ForwardedHeader, Proxies};

use crate::harness::{Caller, Connection, Gateway, Request, Response, fixture, key};

/// The last number of the address that the proxy calls from.
const PROXY: u8 = 9;

async fn gateway(header: ForwardedHeader, protocol: bool, change: impl FnOnce(&mut Config)) -> (Gateway, Caller) {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        good = key(config, "acme", "me");
        config.http.max_connections_per_address = Some(1);
        let trusted = vec!["127.0.0.9/32".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        config.http.proxies = Proxies { trusted, header, protocol }.into();
        change(config);
    })
    .await;
    let client = gateway.with_key(&good);
    (gateway, client)
}

fn stream() -> Request {
    Request::get("/sse")
}

async fn rejected(gateway: &Gateway, reason: &str) -> f64 {
    gateway.metrics().await.sum("sluice_connections_rejected_total", &format!("reason=\"{reason}\""))
}

#[tokio::test]
async fn a_request_is_its_clients_where_a_trusted_proxy_says_so() {
    for (header, form) in [(ForwardedHeader::XForwardedFor, ""), (ForwardedHeader::Forwarded, "for=")] {
        let (gateway, client) = gateway(header, false, |_| {}).await;
        let name = if form.is_empty() { "X-Forwarded-For" } else { "Forwarded" };
        let by_proxy = client.from(PROXY);
        let of = |client: &str| stream().header(name, &format!("{form}203.0.113.5, {form}{client}, {form}10.1.2.3"));
        let held = by_proxy.open(of("192.0.2.1")).await;
        assert_eq!(held.status, 200);
        let refused = by_proxy.send(of("192.0.2.1")).await;
        refused.assert_problem(503, "http.max_connections_per_address");
        assert_eq!(refused.header("retry-after"), Some("5"));
        assert_eq!(rejected(&gateway, "request_share").await, 1.0);
        let other = by_proxy.open(of("192.0.2.2")).await;
        assert_eq!(other.status, 200, "another client of the same proxy");
        for _ in 0..2 {
            assert_eq!(by_proxy.send(Request::get("/healthz")).await.status, 200, "the proxy speaks for itself");
        }
        drop(held);
        gateway.until("the stream has ended", |metrics| metrics.sessions() == 1.0).await;
        assert_eq!(by_proxy.open(of("192.0.2.1")).await.status, 200);
        by_proxy.send(of("192.0.2")).await.assert_problem(400, "http.forwarded_header");
        assert_eq!(rejected(&gateway, "forwarded_header").await, 1.0);
        drop(other);
        gateway.finish().await;
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let (gateway, client) = gateway(ForwardedHeader::XForwardedFor, false, |_| {}).await;
    let stranger = client.from(2);
    let as_another = |client: &str| stream().header("X-Forwarded-For", client);
    let held = stranger.open(as_another("192.0.2.1")).await;
    assert_eq!(held.status, 200);
    // Its one connection is its own, whatever it says; and what it says is not even read.
    stranger.send(as_another("192.0.2.2")).await.assert_problem(503, "http.max_connections_per_address");
    assert_eq!(rejected(&gateway, "address_share").await, 1.0);
    drop(held);
    gateway.until("the stream has ended", |metrics| metrics.sum("sluice_connections", "") == 0.0).await;
    assert_eq!(stranger.send(Request::get("/healthz").header("X-Forwarded-For", "nonsense")).await.status, 200);
    gateway.finish().await;
}

/// A request on a connection that begins with a header of the PROXY protocol.
async fn announced(caller: &Caller, header: &[u8], request: Request) -> Connection {
    let mut connection = caller.connect().await;
    connection.write(header).await;
    connection.write(&caller.signed(request)).await;
    connection
}

fn version_2(client: [u8; 4]) -> Vec<u8> {
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".as_slice(), &client, b"\x0a\0\0\x01\x10\0\0\x50"].concat()
}

#[tokio::test]
async fn a_connection_is_its_clients_where_a_trusted_proxy_says_so() {
    let (gateway, client) = gateway(ForwardedHeader::XForwardedFor, true, |_| {}).await;
    let by_proxy = client.from(PROXY);
    let ask =
        async |header: &[u8], request| -> Response { announced(&by_proxy, header, request).await.response().await };
    let line = b"PROXY TCP4 192.0.2.1 10.0.0.1 4096 80\r\n";
    let held = ask(line, stream()).await;
    assert_eq!(held.status, 200);
    let refused = ask(&version_2([192, 0, 2, 1]), stream()).await.reply().await;
    refused.assert_problem(503, "http.max_connections_per_address");
    let other = ask(&version_2([192, 0, 2, 2]), stream()).await;
    assert_eq!(other.status, 200);
    // Checks of the proxy itself have no share.
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        assert_eq!(ask(header, Request::get("/healthz")).await.status, 200);
    }
    // A client that is a trusted proxy itself, with a header.
    let chain = |client: &str| stream().header("X-Forwarded-For", client);
    let through = ask(&version_2([10, 0, 0, 7]), chain("192.0.2.3")).await;
    assert_eq!(through.status, 200);
    assert_eq!(ask(&version_2([10, 0, 0, 7]), chain("192.0.2.3")).await.status, 503);
    // Without a header, and with one that cannot be read.
    for header in [&b""[..], b"PROXY TCP4 192.0.2.1 10.0.0.1 4096 80 \r\n"] {
        assert_eq!(announced(&by_proxy, header, Request::get("/healthz")).await.until_closed().await, "");
    }
    assert_eq!(rejected(&gateway, "proxy_header").await, 2.0);
    // From who is no proxy it is not HTTP.
    let stranger = announced(&client.from(2), line, Request::get("/healthz")).await.until_closed().await;
    assert!(stranger.starts_with("HTTP/1.1 400 "), "{stranger}");
    gateway.until("it is gone", |metrics| metrics.sum("sluice_connections", "") == 3.0).await;
    assert_eq!(client.from(2).send(Request::get("/healthz")).await.status, 200);
    drop((held, other, through));
    gateway.finish().await;
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_that_does_not_come_is_not_waited_for() {
    let short = |config: &mut Config| config.http.header_timeout = Duration::from_millis(300);
    let (gateway, client) = gateway(ForwardedHeader::XForwardedFor, true, short).await;
    for beginning in [&b""[..], b"PROXY TCP4 192.0.2.1", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\xff"] {
        let mut connection = client.from(PROXY).connect().await;
        connection.write(beginning).await;
        assert_eq!(connection.until_closed().await, "");
    }
    assert_eq!(rejected(&gateway, "proxy_header").await, 3.0);
    gateway.finish().await;
}

#[tokio::test]
async fn who_is_trusted_follows_the_configuration() {
    let (gateway, client) = gateway(ForwardedHeader::XForwardedFor, false, |_| {}).await;
    let ask = async || client.from(PROXY).send(Request::get("/healthz").header("X-Forwarded-For", "nonsense")).await;
    assert_eq!(ask().await.status, 400);
    let mut config = Config::for_servers([fixture("echo")]);
    key(&mut config, "acme", "me");
    gateway.replace(config).await.unwrap();
    assert_eq!(ask().await.status, 200);
    gateway.finish().await;
}

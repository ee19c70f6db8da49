//! HTTP requests that are wrong: each gets the status and the words that say what to do, and nobody else notices.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Gateway, Request, fixture, in_time, text_of};

const PING: &str = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

#[tokio::test]
async fn an_unfit_accept_or_content_type_is_refused() {
    let gateway = Gateway::start(fixture("echo")).await;
    let (mut client, sse) = (gateway.streamable().await, gateway.sse().await);
    let post = || client.with_headers(Request::post("/mcp", PING));
    for accept in ["application/json", "text/event-stream", "text/html", "application/json;q=0.5"] {
        let reply = gateway.send(post().header("Accept", accept)).await;
        reply.assert_problem(406, "send the header Accept: application/json, text/event-stream");
    }
    gateway.send(post().without("Accept")).await.assert_problem(406, "send the header Accept");
    for accept in ["*/*", "text/event-stream;q=0.1, application/json", "Application/*, text/*"] {
        assert_eq!(gateway.send(post().header("Accept", accept)).await.status, 200, "{accept}");
    }
    let get = client.with_headers(Request::get("/mcp")).header("Accept", "application/json");
    gateway.send(get).await.assert_problem(406, "send the header Accept: text/event-stream");
    for request in [post(), Request::post(&sse.endpoint, PING)] {
        for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp"] {
            let reply = gateway.send(request.clone().header("Content-Type", kind)).await;
            reply.assert_problem(415, "send the header Content-Type: application/json");
        }
        gateway.send(request.clone().without("Content-Type")).await.assert_problem(415, "Content-Type");
        let reply = gateway.send(request.header("Content-Type", "application/json; charset=utf-8")).await;
        assert!([200, 202].contains(&reply.status), "{reply:?}");
    }
    assert_eq!(client.call("echo", json!({"text": "still"})).await, "still");
    gateway.finish().await;
}

#[tokio::test]
async fn what_is_not_served_says_what_is() {
    let gateway = Gateway::start(fixture("echo")).await;
    for method in ["PUT", "PATCH", "OPTIONS", "BREW"] {
        let reply = gateway.send(Request::new(method, "/mcp")).await;
        reply.assert_problem(405, "this path takes GET, POST, DELETE");
        assert_eq!(reply.header("allow"), Some("GET, POST, DELETE"));
    }
    for path in ["/", "/mcp/x", "/servers/fixture", "/servers/a/b/mcp", "/metrics", "/../mcp"] {
        let reply = gateway.send(Request::post(path, PING)).await;
        reply.assert_problem(404, "use /servers/NAME/mcp or /servers/NAME/sse");
    }
    let reply = gateway.send(Request::post("/servers/%66ixture/mcp", PING)).await;
    reply.assert_problem(404, "there is no server");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    gateway.finish().await;
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        config.http.allowed_hosts = vec!["mcp.example.com".to_owned()];
        config.http.allowed_origins = vec!["https://app.example.com".to_owned()];
    })
    .await;
    let mut bystander = gateway.bystander().await;
    let address = gateway.address;
    for path in ["/mcp", "/sse", "/messages", "/healthz", "/nowhere"] {
        for host in ["evil.example.com", "evil.example.com:8081", "127.0.0.1.evil.example.com", "localhost.evil:80", ""]
        {
            let reply = gateway.send(Request::post(path, PING).header("Host", host)).await;
            reply.assert_problem(403, "add it to http.allowed_hosts");
        }
        for origin in ["http://evil.example.com", "null", "https://app.example.com.evil.com", "http://app.example.com"]
        {
            let reply = gateway.send(Request::post(path, PING).header("Origin", origin)).await;
            reply.assert_problem(403, "add it to http.allowed_origins");
            assert_eq!(reply.header("access-control-allow-origin"), None);
        }
    }
    for host in ["localhost", "127.0.0.1:1", "[::1]:8081", "LOCALHOST:80", "mcp.example.com", "mcp.example.com:443"] {
        let reply = gateway.send(Request::get("/healthz").header("Host", host)).await;
        assert_eq!((reply.status, reply.text.as_str()), (200, "ok\n"), "{host}");
    }
    let own = format!("http://{address}");
    for origin in [own.as_str(), "http://localhost:3000", "https://app.example.com"] {
        let reply = gateway.send(Request::get("/healthz").header("Origin", origin)).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)));
        let preflight = Request::new("OPTIONS", "/mcp").header("Origin", origin);
        let reply = gateway.send(preflight.header("Access-Control-Request-Method", "POST")).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some(origin)));
    }
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_however_it_is_framed() {
    let gateway = Gateway::start_with([fixture("echo")], |config| config.http.max_body = 2000).await;
    let mut bystander = gateway.bystander().await;
    let (client, sse) = (gateway.streamable().await, gateway.sse().await);
    for request in [client.with_headers(Request::post("/mcp", "")), Request::post(&sse.endpoint, "")] {
        // The declared length alone is enough: nothing of the body is sent.
        let mut connection = gateway.connect().await;
        connection.write(&request.clone().header("Content-Length", "2001").bytes(gateway.address)).await;
        let reply = connection.response().await.reply().await;
        reply.assert_problem(413, "the body is larger than 2000 bytes (http.max_body)");

        let mut connection = gateway.connect().await;
        let chunked = request.clone().header("Transfer-Encoding", "chunked").header("Content-Length", "");
        let head = String::from_utf8(chunked.bytes(gateway.address)).unwrap().replace("Content-Length: \r\n", "");
        connection.write(head.as_bytes()).await;
        for _ in 0..21 {
            connection.write(format!("64\r\n{}\r\n", "x".repeat(100)).as_bytes()).await;
        }
        let reply = connection.response().await.reply().await;
        reply.assert_problem(413, "the body is larger than 2000 bytes (http.max_body)");

        let reply = gateway.send(request.body(format!("{PING}{}", " ".repeat(2000 - PING.len())))).await;
        assert!([200, 202].contains(&reply.status), "a body of just the limit: {reply:?}");
    }
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn slow_requests_do_not_hold_the_gateway() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        config.http.body_timeout = Duration::from_millis(150);
        config.http.header_timeout = Duration::from_millis(150);
    })
    .await;
    let mut bystander = gateway.bystander().await;
    let (client, sse) = (gateway.streamable().await, gateway.sse().await);
    for request in [client.with_headers(Request::post("/mcp", "")), Request::post(&sse.endpoint, "")] {
        let mut connection = gateway.connect().await;
        connection.write(&request.header("Content-Length", "100").body("{").bytes(gateway.address)).await;
        let reply = connection.response().await.reply().await;
        reply.assert_problem(408, "the body did not arrive within 150ms (http.body_timeout)");
    }
    let mut connection = gateway.connect().await;
    connection.write(b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
    let said = connection.until_closed().await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    // Nor does a connection on which nothing is sent, or too little to tell the protocol by.
    for start in ["", "P", "PRI * HTTP/2.0\r\n"] {
        let mut connection = gateway.connect().await;
        connection.write(start.as_bytes()).await;
        assert_eq!(connection.until_closed().await, "");
    }
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn garbage_on_a_connection_costs_that_connection_only() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let mut noise = vec![0_u8; 4096];
    getrandom::fill(&mut noise).unwrap();
    noise.extend_from_slice(b"\r\n\r\n");
    let long_header = format!("GET /sse HTTP/1.1\r\nHost: localhost\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    let many_headers = format!("GET /sse HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X: y\r\n".repeat(10_000));
    for bytes in [
        noise.as_slice(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: banana\r\n\r\n",
        long_header.as_bytes(),
        many_headers.as_bytes(),
    ] {
        let mut connection = gateway.connect().await;
        connection.write(bytes).await;
        let said = connection.until_closed().await;
        let is_refusal = ["HTTP/1.1 400", "HTTP/1.1 431", "HTTP/1.1 414"].iter().any(|start| said.starts_with(start));
        assert!(
            said.is_empty() || is_refusal,
            "{said} to {:?}",
            String::from_utf8_lossy(&bytes[..40.min(bytes.len())])
        );
    }
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_connection_that_is_cut_in_a_request_costs_that_request_only() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let (mut client, mut sse) = (gateway.streamable().await, gateway.sse().await);
    let echo = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}).to_string();
    for request in [client.with_headers(Request::post("/mcp", &echo)), Request::post(&sse.endpoint, &echo)] {
        let bytes = request.bytes(gateway.address);
        for cut in [1, bytes.len() / 3, bytes.len() - echo.len(), bytes.len() - 1] {
            let mut connection = gateway.connect().await;
            connection.write(&bytes[..cut]).await;
            drop(connection);
        }
    }
    let open = |metrics: &crate::harness::Metrics| metrics.sum("sluice_connections", "");
    // The two streams are left: the bystander's, and the client's.
    gateway.until("the connections are gone", |metrics| open(metrics) == 2.0).await;
    assert_eq!(client.call("echo", json!({"text": "still"})).await, "still");
    assert_eq!(sse.call("echo", json!({"text": "still"})).await, "still");
    assert!(sse.unsolicited.is_empty(), "half a request has no answer: {:?}", sse.unsolicited);
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    let http = reqwest::Client::builder().pool_max_idle_per_host(1).build().unwrap();
    let url = format!("http://{}/mcp", gateway.address);
    for _ in 0..20 {
        let request = http.post(&url).header("Mcp-Session-Id", &client.session).body(PING);
        let request =
            request.header("Accept", "application/json, text/event-stream").header("Content-Type", "application/json");
        let answer = in_time("an answer", request.send()).await.unwrap();
        assert_eq!(answer.text().await.unwrap(), r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        assert_eq!(gateway.metrics().await.sum("sluice_connections", ""), 1.0);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn http_2_carries_many_requests_at_once() {
    let gateway = Gateway::start(fixture("echo")).await;
    let client = gateway.streamable().await;
    let http = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let calls = (0..50).map(|number| {
        let params = json!({"name": "echo", "arguments": {"text": number.to_string()}});
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
        let request = http.post(format!("http://{}/mcp", gateway.address)).header("Mcp-Session-Id", &client.session);
        let request = request.header("Accept", "*/*").header("Content-Type", "application/json").body(call);
        async move {
            let reply = in_time("an answer", request.send()).await.unwrap();
            assert_eq!(reply.version(), reqwest::Version::HTTP_2);
            let answer: serde_json::Value = serde_json::from_str(&reply.text().await.unwrap()).unwrap();
            assert_eq!((&answer["id"], text_of(&answer)), (&json!(1), number.to_string()));
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(gateway.metrics().await.sum("sluice_connections", ""), 1.0);
    drop(http);
    gateway.finish().await;
}

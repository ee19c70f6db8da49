//! HTTP+SSE, 2024-11-05: the stream, its endpoint, and the session that ends with it.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Caller, Gateway, Request, Sse, fixture, hello, key, named, resolve};

#[tokio::test]
async fn the_endpoint_is_the_first_event_and_is_relative_to_the_url_that_was_asked_for() {
    for public_url in [None, Some("https://mcp.example.com/tools/v1")] {
        let gateway = Gateway::start_with([fixture("echo")], |config| {
            config.http.public_url = public_url.map(str::to_owned);
        })
        .await;
        for (path, endpoint, posts_to) in [
            ("/sse", "messages", "/messages"),
            ("/sse/", "../messages", "/messages"),
            ("/sse?x=/y", "messages", "/messages"),
            ("/servers/fixture/sse", "messages", "/servers/fixture/messages"),
            ("/servers/fixture/sse/", "../messages", "/servers/fixture/messages"),
        ] {
            let mut stream = gateway.open(Request::get(path)).await;
            assert_eq!(stream.status, 200);
            assert_eq!(stream.header("content-type"), Some("text/event-stream"));
            assert_eq!(stream.header("cache-control"), Some("no-cache, no-transform"));
            assert_eq!(stream.header("x-accel-buffering"), Some("no"));
            let event = stream.event().await.unwrap();
            let start = format!("event: endpoint\ndata: {endpoint}?sessionId=");
            let id = event.raw.strip_prefix(&start).and_then(|rest| rest.strip_suffix("\n\n"));
            let id = id.unwrap_or_else(|| panic!("{event:?}"));
            assert_eq!(id.len(), 43, "256 bits: {id}");
            let target = resolve(path, &event.data.unwrap());
            assert_eq!(target, format!("{posts_to}?sessionId={id}"));
            let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
            for target in [target.clone(), target.replace("messages?", "messages/?")] {
                assert_eq!(gateway.send(Request::post(&target, &ping)).await.status, 202, "{target}");
                assert_eq!(stream.message().await.unwrap()["result"], json!({}));
            }
        }
        gateway.finish().await;
    }
}

/// Passes connections on to `to`, and takes `prefix` away from the paths of requests, as a reverse proxy does.
async fn proxy_that_strips(prefix: &'static str, to: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut gateway = TcpStream::connect(to).await.unwrap();
                let mut head = vec![0; 4096];
                let read = client.read(&mut head).await.unwrap();
                let head = String::from_utf8(head[..read].to_vec()).unwrap();
                assert!(head.split(' ').nth(1).unwrap().starts_with(prefix), "not for this proxy: {head}");
                gateway.write_all(head.replacen(prefix, "", 1).as_bytes()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut gateway).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_client_behind_a_proxy_that_strips_a_prefix_finds_its_endpoint() {
    for public_url in [None, Some("https://mcp.example.com/tools/v1")] {
        let gateway = Gateway::start_with([fixture("echo")], |config| {
            config.http.public_url = public_url.map(str::to_owned);
        })
        .await;
        let proxy = Caller::new(proxy_that_strips("/tools/v1", gateway.address).await);
        for path in ["/tools/v1/sse", "/tools/v1/servers/fixture/sse/"] {
            let mut stream = proxy.open(Request::get(path)).await;
            let target = resolve(path, &stream.event().await.unwrap().data.unwrap());
            let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2024-11-05")});
            assert_eq!(proxy.send(Request::post(&target, initialize)).await.status, 202, "{target}");
            assert_eq!(stream.message().await.unwrap()["result"]["serverInfo"]["name"], "fixture");
        }
        gateway.finish().await;
    }
}

#[tokio::test]
async fn endpoints_are_served_with_a_slash_at_their_end() {
    let gateway = Gateway::start(fixture("echo")).await;
    for base in ["", "/servers/fixture"] {
        let path = format!("{base}/mcp/");
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")});
        let reply = gateway.send(Request::post(&path, initialize)).await;
        let session = reply.header("mcp-session-id").unwrap();
        let delete = Request::new("DELETE", &path).header("Mcp-Session-Id", session);
        assert_eq!((reply.status, gateway.send(delete).await.status), (200, 200));
    }
    gateway.send(Request::post("/sse/", "{}")).await.assert_problem(405, "this path takes GET");
    for path in ["/mcp//", "//mcp", "/servers/fixture//mcp", "/mcp/x"] {
        gateway.send(Request::post(path, "{}")).await.assert_problem(404, "nothing is served here");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn posts_are_accepted_and_answered_on_the_stream() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = Sse::open(&gateway).await;
    // Raw line breaks are white space in JSON, and must not reach a child that reads lines.
    let initialize = json!({"jsonrpc": "2.0", "id": "first", "method": "initialize", "params": hello("2024-11-05")});
    let reply = client.send(format!("{initialize:#}").replace('\n', "\r\n")).await;
    assert_eq!((reply.status, reply.text.as_str()), (202, "Accepted"));
    let answer = client.message().await;
    assert_eq!(answer["id"], "first");
    assert_eq!(answer["result"]["protocolVersion"], "2024-11-05");
    assert_eq!(answer["result"]["serverInfo"]["name"], "fixture");
    client.post(json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    assert_eq!(client.call("notifications_received", json!({})).await, r#"["notifications/initialized"]"#);
    gateway.finish().await;
}

#[tokio::test]
async fn servers_are_told_apart_by_their_names() {
    let servers = || [named("one", fixture("echo")), named("two", fixture("crlf"))];
    let gateway = Gateway::start_with(servers(), |_| {}).await;
    for (name, mode) in [("one", "echo"), ("two", "crlf")] {
        let arguments = gateway.server(name).sse().await.call("args", json!({})).await;
        assert!(arguments.contains(mode), "{arguments}");
    }
    gateway.send(Request::get("/sse")).await.assert_problem(404, "use /servers/NAME/");
    gateway.send(Request::get("/servers/three/sse")).await.assert_problem(404, "no server \"three\"");
    gateway.finish().await;

    let gateway = Gateway::start_with(servers(), |config| config.default_server = Some("two".parse().unwrap())).await;
    let arguments = gateway.sse().await.call("args", json!({})).await;
    assert!(arguments.contains("crlf"), "{arguments}");
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_and_its_child_end_with_the_stream() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut bystander = gateway.bystander().await;
    let client = gateway.sse().await;
    assert_eq!(gateway.metrics().await.children(), 3.0);
    let endpoint = client.endpoint.clone();
    drop(client);
    gateway.until("the child is gone", |metrics| metrics.children() == 2.0 && metrics.sessions() == 2.0).await;
    assert_eq!(gateway.processes().len(), 2);
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    gateway.send(Request::post(&endpoint, ping)).await.assert_error(404, -32600, "no such session");
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn both_spellings_of_the_session_parameter_are_taken() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.sse().await;
    client.endpoint = client.endpoint.replace("sessionId=", "session_id=");
    assert_eq!(client.call("echo", json!({"text": "as Python spells it"})).await, "as Python spells it");
    gateway.finish().await;
}

#[tokio::test]
async fn a_session_answers_to_its_own_principal_server_and_transport_only() {
    let (mut mine, mut yours) = (String::new(), String::new());
    let gateway = Gateway::start_with([named("one", fixture("echo")), named("two", fixture("echo"))], |config| {
        mine = key(config, "acme", "me");
        yours = key(config, "acme", "you");
    })
    .await;
    let (mine, yours) = (gateway.with_key(&mine).server("one"), gateway.with_key(&yours).server("one"));
    let mut client = mine.sse().await;
    let streamable = mine.streamable().await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let post = |path: &str| Request::post(path, &ping);

    let stranger = yours.send(post(&client.endpoint)).await;
    stranger.assert_error(404, -32600, "no such session");
    let other_server = mine.send(post(&client.endpoint.replace("/one/", "/two/"))).await;
    let of_the_other_transport = format!("/servers/one/messages?sessionId={}", streamable.session);
    let other_transport = mine.send(post(&of_the_other_transport)).await;
    let never_was = mine.send(post(&format!("/servers/one/messages?sessionId={}", "x".repeat(43)))).await;
    let misshapen = mine.send(post("/servers/one/messages?sessionId=1")).await;
    for reply in [&other_server, &other_transport, &never_was, &misshapen] {
        assert_eq!((reply.status, &reply.text), (404, &stranger.text), "nothing is learnt from the answer");
    }
    let missing = mine.send(post("/servers/one/messages")).await;
    missing.assert_problem(400, "sessionId is missing: POST to the URI of the stream's endpoint event");
    let nobody = gateway.send(post(&client.endpoint)).await;
    nobody.assert_problem(401, "no credential");

    assert_eq!(client.call("echo", json!({"text": "unharmed"})).await, "unharmed");
    assert!(client.unsolicited.is_empty(), "{:?}", client.unsolicited);
    gateway.finish().await;
}

#[tokio::test]
async fn other_methods_say_which_are_right() {
    let gateway = Gateway::start(fixture("echo")).await;
    // This status is what makes clients that try Streamable HTTP first fall back to SSE.
    let reply = gateway.send(Request::post("/sse", "{}")).await;
    reply.assert_problem(405, "this path takes GET");
    assert_eq!(reply.header("allow"), Some("GET"));
    let reply = gateway.send(Request::get("/messages?sessionId=x")).await;
    reply.assert_problem(405, "this path takes POST");
    assert_eq!(reply.header("allow"), Some("POST"));
    gateway.finish().await;
}

#[tokio::test]
async fn the_stream_needs_a_fitting_accept_or_none() {
    let gateway = Gateway::start(fixture("echo")).await;
    let wrong = gateway.send(Request::get("/sse").header("Accept", "application/json")).await;
    wrong.assert_problem(406, "send the header Accept: text/event-stream");
    for request in [Request::get("/sse").without("Accept"), Request::get("/sse").header("Accept", "*/*")] {
        assert_eq!(gateway.open(request).await.status, 200);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_second_initialize_is_refused_and_the_session_goes_on() {
    let gateway = Gateway::start(fixture("echo")).await;
    let mut client = gateway.sse().await;
    let pid = client.call("pid", json!({})).await;
    let answer = client.request("initialize", hello("2024-11-05")).await;
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("open another one"), "{answer}");
    assert_eq!(client.call("pid", json!({})).await, pid);
    gateway.finish().await;
}

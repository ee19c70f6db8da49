//! A page of somebody else in a browser on this machine, or a name that such a page controls, reaches neither listener.

use std::net::SocketAddr;

use reqwest::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use serde_json::json;

use crate::harness::{Gateway, Reply, Request, fixture, in_time};

/// A gateway on loopback that is also served as `https://mcp.example.com/tools`.
async fn gateway() -> Gateway {
    Gateway::start_with([fixture("echo")], |config| {
        config.http.allowed_hosts = vec!["Gw.Example.".to_owned(), "[2001:db8::1]".to_owned()];
        config.http.allowed_origins = vec!["https://app.example.com".to_owned()];
        config.http.public_url = Some("https://mcp.example.com/tools".to_owned());
    })
    .await
}

/// Sends a head as it is, and reads the answer.
async fn raw(address: SocketAddr, head: &str) -> Reply {
    let caller = crate::harness::Caller::new(address);
    let mut connection = caller.connect().await;
    connection.write(head.replace('\n', "\r\n").as_bytes()).await;
    connection.response().await.reply().await
}

#[tokio::test]
async fn a_request_names_one_host_and_no_other() {
    let gateway = gateway().await;
    let own = gateway.address;
    for (head, says) in [
        ("GET /healthz HTTP/1.1\n\n", "names no host; send the header Host"),
        ("GET http://localhost/healthz HTTP/1.1\n\n", "names no host; send the header Host"),
        ("GET /healthz HTTP/1.1\nHost: localhost\nHost: localhost\n\n", "more than one Host header"),
        ("GET /healthz HTTP/1.1\nHost: localhost\nHost: evil.example\n\n", "more than one Host header"),
        ("GET http://evil.example/healthz HTTP/1.1\nHost: localhost\n\n", "different hosts"),
        ("GET http://localhost/healthz HTTP/1.1\nHost: evil.example\n\n", "different hosts"),
        ("GET http://localhost:81/healthz HTTP/1.1\nHost: localhost\n\n", "different hosts"),
        ("GET http://u@localhost/healthz HTTP/1.1\nHost: localhost\n\n", "there is a user in it"),
        ("GET /healthz HTTP/1.1\nHost: localhost@evil.example\n\n", "there is a user in it"),
        ("GET /healthz HTTP/1.1\nHost: localhost, evil.example\n\n", "neither a DNS name nor an address"),
        ("GET /healthz HTTP/1.1\nHost: localhost/evil.example\n\n", "neither a DNS name nor an address"),
        ("GET /healthz HTTP/1.1\nHost: ::1\n\n", "the port is no number"),
        ("GET /healthz HTTP/1.1\nHost: localhost:http\n\n", "the port is no number"),
    ] {
        for listener in [own, gateway.admin().address] {
            raw(listener, head).await.assert_problem(400, says);
        }
    }
    for (head, status) in [
        ("GET http://LOCALHOST.:80/healthz HTTP/1.1\nHost: localhost\n\n", 200),
        ("GET /healthz HTTP/1.1\nHost: [0:0:0:0:0:0:0:1]:8081\n\n", 200),
        ("GET /healthz HTTP/1.1\nHost: [::ffff:127.0.0.1]\n\n", 200),
        ("GET /healthz HTTP/1.1\nHost: localhost:\n\n", 200),
        ("GET /healthz HTTP/1.1\nHost: GW.example\n\n", 200),
        ("GET /healthz HTTP/1.1\nHost: [2001:DB8:0::1]:443\n\n", 200),
        ("GET /healthz HTTP/1.1\nHost: mcp.example.com\n\n", 200),
        ("GET http://evil.example/healthz HTTP/1.1\nHost: evil.example\n\n", 403),
        ("GET /healthz HTTP/1.1\nHost: localhost.evil.example\n\n", 403),
        ("GET /healthz HTTP/1.1\nHost: 127.0.0.1.evil.example\n\n", 403),
        ("GET /healthz HTTP/1.1\nHost: 2130706433\n\n", 403),
        ("GET /healthz HTTP/1.1\nHost: [2001:db8::2]\n\n", 403),
        ("GET /healthz HTTP/1.1\nHost:\n\n", 403),
        ("GET /healthz HTTP/1.0\n\n", 403),
    ] {
        for listener in [own, gateway.admin().address] {
            assert_eq!(raw(listener, head).await.status, status, "{head}");
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn the_admin_listener_is_not_reached_under_a_strangers_name() {
    let gateway = gateway().await;
    for path in ["/workers", "/workers/exited", "/metrics", "/healthz", "/readyz", "/nowhere"] {
        let reply = gateway.admin().send(Request::get(path).header("Host", "evil.example")).await;
        reply.assert_problem(403, "the Host header names a host that is not served here");
        for origin in ["http://evil.example", "null"] {
            let reply = gateway.admin().send(Request::get(path).header("Origin", origin)).await;
            reply.assert_problem(403, "the Origin header names a site that may not call this gateway");
        }
        let reply = gateway.admin().send(Request::get(path).header("Origin", "https://app.example.com")).await;
        assert_eq!(reply.header("access-control-allow-origin"), None, "no page reads what operators see");
    }
    assert_eq!(gateway.admin().send(Request::get("/workers")).await.status, 200);
    gateway.finish().await;
}

/// The status of a GET over HTTP/2, whose `:authority` is `authority`, and which has a `Host` header besides if one is
/// given.
async fn over_http_2(to: SocketAddr, authority: &str, host: Option<&str>, origin: Option<&str>) -> u16 {
    let name = authority.split(':').next().unwrap();
    let client = reqwest::Client::builder().http2_prior_knowledge().resolve(name, to).build().unwrap();
    let mut headers = HeaderMap::new();
    headers.extend(host.map(|host| (HOST, HeaderValue::from_str(host).unwrap())));
    headers.extend(origin.map(|origin| (ORIGIN, HeaderValue::from_str(origin).unwrap())));
    let request = client.get(format!("http://{authority}/healthz")).headers(headers);
    in_time("an answer", request.send()).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn hosts_and_origins_are_the_same_over_http_2() {
    let gateway = gateway().await;
    let port = gateway.address.port();
    let at = |name: &str| format!("{name}:{port}");
    for (authority, host, origin, status) in [
        (at("gw.example"), None, None, 200),
        (at("gw.example"), None, Some(format!("http://gw.example:{port}")), 200),
        (at("gw.example"), Some(at("GW.example.")), None, 200),
        (at("gw.example"), Some(at("evil.example")), None, 400),
        (at("evil.example"), Some(at("gw.example")), None, 400),
        (at("evil.example"), None, None, 403),
        (at("gw.example"), None, Some(format!("http://evil.example:{port}")), 403),
        (at("gw.example"), None, Some("null".to_owned()), 403),
    ] {
        for listener in [gateway.address, gateway.admin().address] {
            let authority = authority.replace(&port.to_string(), &listener.port().to_string());
            let local =
                |text: Option<&String>| text.map(|text| text.replace(&port.to_string(), &listener.port().to_string()));
            let (host, origin) = (local(host.as_ref()), local(origin.as_ref()));
            let got = over_http_2(listener, &authority, host.as_deref(), origin.as_deref());
            assert_eq!(got.await, status, "{authority} {host:?} {origin:?}");
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn an_origin_is_taken_by_what_it_means_and_not_by_its_letters() {
    let gateway = gateway().await;
    let own = gateway.address;
    let send = async |host: &str, origins: &[&str]| {
        let origins: String = origins.iter().map(|origin| format!("Origin: {origin}\n")).collect();
        raw(own, &format!("GET /healthz HTTP/1.1\nHost: {host}\n{origins}\n")).await
    };
    let public = "127.0.0.1";
    for (host, origin) in [
        // The public URL's, whatever the proxy says in Host.
        (public, "https://mcp.example.com"),
        (public, "https://mcp.example.com:443"),
        (public, "HTTPS://MCP.example.com"),
        (public, "https://app.example.com:443"),
        ("gw.example", "http://gw.example"),
        ("gw.example", "https://gw.example:443"),
        ("gw.example:443", "https://gw.example"),
        ("gw.example:8081", "http://GW.example:8081"),
        (public, "http://[::1]:3000"),
        (public, "capacitor://localhost"),
    ] {
        let reply = send(host, &[origin]).await;
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)), "{host} {origin}");
    }
    for (host, origins) in [
        (public, vec!["null"]),
        (public, vec![""]),
        (public, vec!["http://mcp.example.com"]),
        (public, vec!["https://mcp.example.com:80"]),
        (public, vec!["https://mcp.example.com.evil.example"]),
        (public, vec!["https://mcp.example.com@evil.example"]),
        (public, vec!["https://evil.example/https://mcp.example.com"]),
        (public, vec!["mcp.example.com"]),
        (public, vec!["https://mcp.example.com", "https://evil.example"]),
        ("gw.example", vec!["https://gw.example:80"]),
        ("gw.example", vec!["ftp://gw.example"]),
        (public, vec!["http://localhost.evil.example"]),
        (public, vec!["http://localhost@evil.example"]),
    ] {
        let reply = send(host, &origins).await;
        reply.assert_problem(403, "add it to http.allowed_origins");
        assert_eq!(reply.header("access-control-allow-origin"), None, "{origins:?}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_page_may_send_the_headers_of_every_revision_and_no_others() {
    let gateway = gateway().await;
    let ask = async |names: &str| {
        let preflight = Request::new("OPTIONS", "/mcp")
            .header("Origin", "https://app.example.com")
            .header("Access-Control-Request-Method", "POST")
            .header("Access-Control-Request-Headers", names);
        let reply = gateway.send(preflight).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        let allowed = reply.header("access-control-allow-headers").unwrap();
        allowed.split(", ").map(str::to_owned).collect::<Vec<_>>()
    };
    let always = ask("").await;
    for name in ["mcp-method", "mcp-name", "mcp-session-id", "mcp-protocol-version", "authorization", "content-type"] {
        assert!(always.iter().any(|allowed| allowed == name), "{name} is not in {always:?}");
    }
    let also = |names: &[String]| names.iter().filter(|name| !always.contains(name)).cloned().collect::<Vec<_>>();
    assert_eq!(also(&ask("mcp-name,Mcp-Param-Region, mcp-param-x_y").await), ["mcp-param-region", "mcp-param-x_y"]);
    let many = (0..100).map(|number| format!("mcp-param-{number}")).collect::<Vec<_>>().join(",");
    assert_eq!(also(&ask(&many).await).len(), 32);
    for names in
        ["cookie", "x-mcp-param-a", "mcp-param-", "mcp-param-a b", "*", &format!("mcp-param-{}", "x".repeat(200))]
    {
        assert_eq!(also(&ask(names).await), Vec::<String>::new(), "{names}");
    }
    gateway.finish().await;
}

#[tokio::test]
async fn the_metadata_name_the_host_that_was_asked_for_and_none_that_was_slipped_in() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        let _ = crate::harness::key(config, "acme", "me");
        crate::access::with_jwt(config);
    })
    .await;
    let ask = async |head: &str| raw(gateway.address, &format!("GET {head}\n\n")).await;
    let reply = ask("/.well-known/oauth-protected-resource/mcp/ HTTP/1.1\nHost: LOCALHOST.:81").await;
    assert_eq!(reply.json()["resource"], "http://localhost:81/mcp");
    let slipped = ask("http://evil.example/.well-known/oauth-protected-resource/mcp HTTP/1.1\nHost: localhost").await;
    assert_eq!(slipped.status, 400);
    let unauthorized = gateway.send(Request::post("/mcp/", json!({})).header("Host", "localhost")).await;
    let challenge = unauthorized.header("www-authenticate").unwrap();
    assert!(challenge.contains("http://localhost/.well-known/oauth-protected-resource/mcp\""), "{challenge}");
    gateway.finish().await;
}

//! Who may call: without a good credential nobody, with one what its tenant may use.

use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use sluice::config::{Config, Jwt, JwtKey};

use crate::harness::{Gateway, Reply, Request, eventually, fixture, hello, key, named};

const SECRET: &str = "a shared secret of the tests that is longer than 32 bytes";

fn initialize() -> Value {
    json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello("2025-11-25")})
}

/// Every endpoint that needs a credential.
fn everywhere() -> [Request; 6] {
    [
        Request::post("/mcp", initialize()),
        Request::get("/mcp"),
        Request::new("DELETE", "/mcp"),
        Request::get("/sse"),
        Request::post("/messages?sessionId=x", initialize()),
        Request::post("/servers/nowhere/mcp", initialize()),
    ]
}

/// Asserts the problem, and the challenge that goes with it; that no credential is repeated is seen to as well.
fn assert_refused(reply: &Reply, status: u16, says: &str, challenge: &str, credential: &str) {
    reply.assert_problem(status, says);
    let header = reply.header("www-authenticate").unwrap_or_else(|| panic!("{reply:?}"));
    assert!(header.starts_with("Bearer realm=\"sluice\"") && header.contains(challenge), "{header}");
    assert!(credential.is_empty() || !format!("{reply:?}").contains(credential), "{reply:?}");
}

pub(crate) fn with_jwt(config: &mut Config) {
    config.auth.jwt = Some(Jwt {
        leeway: Duration::ZERO,
        tenant_claim: "org.tenant".to_owned(),
        required_scopes: vec!["mcp".to_owned()],
        authorization_servers: vec!["https://id.example".to_owned()],
        ..Jwt::new(JwtKey::Secret(SECRET.into()), Algorithm::HS256, "https://id.example", "sluice")
    });
}

/// Good claims, but for those that are `changed`.
fn token(secret: &str, algorithm: Algorithm, changed: Value) -> String {
    let mut claims = json!({
        "iss": "https://id.example", "aud": "sluice", "sub": "ada", "org": {"tenant": "acme"}, "scope": "mcp other",
        "exp": get_current_timestamp() + 300,
    });
    claims.as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
    encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

#[tokio::test]
async fn without_a_good_credential_nothing_is_served() {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| good = key(config, "acme", "me")).await;
    let mut bystander = gateway.with_key(&good).bystander().await;
    let bad = good.replace("secret", "guess");
    for request in everywhere() {
        let reply = gateway.send(request.clone()).await;
        assert_refused(&reply, 401, "send \"Authorization: Bearer <key or token>\" or \"X-API-Key: <key>\"", "", "");
        assert!(!reply.header("www-authenticate").unwrap().contains("error"), "no credential, no error code");
        for header in [("Authorization", format!("Bearer {bad}")), ("X-API-Key", bad.clone())] {
            let reply = gateway.send(request.clone().header(header.0, &header.1)).await;
            assert_refused(&reply, 401, "the API key is unknown", "error=\"invalid_token\"", &bad);
        }
        let basic = gateway.send(request.clone().header("Authorization", "Basic bWU6cHc=")).await;
        assert_refused(&basic, 401, "use \"Authorization: Bearer <key or token>\"", "", "bWU6cHc=");
        let empty = gateway.send(request.clone().header("Authorization", "Bearer ")).await;
        assert_refused(&empty, 400, "the credential is empty", "error=\"invalid_request\"", "");
        let both = request.header("Authorization", &format!("Bearer {good}")).header("X-API-Key", &bad);
        let reply = gateway.send(both).await;
        assert_refused(&reply, 400, "hold different credentials: send one", "error=\"invalid_request\"", &bad);
    }
    for path in ["/healthz", "/readyz"] {
        assert_eq!(gateway.send(Request::get(path)).await.status, 200, "{path} needs none");
    }
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("sluice_auth_failures_total", "reason=\"missing\""), 6.0);
    assert_eq!(metrics.sum("sluice_auth_failures_total", "reason=\"unknown_key\""), 12.0);
    assert_eq!((metrics.sessions(), metrics.children()), (2.0, 2.0), "nothing was started");
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_key_is_taken_in_either_header() {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| good = key(config, "acme", "me")).await;
    for request in [
        Request::post("/mcp", initialize()).header("Authorization", &format!("Bearer {good}")),
        Request::post("/mcp", initialize()).header("authorization", &format!("bearer  {good}")),
        Request::post("/mcp", initialize()).header("X-API-Key", &good),
    ] {
        assert_eq!(gateway.send(request).await.status, 200);
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_credential_in_the_url_is_refused_though_it_be_good() {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| good = key(config, "acme", "me")).await;
    let caller = gateway.with_key(&good);
    for parameter in ["token", "access_token", "key", "API_KEY", "authorization"] {
        for request in [
            Request::post(&format!("/mcp?{parameter}={good}"), initialize()),
            Request::get(&format!("/sse?a=b&{parameter}={good}")),
        ] {
            let reply = caller.send(request).await;
            assert_refused(&reply, 400, "credentials are not taken from URLs", "error=\"invalid_request\"", &good);
        }
    }
    gateway.finish().await;
}

#[tokio::test]
async fn a_tenant_gets_its_servers_only() {
    let (mut acme, mut all, mut unknown) = (String::new(), String::new(), String::new());
    let servers = [named("one", fixture("echo")), named("two", fixture("echo"))];
    let gateway = Gateway::start_with(servers, |config| {
        acme = key(config, "acme", "me");
        all = key(config, "all", "me");
        unknown = key(config, "gone", "me");
        config.tenants.get_mut("acme").unwrap().servers = Some(vec!["one".parse().unwrap()]);
        config.tenants.remove("gone");
        config.default_server = Some("two".parse().unwrap());
    })
    .await;
    let status = async |key: &str, path: &str| {
        let reply = gateway.with_key(key).send(Request::post(path, initialize())).await;
        (reply.status, reply.text)
    };
    assert_eq!(status(&acme, "/servers/one/mcp").await.0, 200);
    assert_eq!(status(&all, "/servers/two/mcp").await.0, 200);
    let (code, not_mine) = status(&acme, "/servers/two/mcp").await;
    let (never_was, nowhere) = status(&acme, "/servers/three/mcp").await;
    assert_eq!((code, never_was), (404, 404));
    assert_eq!(not_mine.replace("two", "three"), nowhere, "nothing is learnt by guessing names");
    assert_eq!(status(&acme, "/mcp").await, (404, not_mine), "the default server is no exception");

    let refused = gateway.with_key(&unknown).send(Request::get("/sse")).await;
    refused.assert_problem(403, "the tenant \"gone\" of this credential is not configured on this gateway");
    gateway.finish().await;
}

#[tokio::test]
async fn a_token_holds_or_the_answer_says_why_not() {
    let mut api_key = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        api_key = key(config, "acme", "ada");
        with_jwt(config);
    })
    .await;
    let good = token(SECRET, Algorithm::HS256, json!({}));
    let mut client = gateway.with_key(&good).streamable().await;
    let mut bystander = gateway.with_key(&good).bystander().await;
    let now = get_current_timestamp();
    let other_secret = token(&SECRET.replace("shared", "forged"), Algorithm::HS256, json!({}));
    let unsigned = {
        use base64::Engine as _;
        let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        format!("{header}.{}.", good.split('.').nth(1).unwrap())
    };
    for (token, says) in [
        (token(SECRET, Algorithm::HS256, json!({"exp": now - 10})), "expired: get a new one"),
        (token(SECRET, Algorithm::HS256, json!({"nbf": now + 100})), "not valid yet"),
        (token(SECRET, Algorithm::HS256, json!({"iss": "https://other.example"})), "issuer (iss)"),
        (token(SECRET, Algorithm::HS256, json!({"aud": "others"})), "audience (aud)"),
        (token(SECRET, Algorithm::HS256, json!({"org": {}})), "claim \"org.tenant\""),
        (token(SECRET, Algorithm::HS256, json!({"sub": 7})), "claim \"sub\""),
        (token(SECRET, Algorithm::HS384, json!({})), "algorithm is not accepted"),
        (other_secret, "signature is wrong"),
        (unsigned, "algorithm is not accepted"),
        ("nonsense".to_owned(), "neither an API key of this gateway nor a JWT"),
    ] {
        let reply = gateway.with_key(&token).send(Request::get("/sse")).await;
        assert_refused(&reply, 401, says, "error=\"invalid_token\"", &token);
        let metadata =
            format!("resource_metadata=\"http://{}/.well-known/oauth-protected-resource/sse\"", gateway.address);
        assert!(reply.header("www-authenticate").unwrap().contains(&metadata), "{reply:?}");
    }
    let no_scope = token(SECRET, Algorithm::HS256, json!({"scope": "other"}));
    let reply = gateway.with_key(&no_scope).send(Request::get("/sse")).await;
    assert_refused(&reply, 403, "needed are mcp", "error=\"insufficient_scope\"", &no_scope);
    let unknown_tenant = token(SECRET, Algorithm::HS256, json!({"org": {"tenant": "gone"}}));
    gateway.with_key(&unknown_tenant).send(Request::get("/sse")).await.assert_problem(403, "the tenant \"gone\"");

    // The same tenant and subject by key are another principal: its sessions are not theirs.
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let request = client.with_headers(Request::post("/mcp", ping));
    gateway.with_key(&api_key).send(request).await.assert_error(404, -32600, "no such session");
    assert_eq!(client.call("echo", json!({"text": "with a token"})).await, "with a token");
    bystander.unharmed().await;
    gateway.finish().await;
}

#[tokio::test]
async fn a_client_without_a_token_is_led_to_one() {
    let gateway = Gateway::start_with([fixture("echo")], |config| {
        key(config, "acme", "ada");
        with_jwt(config);
    })
    .await;
    let reply = gateway.send(Request::post("/servers/fixture/mcp", initialize())).await;
    assert_refused(&reply, 401, "no credential", "scope=\"mcp\"", "");
    let challenge = reply.header("www-authenticate").unwrap();
    let url = challenge.split("resource_metadata=\"").nth(1).unwrap().trim_end_matches('"');
    let path = url.strip_prefix(&format!("http://{}", gateway.address)).unwrap();
    let document = gateway.send(Request::get(path)).await;
    assert_eq!(document.header("content-type"), Some("application/json"), "{document:?}");
    let document = document.json();
    assert_eq!(document["resource"], format!("http://{}/servers/fixture/mcp", gateway.address));
    assert_eq!(document["authorization_servers"], json!(["https://id.example"]));
    assert_eq!(document["scopes_supported"], json!(["mcp"]));
    gateway.finish().await;
}

#[tokio::test]
async fn a_childs_environment_holds_no_credential_of_the_client() {
    let mut good = String::new();
    let gateway = Gateway::start_with([fixture("echo")], |config| good = key(config, "acme", "me")).await;
    let environment = gateway.with_key(&good).streamable().await.call("env", json!({})).await;
    let environment: Value = serde_json::from_str(&environment).unwrap();
    let names: Vec<&String> = environment.as_object().unwrap().keys().collect();
    assert_eq!(names, ["FIXTURE_PIDS", "PATH", "SLUICE_TEST_ID", "TMPDIR"]);
    gateway.finish().await;
}

#[tokio::test]
async fn what_crashes_for_a_tenant_is_told_to_operators_only() {
    let mut server = fixture("exit 3");
    server.restart.max_crashes = 1;
    let mut acme = String::new();
    let gateway = Gateway::start_with([server], |config| acme = key(config, "acme", "me")).await;
    let caller = gateway.with_key(&acme);
    eventually("a crash loop", async || {
        caller.send(Request::post("/mcp", initialize())).await;
        let ready = gateway.admin().send(Request::get("/readyz")).await;
        ready.text.contains("crash loop: fixture for acme").then_some(())
    })
    .await;
    let ready = gateway.send(Request::get("/readyz")).await;
    assert_eq!((ready.status, ready.text.as_str()), (200, "ready\n"), "the listener that anybody reaches");
    gateway.finish().await;
}

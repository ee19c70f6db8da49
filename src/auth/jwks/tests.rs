//! Key sets that change, against files and a JWKS server on loopback that counts its requests.
#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests; their server has no streams to wait for")]

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::super::install_crypto;
use super::super::jwt::JwtVerifier;
use super::super::keys::Selection;
use super::*;
use crate::config::{Jwt, JwtKey};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");

fn key(name: &str) -> EncodingKey {
    install_crypto();
    EncodingKey::from_ec_pem(&std::fs::read(format!("{FIXTURES}/{name}.pem")).unwrap()).unwrap()
}

/// A JWK set of P-256 keys: (file, kid).
fn set(keys: &[(&str, &str)]) -> String {
    let jwk = |(name, kid): &(&str, &str)| {
        let mut jwk = Jwk::from_encoding_key(&key(name), Algorithm::ES256).unwrap();
        jwk.common.key_id = Some((*kid).to_owned());
        jwk
    };
    json!({ "keys": keys.iter().map(jwk).collect::<Vec<_>>() }).to_string()
}

fn has(kid: &str) -> impl Fn(&KeySet) -> bool {
    move |keys| matches!(keys.select(Some(kid), Algorithm::ES256), Selection::Keys(_))
}

/// A server that answers every request with the same, and counts them.
struct Stub {
    address: SocketAddr,
    requests: AtomicUsize,
    answer: Mutex<(u16, Option<String>, String)>,
    /// Requests wait here for a permit.
    gate: Semaphore,
    task: Mutex<Option<AbortHandle>>,
}

impl Stub {
    async fn start(body: String) -> Arc<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stub = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            requests: AtomicUsize::new(0),
            answer: Mutex::new((200, None, body)),
            gate: Semaphore::new(1000),
            task: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&stub));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        *stub.task.lock() = Some(task.abort_handle());
        stub
    }

    fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    fn says(&self, status: u16, location: Option<String>, body: String) {
        *self.answer.lock() = (status, location, body);
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn close_gate(&self) {
        self.gate.forget_permits(1000);
    }

    fn open_gate(&self) {
        self.gate.add_permits(1000);
    }
}

async fn answer(State(stub): State<Arc<Stub>>) -> Response {
    stub.requests.fetch_add(1, Ordering::SeqCst);
    let _permit = stub.gate.acquire().await.unwrap();
    let (status, location, body) = stub.answer.lock().clone();
    let mut response = body.into_response();
    *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
    if let Some(location) = location {
        response.headers_mut().insert(http::header::LOCATION, location.parse().unwrap());
    }
    response
}

/// Waits until something is so.
async fn until(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
}

async fn quiet(source: &JwksUrl) {
    until(|| !source.attempt.lock().running).await;
}

/// Lets the clock jump. Not while a fetch runs, whose time-outs would jump too.
async fn later(by: Duration) {
    tokio::time::pause();
    tokio::time::advance(by).await;
    tokio::time::resume();
}

#[tokio::test]
async fn many_callers_share_one_fetch() {
    let stub = Stub::start(set(&[("p256", "a")])).await;
    stub.close_gate();
    let source = JwksUrl::new(&stub.url()).unwrap();
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let source = Arc::clone(&source);
        callers.spawn(async move { source.get(has("a")).await.map(|keys| has("a")(&keys)) });
    }
    until(|| stub.requests() == 1 && source.ended.receiver_count() == 20).await;
    stub.open_gate();
    assert_eq!(callers.join_all().await, vec![Ok(true); 20]);
    assert_eq!(stub.requests(), 1);
    assert!(source.get(has("a")).await.is_ok());
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_take_the_fetch_along() {
    let stub = Stub::start(set(&[("p256", "a")])).await;
    stub.close_gate();
    let source = JwksUrl::new(&stub.url()).unwrap();
    let caller = tokio::spawn({
        let source = Arc::clone(&source);
        async move { source.get(has("a")).await.map(|_| ()) }
    });
    until(|| stub.requests() == 1).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    stub.open_gate();
    quiet(&source).await;
    assert!(source.get(has("a")).await.is_ok_and(|keys| has("a")(&keys)));
    assert_eq!(stub.requests(), 1);
}

#[tokio::test]
async fn an_unknown_kid_leads_to_one_fetch_in_an_interval() {
    let stub = Stub::start(set(&[("p256", "a")])).await;
    let source = JwksUrl::new(&stub.url()).unwrap();
    for _ in 0..10 {
        // Known keys come back without the one that was asked for: the caller refuses the token.
        assert!(source.get(has("made-up")).await.is_ok_and(|keys| !has("made-up")(&keys)));
    }
    assert_eq!(stub.requests(), 1);
    later(FETCH_INTERVAL).await;
    stub.close_gate();
    let mut callers = JoinSet::new();
    for n in 0..10 {
        let source = Arc::clone(&source);
        callers.spawn(async move { source.get(has(&format!("made-up-{n}"))).await.is_ok() });
    }
    until(|| stub.requests() == 2 && source.ended.receiver_count() == 10).await;
    stub.open_gate();
    assert_eq!(callers.join_all().await, [true; 10]);
    assert_eq!(stub.requests(), 2);
}

#[tokio::test]
async fn tokens_follow_a_rotation() {
    let stub = Stub::start(set(&[("p256", "a")])).await;
    let rules = Jwt::new(JwtKey::JwksUrl(stub.url()), Algorithm::ES256, "iss", "aud");
    let verifier = JwtVerifier::new(&rules).unwrap();
    let token = |name: &str, kid: &str| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid.to_owned());
        let exp = get_current_timestamp() + 300;
        let claims = json!({"iss": "iss", "aud": "aud", "sub": "s", "tenant": "t", "exp": exp});
        encode(&header, &claims, &key(name)).unwrap()
    };
    let reason = |result: Result<_, AuthError>| result.map(|_| ()).map_err(|error| error.reason());
    assert_eq!(reason(verifier.verify(&token("p256", "a")).await), Ok(()));
    assert_eq!(reason(verifier.verify(&token("p256-next", "b")).await), Err("unknown_kid"));
    assert_eq!(reason(verifier.verify(&token("p256-next", "a")).await), Err("signature"));
    stub.says(200, None, set(&[("p256-next", "b")]));
    later(FETCH_INTERVAL).await;
    assert_eq!(reason(verifier.verify(&token("p256-next", "b")).await), Ok(()));
    assert_eq!(reason(verifier.verify(&token("p256", "a")).await), Err("unknown_kid"));
    assert_eq!(stub.requests(), 2);
}

#[tokio::test]
async fn an_old_set_serves_while_a_new_one_is_fetched_and_for_a_while_if_it_cannot_be() {
    let stub = Stub::start(set(&[("p256", "a")])).await;
    let source = JwksUrl::new(&stub.url()).unwrap();
    assert!(source.get(has("a")).await.is_ok());
    stub.says(500, None, "broken".into());
    later(MAX_AGE).await;
    stub.close_gate();
    // It does not wait for the fetch that it starts.
    assert!(source.get(has("a")).await.is_ok());
    until(|| stub.requests() == 2).await;
    stub.open_gate();
    quiet(&source).await;
    assert!(source.get(has("a")).await.is_ok());
    // Too soon after a failure for another.
    assert_eq!(stub.requests(), 2);
    later(MAX_STALE).await;
    assert!(matches!(source.get(has("a")).await.unwrap_err(), AuthError::KeysUnavailable(_)));
    assert_eq!(stub.requests(), 3);
    stub.says(200, None, set(&[("p256", "a")]));
    later(RETRY_INTERVAL).await;
    assert!(source.get(has("a")).await.is_ok());
}

#[tokio::test]
async fn without_any_set_a_failure_is_tried_again_after_a_pause() {
    let stub = Stub::start("<html>not here</html>".into()).await;
    let source = JwksUrl::new(&stub.url()).unwrap();
    for _ in 0..5 {
        assert!(matches!(source.get(has("a")).await.unwrap_err(), AuthError::KeysUnavailable(_)));
    }
    assert_eq!(stub.requests(), 1);
    stub.says(200, None, set(&[("p256", "a")]));
    later(RETRY_INTERVAL).await;
    assert!(source.get(has("a")).await.is_ok());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Stub::start(set(&[("p256", "a")])).await;
    let stub = Stub::start(String::new()).await;
    stub.says(302, Some(elsewhere.url()), String::new());
    let source = JwksUrl::new(&stub.url()).unwrap();
    assert!(source.download().await.unwrap_err().contains("302"));
    assert!(matches!(source.get(has("a")).await.unwrap_err(), AuthError::KeysUnavailable(_)));
    assert_eq!((stub.requests(), elsewhere.requests()), (2, 0));
}

#[tokio::test]
async fn an_oversized_answer_is_refused() {
    let padded = |length: usize| {
        let set = set(&[("p256", "a")]);
        format!("{set}{}", " ".repeat(length - set.len()))
    };
    let stub = Stub::start(padded(MAX_BYTES + 1)).await;
    let source = JwksUrl::new(&stub.url()).unwrap();
    assert!(source.download().await.unwrap_err().contains("larger than"));
    stub.says(200, None, padded(MAX_BYTES));
    assert!(has("a")(&source.download().await.unwrap()));
}

#[tokio::test]
async fn an_absent_server_is_described_without_the_url() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let source = JwksUrl::new(&format!("http://{address}/jwks?code=confidential")).unwrap();
    let problem = source.download().await.unwrap_err();
    assert!(!problem.contains("confidential"), "{problem}");
    assert!(problem.to_lowercase().contains("refused"), "{problem}");
}

#[test]
fn urls_that_could_be_tampered_with_are_refused() {
    for url in
        ["https://id.example/jwks", "https://localhost/", "http://127.0.0.1:1/", "http://127.9.9.9/", "http://[::1]:1/"]
    {
        assert!(JwksUrl::new(url).is_ok(), "{url}");
    }
    for url in [
        "http://id.example/jwks",
        "http://127.0.0.1.id.example/",
        "http://localhost@id.example/",
        "http://localhost.id.example/",
        // A name has as many addresses as somebody gives it, and a program of somebody else may listen on one of them.
        "http://localhost/",
        "http://localhost:1/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://ip6-localhost/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://[::]/",
        "ftp://localhost/",
        "file:///etc/jwks",
        "https://user:pass@id.example/",
        "jwks.json",
        "",
    ] {
        assert!(JwksUrl::new(url).is_err(), "{url}");
    }
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set(&[("p256", "a")])).unwrap();
    let file = JwksFile::open(&path).unwrap();
    std::fs::write(&path, set(&[("p256-next", "next")])).unwrap();
    assert!(has("a")(&file.get().await.unwrap()));
    later(FILE_INTERVAL).await;
    assert!(has("next")(&file.get().await.unwrap()));
    for broken in ["{\"keys\": ", ""] {
        std::fs::write(&path, broken).unwrap();
        later(FILE_INTERVAL).await;
        assert!(has("next")(&file.get().await.unwrap()));
    }
    std::fs::remove_file(&path).unwrap();
    later(FILE_INTERVAL).await;
    assert!(has("next")(&file.get().await.unwrap()));
    std::fs::write(&path, set(&[("p256", "again")])).unwrap();
    later(FILE_INTERVAL).await;
    assert!(has("again")(&file.get().await.unwrap()));
}

#[test]
fn a_file_without_a_usable_key_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    for (content, says) in
        [(Some("{\"keys\": []}"), "no usable key"), (Some("x"), "not a JWK set"), (None, "jwks.json: ")]
    {
        let _ = std::fs::remove_file(&path);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = JwksFile::open(&path).err().unwrap().to_string();
        assert!(error.contains(says) && error.contains("jwks.json"), "{error}");
    }
    std::fs::write(&path, " ".repeat(MAX_BYTES + 1)).unwrap();
    assert!(JwksFile::open(&path).err().unwrap().to_string().contains("larger than"));
}

#[tokio::test]
async fn a_withdrawn_key_is_noticed_though_size_and_times_of_the_file_are_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set(&[("p256", "a")])).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let file = JwksFile::open(&path).unwrap();
    std::fs::write(&path, set(&[("p256-next", "b")])).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(before.modified().unwrap()).unwrap();
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((after.len(), after.modified().unwrap()), (before.len(), before.modified().unwrap()));
    later(FILE_INTERVAL).await;
    let keys = file.get().await.unwrap();
    assert!(has("b")(&keys) && !has("a")(&keys));
}

#[tokio::test]
async fn the_keys_of_a_file_that_is_gone_are_believed_for_an_hour() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set(&[("p256", "a")])).unwrap();
    let file = JwksFile::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    later(FILE_INTERVAL).await;
    assert!(has("a")(&file.get().await.unwrap()));
    later(MAX_STALE).await;
    assert!(matches!(file.get().await.err(), Some(AuthError::KeysUnavailable(_))));
    std::fs::write(&path, set(&[("p256", "a")])).unwrap();
    later(FILE_INTERVAL).await;
    assert!(has("a")(&file.get().await.unwrap()));
}

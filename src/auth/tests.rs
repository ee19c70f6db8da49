//! Requests and what becomes of their credentials.
#![expect(clippy::unwrap_used, reason = "tests")]

use http::{HeaderValue, StatusCode};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use secrecy::ExposeSecret as _;
use serde_json::json;

use super::*;
use crate::config::{ApiKey, Jwt, JwtKey, TenantId};

const SECRET: &str = "a shared secret of more than 32 bytes";
const CHOSEN: &str = "secret123";

fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

fn jwt() -> Jwt {
    Jwt::new(JwtKey::Secret(SECRET.into()), Algorithm::HS256, "iss", "aud")
}

fn token() -> String {
    install_crypto();
    let exp = get_current_timestamp() + 300;
    let claims = json!({"iss": "iss", "aud": "aud", "sub": "alice", "tenant": "acme", "exp": exp});
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// An authenticator with a generated key (returned), a chosen key and JWTs.
fn full() -> (Authenticator, String) {
    let new = NewKey::generate(tenant("acme"), Some("ci".into()), vec![]).unwrap();
    let keys = vec![new.entry, ApiKey::from_plain(CHOSEN, tenant("own"), "me".into(), vec![])];
    let authenticator = Authenticator::new(&Auth { anonymous: None, keys, jwt: Some(jwt()) }).unwrap();
    (authenticator, new.wire.expose_secret().to_owned())
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

async fn ask(authenticator: &Authenticator, pairs: &[(&'static str, &str)]) -> Result<String, &'static str> {
    let principal = authenticator.authenticate(&headers(pairs), Some("sessionId=x&access=1")).await;
    let shown = |issuer: &Issuer| match issuer {
        Issuer::Key => "key".to_owned(),
        Issuer::Anonymous => "anonymous".to_owned(),
        Issuer::Token(issuer) => issuer.clone(),
    };
    let shown = |p: &Principal| format!("{}/{}/{}", p.tenant(), shown(p.issuer()), p.subject());
    principal.map(|proven| shown(&proven.principal)).map_err(|error| error.reason())
}

#[tokio::test]
async fn keys_and_tokens_are_taken_from_their_headers() {
    let (authenticator, wire) = full();
    let bearer = |credential: &str| format!("Bearer {credential}");
    let ok = |text: &str| Ok(text.to_owned());
    assert_eq!(ask(&authenticator, &[("authorization", &bearer(&wire))]).await, ok("acme/key/ci"));
    assert_eq!(ask(&authenticator, &[("authorization", &format!("bearer   {wire} "))]).await, ok("acme/key/ci"));
    assert_eq!(ask(&authenticator, &[("x-api-key", &wire)]).await, ok("acme/key/ci"));
    assert_eq!(ask(&authenticator, &[("authorization", &bearer(CHOSEN))]).await, ok("own/key/me"));
    assert_eq!(ask(&authenticator, &[("x-api-key", CHOSEN)]).await, ok("own/key/me"));
    assert_eq!(ask(&authenticator, &[("authorization", &bearer(&token()))]).await, ok("acme/iss/alice"));
    // A JWT is a bearer token and nothing else.
    assert_eq!(ask(&authenticator, &[("x-api-key", &token())]).await, Err("unknown_key"));
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let (authenticator, wire) = full();
    for (pairs, reason) in [
        (vec![], "missing"),
        (vec![("authorization", format!("Bearer {wire}x"))], "unknown_key"),
        (vec![("authorization", "Bearer slk_0000000000_AAAA".to_owned())], "unknown_key"),
        (vec![("authorization", "Bearer secret124".to_owned())], "not_a_token"),
        (vec![("authorization", "Bearer a.b.c".to_owned())], "not_a_token"),
        (vec![("authorization", "Bearer".to_owned())], "malformed"),
        (vec![("authorization", "Bearer ".to_owned())], "malformed"),
        (vec![("x-api-key", String::new())], "malformed"),
        (vec![("authorization", "Basic dXNlcjpwYXNz".to_owned())], "scheme"),
        (vec![("authorization", format!("Bearer{wire}"))], "scheme"),
        (vec![("authorization", wire.clone())], "scheme"),
        (vec![("authorization", format!("Bearer {wire}")), ("authorization", format!("Bearer {wire}"))], "malformed"),
        (vec![("x-api-key", wire.clone()), ("x-api-key", CHOSEN.to_owned())], "malformed"),
        (vec![("authorization", format!("Bearer {wire}")), ("x-api-key", CHOSEN.to_owned())], "malformed"),
    ] {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(ask(&authenticator, &pairs).await, Err(reason), "{pairs:?}");
    }
    let both = [("authorization", format!("Bearer {wire}")), ("x-api-key", wire.clone())];
    let both: Vec<_> = both.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(ask(&authenticator, &both).await, Ok("acme/key/ci".to_owned()));
}

#[tokio::test]
async fn a_credential_in_the_query_is_refused_even_beside_a_good_one() {
    let (authenticator, wire) = full();
    let good = headers(&[("x-api-key", &wire)]);
    for query in ["access_token=abc", "sessionId=1&TOKEN=abc", "key", "api_key=", "a=1&Authorization=x"] {
        let error = authenticator.authenticate(&good, Some(query)).await.unwrap_err();
        assert_eq!((error.status(), error.reason()), (StatusCode::BAD_REQUEST, "in_the_query"), "{query}");
        assert!(error.to_string().contains("Authorization header") && !error.to_string().contains("abc"), "{error}");
    }
    for query in [None, Some(""), Some("sessionId=token"), Some("monkey=1"), Some("?x")] {
        assert!(authenticator.authenticate(&good, query).await.is_ok(), "{query:?}");
    }
}

#[tokio::test]
async fn with_nothing_configured_nobody_gets_in() {
    let authenticator = Authenticator::new(&Auth { anonymous: None, keys: vec![], jwt: None }).unwrap();
    assert_eq!(ask(&authenticator, &[]).await, Err("missing"));
    assert_eq!(ask(&authenticator, &[("authorization", "Bearer x")]).await, Err("unknown_key"));
    assert_eq!(ask(&authenticator, &[("x-api-key", "x")]).await, Err("unknown_key"));
}

#[tokio::test]
async fn anonymous_callers_are_let_in_where_configured() {
    let anonymous = Some(tenant("open"));
    let open = Authenticator::new(&Auth { anonymous: anonymous.clone(), keys: vec![], jwt: None }).unwrap();
    let nobody = Ok("open/anonymous/anonymous".to_owned());
    assert_eq!(ask(&open, &[]).await, nobody);
    assert_eq!(ask(&open, &[("authorization", "Basic x")]).await, nobody);
    assert!(open.authenticate(&HeaderMap::new(), Some("token=x")).await.is_err());

    // Beside keys, a credential that is sent must hold.
    let keys = vec![ApiKey::from_plain(CHOSEN, tenant("own"), "me".into(), vec![])];
    let mixed = Authenticator::new(&Auth { anonymous, keys, jwt: None }).unwrap();
    assert_eq!(ask(&mixed, &[]).await, nobody);
    assert_eq!(ask(&mixed, &[("x-api-key", CHOSEN)]).await, Ok("own/key/me".to_owned()));
    assert_eq!(ask(&mixed, &[("x-api-key", "other")]).await, Err("unknown_key"));
    assert_eq!(ask(&mixed, &[("authorization", "Bearer other")]).await, Err("unknown_key"));
}

#[tokio::test]
async fn nothing_secret_is_shown() {
    let (authenticator, wire) = full();
    let mut said = format!("{authenticator:?}");
    let wrong = format!("Bearer {wire}x");
    for pairs in [vec![("authorization", wrong.as_str())], vec![("authorization", &wrong), ("x-api-key", CHOSEN)]] {
        let error = authenticator.authenticate(&headers(&pairs), None).await.unwrap_err();
        said += &format!("{error} {error:?} {:?}", error.www_authenticate(None, None));
    }
    for secret in [SECRET, CHOSEN, wire.splitn(3, '_').nth(2).unwrap()] {
        assert!(!said.contains(secret), "{said}");
    }
}

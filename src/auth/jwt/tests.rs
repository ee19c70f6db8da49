//! Every algorithm round, and every way in which a token can be wrong.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header as JwtHeader, encode};
use serde_json::json;

use super::*;
use crate::auth::install_crypto;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");
const SECRET: &str = "a shared secret for tests that is long enough for HS512, which wants 64 bytes";

fn rules(key: JwtKey, algorithm: Algorithm) -> Jwt {
    install_crypto();
    Jwt {
        audiences: vec!["sluice".into(), "other".into()],
        leeway: Duration::ZERO,
        ..Jwt::new(key, algorithm, "https://id.example", "sluice")
    }
}

fn secret_rules() -> Jwt {
    rules(JwtKey::Secret(SECRET.into()), Algorithm::HS256)
}

fn claims() -> Value {
    json!({
        "iss": "https://id.example",
        "aud": "sluice",
        "sub": "alice",
        "tenant": "acme",
        "scope": "mcp:read mcp:call",
        "exp": get_current_timestamp() + 300,
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(format!("{FIXTURES}/{name}")).unwrap()
}

fn hs256(claims: &Value) -> String {
    encode(&JwtHeader::new(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET.as_bytes())).unwrap()
}

/// A token of any header, signed with HS256 and the right secret.
fn with_header(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap();
    format!("{message}.{signature}")
}

async fn verify(rules: &Jwt, token: &str) -> Result<Principal, AuthError> {
    JwtVerifier::new(rules).unwrap().verify(token).await.map(|proven| proven.principal)
}

/// The reason why a token is refused, after checking that neither it nor the secret is in what is said about it.
async fn refusal(rules: &Jwt, token: &str) -> &'static str {
    let error = verify(rules, token).await.unwrap_err();
    let said = format!("{error} {error:?} {:?}", error.www_authenticate(None, None));
    assert!(!said.contains(SECRET), "{said}");
    assert!(token.split('.').filter(|part| part.len() > 8).all(|part| !said.contains(part)), "{said}");
    error.reason()
}

#[tokio::test]
async fn every_algorithm_makes_the_round() {
    let private = |name: &str| read(&format!("{name}.pem"));
    let rsa = EncodingKey::from_rsa_pem(&private("rsa")).unwrap();
    let cases = [
        (Algorithm::HS256, "", EncodingKey::from_secret(SECRET.as_bytes())),
        (Algorithm::HS384, "", EncodingKey::from_secret(SECRET.as_bytes())),
        (Algorithm::HS512, "", EncodingKey::from_secret(SECRET.as_bytes())),
        (Algorithm::RS256, "rsa", rsa.clone()),
        (Algorithm::RS384, "rsa", rsa.clone()),
        (Algorithm::RS512, "rsa", rsa.clone()),
        (Algorithm::PS256, "rsa", rsa.clone()),
        (Algorithm::PS384, "rsa", rsa.clone()),
        (Algorithm::PS512, "rsa", rsa),
        (Algorithm::ES256, "p256", EncodingKey::from_ec_pem(&private("p256")).unwrap()),
        (Algorithm::ES384, "p384", EncodingKey::from_ec_pem(&private("p384")).unwrap()),
        (Algorithm::EdDSA, "ed25519", EncodingKey::from_ed_pem(&private("ed25519")).unwrap()),
    ];
    for (algorithm, name, key) in cases {
        let source = match name {
            "" => JwtKey::Secret(SECRET.into()),
            name => JwtKey::Pem(format!("{FIXTURES}/{name}.pub.pem").into()),
        };
        let rules = rules(source, algorithm);
        let mut header = JwtHeader::new(algorithm);
        header.kid = Some("whatever".into());
        let token = encode(&header, &claims(), &key).unwrap();
        let principal = verify(&rules, &token).await.unwrap();
        assert_eq!((principal.tenant().as_str(), principal.subject()), ("acme", "alice"), "{algorithm:?}");
        assert_eq!(principal.issuer(), &Issuer::Token("https://id.example".into()));
        assert_eq!(principal.scopes(), ["mcp:read", "mcp:call"]);
        // One changed character in the middle of the signature.
        let at = token.rfind('.').unwrap() + 10;
        let other = if token.as_bytes()[at] == b'A' { "B" } else { "A" };
        let forged = format!("{}{other}{}", &token[..at], &token[at + 1..]);
        assert_eq!(refusal(&rules, &forged).await, "signature", "{algorithm:?}");
    }
}

#[tokio::test]
async fn an_unsigned_token_is_refused() {
    let rules = secret_rules();
    let good = hs256(&claims());
    let payload = good.split('.').nth(1).unwrap();
    for alg in ["none", "None", "NONE", ""] {
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": alg, "typ": "JWT" }).to_string());
        assert_eq!(refusal(&rules, &format!("{header}.{payload}.")).await, "algorithm");
    }
    let unsigned = &good[..=good.rfind('.').unwrap()];
    assert_eq!(refusal(&rules, unsigned).await, "signature");
}

#[tokio::test]
async fn a_public_key_is_no_shared_secret() {
    let public = read("rsa.pub.pem");
    let rules = rules(JwtKey::Pem(format!("{FIXTURES}/rsa.pub.pem").into()), Algorithm::RS256);
    let header = JwtHeader::new(Algorithm::HS256);
    let token = encode(&header, &claims(), &EncodingKey::from_secret(&public)).unwrap();
    assert_eq!(refusal(&rules, &token).await, "algorithm");
    let mixed = Jwt { algorithms: vec![Algorithm::RS256, Algorithm::HS256], ..rules };
    assert!(JwtVerifier::new(&mixed).unwrap_err().to_string().contains("HS256 does not fit"));
    let published = Jwt { key: JwtKey::JwksUrl("https://id.example/jwks".into()), ..mixed };
    assert!(JwtVerifier::new(&published).unwrap_err().to_string().contains("HS256 needs a shared secret"));
}

#[tokio::test]
async fn only_listed_algorithms_are_accepted() {
    let header = JwtHeader::new(Algorithm::HS512);
    let token = encode(&header, &claims(), &EncodingKey::from_secret(SECRET.as_bytes())).unwrap();
    assert_eq!(refusal(&secret_rules(), &token).await, "algorithm");
}

#[tokio::test]
async fn registered_claims_are_checked() {
    let rules = secret_rules();
    let now = get_current_timestamp();
    for (claims, reason) in [
        (with("exp", json!(now - 10)), "expired"),
        (with("exp", json!(0)), "expired"),
        (with("exp", json!("2999-01-01")), "claim"),
        (with("exp", json!(-5)), "claim"),
        (without("exp"), "claim"),
        (with("nbf", json!(now + 100)), "not_yet_valid"),
        (with("nbf", json!("soon")), "claim"),
        (with("iss", json!("https://id.example/")), "issuer"),
        (with("iss", json!(["https://id.example", "evil"])), "claim"),
        (without("iss"), "claim"),
        (with("aud", json!("sluice2")), "audience"),
        (with("aud", json!(["a", "b"])), "audience"),
        (with("aud", json!([])), "audience"),
        (without("aud"), "claim"),
    ] {
        assert_eq!(refusal(&rules, &hs256(&claims)).await, reason, "{claims}");
    }
    for claims in [
        with("nbf", json!(now)),
        with("aud", json!(["x", "other"])),
        with("exp", json!(now as f64 + 100.5)),
        with("unknown", json!({"deep": [1]})),
    ] {
        assert!(verify(&rules, &hs256(&claims)).await.is_ok(), "{claims}");
    }
    let said = verify(&rules, &hs256(&with("exp", json!(1)))).await.unwrap_err().to_string();
    assert!(said.contains("expired"), "{said}");
}

#[tokio::test]
async fn leeway_forgives_a_small_difference_of_clocks() {
    let rules = Jwt { leeway: Duration::from_secs(60), ..secret_rules() };
    let now = get_current_timestamp();
    assert!(verify(&rules, &hs256(&with("exp", json!(now - 20)))).await.is_ok());
    assert!(verify(&rules, &hs256(&with("nbf", json!(now + 20)))).await.is_ok());
    assert_eq!(refusal(&rules, &hs256(&with("exp", json!(now - 120)))).await, "expired");
    assert_eq!(refusal(&rules, &hs256(&with("nbf", json!(now + 120)))).await, "not_yet_valid");
}

#[tokio::test]
async fn tenant_subject_and_scopes_must_be_usable() {
    let rules = secret_rules();
    for claims in [
        without("tenant"),
        with("tenant", json!(7)),
        with("tenant", json!("../etc")),
        with("tenant", json!("")),
        with("tenant", json!(["acme"])),
        without("sub"),
        with("sub", json!("")),
        with("sub", json!("a\nb")),
        with("sub", json!("s".repeat(300))),
        with("scope", json!(3)),
        with("scope", json!(["a", 3])),
    ] {
        assert_eq!(refusal(&rules, &hs256(&claims)).await, "claim", "{claims}");
    }
    let error = verify(&rules, &hs256(&without("tenant"))).await.unwrap_err();
    assert_eq!(error, Invalid::Claim("tenant".into()).into());
    assert_eq!(verify(&rules, &hs256(&without("scope"))).await.unwrap().scopes(), [""; 0]);
}

#[tokio::test]
async fn claims_are_found_by_path_and_by_name() {
    let rules = Jwt {
        tenant_claim: "https://sluice.example/tenant".into(),
        subject_claim: "user.login.name".into(),
        scope_claim: "scp".into(),
        ..secret_rules()
    };
    let mut claims = claims();
    claims["https://sluice.example/tenant"] = json!("blue");
    claims["user"] = json!({"login": {"name": "bob"}});
    claims["scp"] = json!(["a", "b"]);
    let principal = verify(&rules, &hs256(&claims)).await.unwrap();
    assert_eq!((principal.tenant().as_str(), principal.subject()), ("blue", "bob"));
    assert_eq!(principal.scopes(), ["a", "b"]);
    claims["user"] = json!({"login": "bob"});
    assert_eq!(refusal(&rules, &hs256(&claims)).await, "claim");
}

#[tokio::test]
async fn required_scopes_must_all_be_there() {
    let enough = Jwt { required_scopes: vec!["mcp:call".into()], ..secret_rules() };
    assert!(verify(&enough, &hs256(&claims())).await.is_ok());
    let more = Jwt { required_scopes: vec!["mcp:call".into(), "mcp:admin".into()], ..secret_rules() };
    let verifier = JwtVerifier::new(&more).unwrap();
    let token = hs256(&claims());
    for _ in 0..2 {
        let error = verifier.verify(&token).await.unwrap_err();
        assert_eq!(error, AuthError::InsufficientScope { required: more.required_scopes.clone() });
    }
}

#[tokio::test]
async fn a_tampered_payload_breaks_the_signature() {
    let good = hs256(&claims());
    let parts: Vec<_> = good.split('.').collect();
    let other = URL_SAFE_NO_PAD.encode(with("tenant", json!("victim")).to_string());
    assert_eq!(refusal(&secret_rules(), &format!("{}.{other}.{}", parts[0], parts[2])).await, "signature");
}

#[tokio::test]
async fn what_is_no_token_is_said_to_be_none() {
    let rules = secret_rules();
    let good = hs256(&claims());
    for token in
        ["", ".", "..", "...", "abc", "a.b", "!!.!!.!!", "bm8.bm8.bm8", &format!("{good}."), &format!(".{good}")]
    {
        assert_eq!(refusal(&rules, token).await, "not_a_token", "{token}");
    }
    let no_object = with_header(&json!({"alg": "HS256"}), &json!("just text"));
    assert_eq!(refusal(&rules, &no_object).await, "not_a_token");
}

#[tokio::test]
async fn an_oversized_token_is_refused_before_it_is_looked_at() {
    let rules = secret_rules();
    assert_eq!(refusal(&rules, &hs256(&with("pad", json!("x".repeat(MAX_TOKEN))))).await, "too_long");
    assert!(verify(&rules, &hs256(&with("pad", json!("x".repeat(8000))))).await.is_ok());
}

#[tokio::test]
async fn a_token_for_another_purpose_is_refused() {
    let rules = secret_rules();
    for header in [
        json!({"alg": "HS256", "typ": "logout+jwt"}),
        json!({"alg": "HS256", "typ": "application/dpop+jwt"}),
        json!({"alg": "HS256", "crit": ["b64"], "b64": true}),
    ] {
        assert_eq!(refusal(&rules, &with_header(&header, &claims())).await, "kind", "{header}");
    }
    for header in [
        json!({"alg": "HS256"}),
        json!({"alg": "HS256", "typ": "at+jwt"}),
        json!({"alg": "HS256", "typ": "application/AT+JWT"}),
    ] {
        assert!(verify(&rules, &with_header(&header, &claims())).await.is_ok(), "{header}");
    }
}

#[tokio::test]
async fn a_token_does_not_bring_its_own_key() {
    let rules = rules(JwtKey::Pem(format!("{FIXTURES}/p256.pub.pem").into()), Algorithm::ES256);
    let attacker = EncodingKey::from_ec_pem(&read("p256-next.pem")).unwrap();
    let mut header = JwtHeader::new(Algorithm::ES256);
    header.jwk = Some(Jwk::from_encoding_key(&attacker, Algorithm::ES256).unwrap());
    header.jku = Some("http://127.0.0.1:1/jwks".into());
    header.x5u = Some("http://127.0.0.1:1/cert".into());
    assert_eq!(refusal(&rules, &encode(&header, &claims(), &attacker).unwrap()).await, "signature");
}

#[tokio::test]
async fn a_remembered_token_gives_the_same_principal_and_vouches_for_no_other() {
    let verifier = JwtVerifier::new(&secret_rules()).unwrap();
    let token = hs256(&claims());
    let first = verifier.verify(&token).await.unwrap().principal;
    assert!(verifier.verdicts.get(&Verdicts::hash(&token), get_current_timestamp()).is_some());
    assert_eq!(verifier.verify(&token).await.unwrap().principal, first);
    let forged = format!("{}AAAA", &token[..token.len() - 4]);
    assert_eq!(verifier.verify(&forged).await.unwrap_err().reason(), "signature");
    let bob = verifier.verify(&hs256(&with("sub", json!("bob")))).await.unwrap().principal;
    assert_ne!(bob, first);
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let verifier = JwtVerifier::new(&secret_rules()).unwrap();
    assert!(verifier.verify(&hs256(&claims())).await.is_ok());
    let shown = format!("{verifier:?} {:?}", secret_rules());
    assert!(!shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn a_claim_that_can_be_read_in_two_ways_is_refused_unless_both_are_the_same() {
    let rules = |claim: &str| Jwt { tenant_claim: claim.into(), ..secret_rules() };
    let tenant = async |claim: &str, more: Value| {
        let mut claims = without("tenant");
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        verify(&rules(claim), &hs256(&claims)).await.map(|who| who.tenant().to_string()).map_err(|error| error.reason())
    };
    let ok = |name: &str| Ok(name.to_owned());
    assert_eq!(tenant("org.name", json!({"org": {"name": "acme"}})).await, ok("acme"));
    assert_eq!(tenant("org.name", json!({"org.name": "acme"})).await, ok("acme"));
    assert_eq!(tenant("org.name", json!({"org.name": "acme", "org": {"name": "acme"}})).await, ok("acme"));
    assert_eq!(tenant("a.b.c", json!({"a.b": {"c": "acme"}})).await, ok("acme"));
    assert_eq!(tenant("a.b.c", json!({"a": {"b.c": "acme"}})).await, ok("acme"));
    for more in [
        json!({"org.name": "umbrella", "org": {"name": "acme"}}),
        json!({"org.name": null, "org": {"name": "acme"}}),
        json!({"org.name": ["acme"], "org": {"name": "acme"}}),
    ] {
        assert_eq!(tenant("org.name", more).await, Err("claim"));
    }
    let deep = json!({"a": {"b": {"c": "acme"}, "b.c": "umbrella"}});
    assert_eq!(tenant("a.b.c", deep).await, Err("claim"));
    assert_eq!(tenant("a.b.c", json!({"a.b": {"c": "umbrella"}, "a": {"b": {"c": "acme"}}})).await, Err("claim"));
}

#[tokio::test]
async fn no_token_is_the_holder_of_a_key_or_nobody_whatever_it_names_as_its_issuer() {
    for (name, issuer) in [("key", Issuer::Key), ("anonymous", Issuer::Anonymous)] {
        let rules = Jwt { issuers: vec![name.into()], ..secret_rules() };
        let claims = json!({"iss": name, "aud": "sluice", "sub": "alice", "tenant": "acme",
            "exp": get_current_timestamp() + 300});
        let principal = verify(&rules, &hs256(&claims)).await.unwrap();
        let other = Principal::new("acme".parse().unwrap(), issuer, "alice", vec![]);
        assert_ne!(principal, other, "{name}");
    }
}

#[tokio::test]
async fn a_token_holds_until_its_expiry_and_the_leeway() {
    let rules = Jwt { leeway: Duration::from_secs(30), ..secret_rules() };
    let verifier = JwtVerifier::new(&rules).unwrap();
    let in_seconds = |exp: Value| async { hs256(&with("exp", exp)) };
    let now = get_current_timestamp();
    for (exp, least) in [(json!(now + 60), 88), (json!(now as f64 + 60.5), 89), (json!(now - 10), 18)] {
        let token = in_seconds(exp).await;
        // The second time from memory.
        for _ in 0..2 {
            let left = verifier.verify(&token).await.unwrap().ends().unwrap() - tokio::time::Instant::now();
            assert!((least..=least + 3).contains(&left.as_secs()), "{left:?}");
        }
    }
    let token = in_seconds(json!(1e18)).await;
    assert!(verifier.verify(&token).await.unwrap().ends().is_none_or(|end| end > tokio::time::Instant::now()));
}

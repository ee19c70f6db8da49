//! Reads `[auth.jwt]` by the rules of RFC 8725: algorithms, issuers and audiences must be listed, and the key must fit
//! the algorithms.

use std::path::PathBuf;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use secrecy::ExposeSecret as _;

use super::authority::is_loopback_address;
use super::defaults::{JWT_LEEWAY, SCOPE_CLAIM, SUBJECT_CLAIM, TENANT_CLAIM};
use super::files::read_text;
use super::http::{is_protected, web_url};
use super::model::{Jwt, JwtKey};
use super::reference::{read_file, read_secret, unreadable};
use super::section::Section;

const ALGORITHMS: &str = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
/// The largest JWK set, in bytes.
const MAX_JWKS: usize = 1 << 20;
const SOURCES: [&str; 5] = ["secret", "secret_file", "pem_file", "jwks_file", "jwks_url"];

/// Reads `[auth.jwt]`. `None` if the table is absent, or has no usable key.
pub(super) fn read(s: &mut Section<'_>) -> Option<Jwt> {
    if !s.is_present() {
        return None;
    }
    let algorithms = algorithms(s);
    let key = key(s, &algorithms);
    let issuers = expected(s, "issuers", "a token of any other issuer would be accepted as long as the key fits");
    let audiences = expected(s, "audiences", "a token that was not made for this gateway must be refused");
    let leeway = s.duration("leeway", JWT_LEEWAY, Duration::ZERO..=Duration::from_secs(600));
    let mut claim = |key: &str, default: &str| s.nonempty(key).unwrap_or_else(|| default.to_owned());
    let (tenant_claim, subject_claim) = (claim("tenant_claim", TENANT_CLAIM), claim("subject_claim", SUBJECT_CLAIM));
    let scope_claim = claim("scope_claim", SCOPE_CLAIM);
    let required_scopes = s.strings("required_scopes");
    let authorization_servers = authorization_servers(s);
    Some(Jwt {
        algorithms,
        key: key?,
        issuers,
        audiences,
        leeway,
        tenant_claim,
        subject_claim,
        scope_claim,
        required_scopes,
        authorization_servers,
    })
}

fn algorithms(section: &mut Section<'_>) -> Vec<Algorithm> {
    let path = section.path.key("algorithms");
    let texts = section.strings("algorithms");
    if texts.is_empty() {
        section.problem("algorithms", format!("no algorithm is allowed; list those of your tokens: {ALGORITHMS}"));
    }
    let refuse = |index, text: &String| {
        section.reading.problem(&path.index(index), format!("{text:?} is not supported; use {ALGORITHMS}"));
    };
    let algorithm = |(index, text): (usize, &String)| text.parse().map_err(|_| refuse(index, text)).ok();
    texts.iter().enumerate().filter_map(algorithm).collect()
}

/// A list that must not be empty, and whose items must not be blank. `why` is a part of the problem.
fn expected(section: &mut Section<'_>, key: &str, why: &str) -> Vec<String> {
    let texts = section.strings(key);
    if texts.is_empty() || texts.iter().any(|text| text.trim().is_empty()) {
        section.problem(key, format!("empty; {why}: list what your tokens carry"));
    }
    texts
}

fn authorization_servers(section: &mut Section<'_>) -> Vec<String> {
    let path = section.path.key("authorization_servers");
    let urls = section.strings("authorization_servers");
    for (index, url) in urls.iter().enumerate() {
        if !web_url(url).is_ok_and(|uri| is_protected(&uri)) {
            section.reading.problem(&path.index(index), format!("{url:?} is not an https URL (http is for loopback)"));
        }
    }
    urls
}

/// The key, checked against the algorithms. Exactly one source of a key must be given.
fn key(section: &mut Section<'_>, algorithms: &[Algorithm]) -> Option<JwtKey> {
    let given: Vec<(&str, String)> =
        SOURCES.into_iter().filter_map(|source| Some((source, section.nonempty(source)?))).collect();
    let (source, text) = match given.as_slice() {
        [] if SOURCES.iter().any(|source| section.has(source)) => return None,
        [] => {
            let text = format!("there is no key to verify tokens with; give one of {}", SOURCES.join(", "));
            section.reading.problem(&section.path, text);
            return None;
        }
        [(source, text)] => (*source, text),
        [(first, _), others @ ..] => {
            let text = format!("there is a key already ({first}); keep exactly one of {}", SOURCES.join(", "));
            others.iter().for_each(|(other, _)| section.problem(other, text.clone()));
            return None;
        }
    };
    let folder = section.reading.source.folder();
    let file = folder.join(text);
    if source.ends_with("_file") {
        let path = section.path.key(source);
        match source {
            "secret_file" => section.reading.keeps_secret(&path, file.clone()),
            // A JWK set may hold secrets. One of a public key only has nothing to hide, and nobody is to exchange it.
            _ => section.reading.owns(&path, file.clone(), source != "pem_file"),
        }
    }
    let key = match source {
        "secret" => section.reading.resolve(&section.path.key(source), text).map(|resolved| {
            if resolved.is_plain {
                section.warning(source, "a secret in the file; better refer to it: \"env:NAME\", or secret_file");
            }
            JwtKey::Secret(resolved.secret)
        }),
        "secret_file" => read_secret(&file).map(JwtKey::Secret),
        "pem_file" => check_pem(file, algorithms).map(JwtKey::Pem),
        "jwks_file" => check_jwks(file).map(JwtKey::JwksFile),
        _ => check_url(text).map(|url| {
            if !url.starts_with("https:") {
                let text =
                    "plain http: whatever program listens there decides who is let in; better use https, or jwks_file";
                section.warning(source, text);
            }
            JwtKey::JwksUrl(url)
        }),
    };
    let key = key.map_err(|text| section.problem(source, text)).ok()?;
    check_algorithms(section, source, &key, algorithms);
    Some(key)
}

/// The shortest shared secret for an algorithm, in bytes: the length of its hash (RFC 7518 section 3.2). 0 for
/// algorithms without a shared secret.
pub fn min_secret(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS256 => 32,
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 0,
    }
}

/// Checks that a shared secret is used with HMAC only and is long enough, and that a public key is not used with HMAC:
/// the key would be the secret, and anyone could sign (RFC 8725 section 2.1).
fn check_algorithms(section: &Section<'_>, source: &str, key: &JwtKey, algorithms: &[Algorithm]) {
    let is_secret = matches!(key, JwtKey::Secret(_));
    for algorithm in algorithms.iter().filter(|algorithm| (min_secret(**algorithm) > 0) != is_secret) {
        let text = match is_secret {
            true => {
                format!("{algorithm:?} needs a public key, but {source} is a shared secret; use HS256, HS384 or HS512")
            }
            false => format!(
                "{algorithm:?} with the public key of {source} would let anyone sign; remove it, or use secret_file"
            ),
        };
        section.problem("algorithms", text);
    }
    let least = algorithms.iter().copied().map(min_secret).max().unwrap_or_default();
    if matches!(key, JwtKey::Secret(secret) if secret.expose_secret().len() < least) {
        section.problem(
            source,
            format!("a secret of less than {least} bytes can be guessed; use at least {least} random ones"),
        );
    }
}

/// Checks that the file holds a public key in PEM for each algorithm.
fn check_pem(path: PathBuf, algorithms: &[Algorithm]) -> Result<PathBuf, String> {
    let text = read_file(&path)?;
    if text.contains("PRIVATE KEY-----") {
        return Err("the file holds a private key; the gateway needs the public one only".to_owned());
    }
    for algorithm in algorithms {
        let (fits, family) = match algorithm.family() {
            AlgorithmFamily::Rsa => (DecodingKey::from_rsa_pem(text.as_bytes()).is_ok(), "RSA"),
            AlgorithmFamily::Ec => (DecodingKey::from_ec_pem(text.as_bytes()).is_ok(), "EC"),
            AlgorithmFamily::Ed => (DecodingKey::from_ed_pem(text.as_bytes()).is_ok(), "Ed25519"),
            // Refused elsewhere, whatever the file holds.
            AlgorithmFamily::Hmac => (true, "HMAC"),
        };
        if !fits {
            return Err(format!(
                "the file holds no {family} public key in PEM, which {algorithm:?} needs; correct either"
            ));
        }
    }
    Ok(path)
}

/// Checks that the file is a JWK set with at least one key.
fn check_jwks(path: PathBuf) -> Result<PathBuf, String> {
    let text = read_text(&path, MAX_JWKS).map_err(|error| unreadable(&error))?;
    match serde_json::from_str::<JwkSet>(&text) {
        Ok(set) if set.keys.is_empty() => Err("the file holds no key; add one".to_owned()),
        Ok(_) => Ok(path),
        Err(error) => {
            let line = error.line();
            Err(format!("the file is not a JWK set (see its line {line}); write {{\"keys\": […]}} (RFC 7517)"))
        }
    }
}

/// Checks that the URL is https, or http with a loopback address.
fn check_url(text: &str) -> Result<String, String> {
    let uri = web_url(text).map_err(|why| format!("{why}; write the https URL of a JWK set"))?;
    let is_https = uri.scheme_str() == Some("https");
    if is_https || is_loopback_address(uri.host().unwrap_or_default()) {
        return Ok(text.to_owned());
    }
    let why = "http would let anyone on the way replace the keys; use https";
    Err(format!("{why} (http is for a loopback address, such as 127.0.0.1; a name may lead elsewhere)"))
}

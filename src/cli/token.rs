//! `sluice token`: signs a JWT for development and tests. Only the token goes to stdout.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Map, Value, json};

use super::terminal;
use crate::auth::install_crypto;
use crate::config::{TenantId, min_secret, parse_duration, read_bounded, shown_value};

/// The largest key file, in bytes.
const MAX_KEY_FILE: usize = 64 << 10;

/// Arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The tenant that the token acts for (claim `tenant`)
    #[arg(long)]
    tenant: TenantId,
    /// Who holds it (claim `sub`)
    #[arg(long, default_value = "developer")]
    subject: String,
    /// What it may do (claim `scope`); may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// The file with the shared secret, 32 bytes or more for HS256; a line break at its end does not count
    #[arg(long, value_name = "FILE", required_unless_present = "pem_file", conflicts_with = "pem_file")]
    secret_file: Option<PathBuf>,
    /// The file with a private key in PEM (PKCS #8), for RS*, PS*, ES* and EdDSA
    #[arg(long, value_name = "FILE", requires = "alg")]
    pem_file: Option<PathBuf>,
    /// How long it is valid: a number and s, m or h
    #[arg(long, default_value = "1h", value_parser = duration)]
    ttl: Duration,
    /// The claim `iss`
    #[arg(long, default_value = "sluice-dev")]
    issuer: String,
    /// The claim `aud`
    #[arg(long, default_value = "sluice")]
    audience: String,
    /// The algorithm, such as HS256, RS256, PS256, ES256 or EdDSA [default: HS256 with --secret-file]
    #[arg(long, value_parser = algorithm)]
    alg: Option<Algorithm>,
    /// The id of the key, for the token's header
    #[arg(long)]
    kid: Option<String>,
    /// Another claim, or another value for one; JSON where it is JSON, else a string; may be repeated
    #[arg(long = "claim", value_name = "NAME=VALUE", value_parser = claim)]
    claims: Vec<(String, Value)>,
}

/// Runs the command.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    terminal::line(&sign(&args)?);
    Ok(ExitCode::SUCCESS)
}

fn sign(args: &Args) -> anyhow::Result<String> {
    install_crypto();
    let mut header = Header::new(args.alg.unwrap_or(Algorithm::HS256));
    header.kid.clone_from(&args.kid);
    let key = match (&args.secret_file, &args.pem_file) {
        (Some(path), _) => shared_secret(path, header.alg)?,
        (None, Some(path)) => private_key(path, header.alg)?,
        (None, None) => bail!("give --secret-file or --pem-file"),
    };
    encode(&header, &claims(args), &key).with_context(|| format!("the key does not sign {:?}", header.alg))
}

/// The claims of the token. `--claim` replaces others of the same name.
fn claims(args: &Args) -> Map<String, Value> {
    let now = get_current_timestamp();
    let mut claims = Map::new();
    claims.insert("iss".into(), json!(args.issuer));
    claims.insert("aud".into(), json!(args.audience));
    claims.insert("sub".into(), json!(args.subject));
    claims.insert("tenant".into(), json!(args.tenant.as_str()));
    if !args.scopes.is_empty() {
        claims.insert("scope".into(), json!(args.scopes.join(" ")));
    }
    claims.insert("iat".into(), json!(now));
    claims.insert("exp".into(), json!(now.saturating_add(args.ttl.as_secs())));
    claims.extend(args.claims.iter().cloned());
    claims
}

/// The content of the file that an option names. Errors contain the path unless it may be a secret, given in place of
/// a path.
fn content(option: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    read_bounded(path, MAX_KEY_FILE)
        .with_context(|| format!("{option} {}: the file cannot be read", shown_value(&path.to_string_lossy())))
}

/// The secret in a file, without one line break at its end. An error if the algorithm is not HMAC, or the secret is
/// shorter than its hash.
fn shared_secret(path: &Path, algorithm: Algorithm) -> anyhow::Result<EncodingKey> {
    ensure!(min_secret(algorithm) > 0, "{algorithm:?} is not signed with a shared secret: use --pem-file");
    let bytes = content("--secret-file", path)?;
    // One line break at the end does not count, as for `secret_file` in the configuration.
    let secret = bytes.strip_suffix(b"\n").map_or(&*bytes, |line| line.strip_suffix(b"\r").unwrap_or(line));
    let least = min_secret(algorithm);
    ensure!(
        secret.len() >= least,
        "the secret has {} bytes and needs at least {least}: make one with `openssl rand -base64 {least}`",
        secret.len()
    );
    Ok(EncodingKey::from_secret(secret))
}

fn private_key(path: &Path, algorithm: Algorithm) -> anyhow::Result<EncodingKey> {
    let pem = content("--pem-file", path)?;
    match algorithm.family() {
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(&pem),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(&pem),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(&pem),
        AlgorithmFamily::Hmac => bail!("{algorithm:?} is signed with a shared secret: use --secret-file"),
    }
    .with_context(|| format!("the file holds no private key in PEM (PKCS #8) for {algorithm:?}"))
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    text.parse().map_err(|_| "use HS256/384/512, RS256/384/512, PS256/384/512, ES256/384 or EdDSA".to_owned())
}

/// A duration of one second or more.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).ok().filter(|duration| duration.as_secs() > 0);
    duration.ok_or_else(|| "use a number and a unit, such as 90s, 30m or 1h".to_owned())
}

/// Splits `NAME=VALUE`. A value that is not JSON becomes a string.
fn claim(text: &str) -> Result<(String, Value), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| json!(value))))
        }
        _ => Err("use NAME=VALUE, such as team=core or groups='[\"a\",\"b\"]'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};

    use super::*;
    use crate::auth::{AuthError, Authenticator, Principal};
    use crate::config::{Auth, Jwt, JwtKey};

    const SECRET: &str = "an HS256 secret of more than 32 bytes";
    const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/keys");

    fn signed(arguments: &[&str]) -> anyhow::Result<String> {
        sign(&crate::cli::parse(arguments)?)
    }

    async fn principal(token: &str, key: JwtKey, algorithm: Algorithm) -> Result<Principal, AuthError> {
        let jwt = Jwt::new(key, algorithm, "sluice-dev", "sluice");
        let authenticator = Authenticator::new(&Auth { anonymous: None, keys: vec![], jwt: Some(jwt) }).unwrap();
        let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        authenticator
            .authenticate(&HeaderMap::from_iter([(AUTHORIZATION, value)]), None)
            .await
            .map(|proven| proven.principal)
    }

    fn secret_file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[tokio::test]
    async fn the_gateway_takes_a_token_signed_with_the_defaults() {
        let file = secret_file(&format!("{SECRET}\r\n"));
        let path = file.path().to_str().unwrap();
        let arguments = ["--tenant", "acme", "--scope", "a", "--scope", "b", "--secret-file", path];
        let token = signed(&arguments).unwrap();
        let principal = principal(&token, JwtKey::Secret(SECRET.into()), Algorithm::HS256).await.unwrap();
        assert_eq!((principal.tenant().as_str(), principal.subject()), ("acme", "developer"));
        assert_eq!(principal.scopes(), ["a", "b"]);
    }

    #[tokio::test]
    async fn private_keys_sign_for_their_public_halves() {
        for (name, alg) in [("rsa", "PS256"), ("p384", "ES384"), ("ed25519", "EdDSA")] {
            let path = format!("{FIXTURES}/{name}.pem");
            let token = signed(&["--tenant", "acme", "--pem-file", &path, "--alg", alg]).unwrap();
            let key = JwtKey::Pem(format!("{FIXTURES}/{name}.pub.pem").into());
            assert!(principal(&token, key, alg.parse().unwrap()).await.is_ok(), "{alg}");
        }
    }

    #[tokio::test]
    async fn claims_can_be_overridden() {
        let file = secret_file(SECRET);
        let path = file.path().to_str().unwrap();
        let token = signed(&["--tenant", "acme", "--secret-file", path, "--claim", "exp=1"]).unwrap();
        let error = principal(&token, JwtKey::Secret(SECRET.into()), Algorithm::HS256).await.unwrap_err();
        assert_eq!(error.reason(), "expired");
        assert_eq!(claim("a=b=c").unwrap(), ("a".into(), json!("b=c")));
        assert_eq!(claim("a=[1]").unwrap(), ("a".into(), json!([1])));
        assert!(claim("a").is_err());
    }

    #[test]
    fn wrong_arguments_are_explained() {
        let file = secret_file("short\n");
        let path = file.path().to_str().unwrap();
        let error = |arguments: &[&str]| format!("{:#}", signed(arguments).unwrap_err());
        assert!(error(&["--tenant", "a", "--secret-file", path]).contains("has 5 bytes and needs at least 32"));
        assert!(
            error(&["--tenant", "a", "--secret-file", "/absent"]).contains("--secret-file /absent: the file cannot")
        );
        let secret = error(&["--tenant", "a", "--secret-file", "slk_a_secret-by-mistake"]);
        assert!(secret.contains("cannot be read") && !secret.contains("by-mistake"), "{secret}");
        assert!(error(&["--tenant", "a", "--secret-file", path, "--alg", "RS256"]).contains("--pem-file"));
        assert!(error(&["--tenant", "a", "--pem-file", path, "--alg", "ES256"]).contains("holds no private key"));
        assert!(error(&["--tenant", "a", "--pem-file", path]).contains("--alg"));
        assert!(error(&["--tenant", "a"]).contains("--secret-file"));
        assert!(error(&["--tenant", "a b", "--secret-file", path]).contains("is not a name"));
    }

    #[test]
    fn durations_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("12h"), Ok(Duration::from_secs(12 * 3600)));
        for wrong in ["", "h", "10", "0s", "1w", "-1s", "1.5h", "99999999999999999999s", "9999999999999999h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}

//! The options of all client commands for the access to a gateway: the URL, the credential, other headers.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};

use super::unshown::Unshown;
use crate::config::{Environment, KEY, KEY_FILE, KEY_OPTION, key_in, key_setting};

/// The options that `tools`, `call` and `connect` share.
#[derive(Debug, clap::Args)]
pub struct Access {
    /// API key or JWT, sent as "Authorization: Bearer KEY", in place of the variables SLUICE_KEY_FILE and SLUICE_KEY
    #[arg(long, value_parser = Unshown(secret), conflicts_with = "key_file")]
    key: Option<SecretString>,
    /// A file with the API key or JWT, in place of the variables SLUICE_KEY_FILE and SLUICE_KEY
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A header to send with every request (can be given more than once)
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = Unshown(header))]
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Headers that the transport sets. They cannot be given on the command line.
const OWN: [&str; 10] = [
    "accept",
    "connection",
    "content-length",
    "content-type",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A header `NAME: VALUE`. `Debug` does not show the value, which may be a secret.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'NAME: VALUE'")?;
    let name = HeaderName::from_str(name.trim()).map_err(|_| "that is not a header name".to_owned())?;
    if OWN.contains(&name.as_str()) {
        return Err(format!("{name} is set by the transport"));
    }
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| "the value has characters that no header takes")?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// A key without white space around it. An error if a header cannot carry it.
fn secret(text: &str) -> Result<SecretString, String> {
    match HeaderValue::from_str(text.trim()) {
        Ok(_) => Ok(text.trim().into()),
        Err(_) => Err("the key has characters that no header takes".to_owned()),
    }
}

impl Access {
    /// The headers of every request. `--header` takes precedence over the key, also for `Authorization`.
    ///
    /// # Errors
    /// The file with the key cannot be read or has no key, the key cannot be sent, or both variables give a key.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        self.headers_in(&Environment::of_process())
    }

    /// Like [`headers`](Self::headers), with the variables of `environment`.
    fn headers_in(&self, environment: &Environment) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::new();
        let key = self.key_of(environment)?;
        let key = key.as_ref().map(ExposeSecret::expose_secret);
        if let Some(mut value) = key.and_then(|key| HeaderValue::from_str(&format!("Bearer {key}")).ok()) {
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        Ok(headers)
    }

    /// The key of `--key`, of `--key-file`, or of a variable in this order. Without `--key` and `--key-file`, a given
    /// header `Authorization` means no key.
    fn key_of(&self, environment: &Environment) -> Result<Option<SecretString>, String> {
        let of_file = |file: &Path, name: &str| {
            let key = key_in(file).and_then(|key| secret(key.expose_secret()));
            key.map(Some).map_err(|why| format!("{name}: {why}"))
        };
        match (&self.key, &self.key_file) {
            (Some(key), _) => return Ok(Some(key.clone()).filter(|key| !key.expose_secret().is_empty())),
            (None, Some(file)) => return of_file(file, KEY_OPTION),
            (None, None) if self.headers.iter().any(|(name, _)| *name == AUTHORIZATION) => return Ok(None),
            (None, None) => {}
        }
        let two = |why| format!("{KEY_FILE}: {why}, or give --key-file or --key");
        match key_setting(environment).map_err(two)? {
            None => Ok(None),
            Some((KEY, key)) => secret(key).map(Some).map_err(|why| format!("{KEY}: {why}")),
            Some((name, file)) => of_file(Path::new(file), name),
        }
    }
}

/// Parses the URL of a gateway.
///
/// # Errors
/// The URL is not http or https, or contains a user or a password, which process lists and logs would show.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let example = "give the whole URL, such as http://127.0.0.1:8081/mcp";
    let url = Url::parse(text).map_err(|error| format!("{error}; {example}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("it does not start with http:// or https://; {example}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL is no place for a password; use --key or --header".to_owned());
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn given(key: Option<&str>, file: Option<&str>) -> Access {
        Access { key: key.map(|key| secret(key).unwrap()), key_file: file.map(PathBuf::from), headers: vec![] }
    }

    #[test]
    fn urls_are_whole_and_without_passwords() {
        assert!(parse_url("http://127.0.0.1:8081/mcp").is_ok());
        for text in ["127.0.0.1:8081/mcp", "localhost:8081", "ftp://h/x", "http://u:p@h/", "/mcp", ""] {
            assert!(parse_url(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_header_wins_over_the_key_and_neither_is_shown() {
        let mut access = given(Some(" k1 "), None);
        assert_eq!(access.headers().unwrap().get(AUTHORIZATION).unwrap(), "Bearer k1");
        access.headers.push(header("authorization: Basic zzz").unwrap());
        assert_eq!(access.headers().unwrap().get(AUTHORIZATION).unwrap(), "Basic zzz");
        let shown = format!("{access:?} {:?}", access.headers());
        assert!(!shown.contains("k1") && !shown.contains("zzz"), "{shown}");
        assert!(given(Some(""), None).headers().unwrap().is_empty());
        let said = given(None, Some("slk_a_secret-by-mistake")).headers().unwrap_err();
        assert!(said.contains("cannot be read") && !said.contains("by-mistake"), "{said}");
    }

    #[test]
    fn errors_about_what_may_be_a_secret_do_not_repeat_it() {
        #[derive(Debug, clap::Args)]
        struct Args {
            #[arg(value_parser = Unshown(parse_url))]
            _url: Url,
            #[command(flatten)]
            _access: Access,
        }
        for (line, says) in [
            (["http://h/", "--header=X-API-Key hunter2"], "'--header <NAME: VALUE>': write it as 'NAME: VALUE'"),
            (["http://h/", "--header=hunter2 x: y"], "not a header name"),
            (["http://h/", "--header=x: hunter2\nb"], "characters that no header takes"),
            (["http://h/", "--key=hunter2\nb"], "'--key <KEY>': the key has characters that no header takes"),
            (["http://u:hunter2@h/", "--key=k"], "no place for a password"),
        ] {
            let error = crate::cli::parse::<Args>(&line).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(says) && !said.contains("hunter2"), "{said}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn an_option_wins_over_the_variables_and_two_variables_are_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "k-file\n").unwrap();
        let path = file.path().to_str().unwrap();
        let [key, in_file] = [(KEY, "k-variable"), (KEY_FILE, path)];
        let sent = |access: &Access, variables: &[(&str, &str)]| {
            let headers = access.headers_in(&variables.iter().copied().collect())?;
            Ok::<_, String>(headers.get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned()))
        };
        let is = |key: &str| Ok(Some(format!("Bearer {key}")));
        for variables in [&[][..], &[key], &[(KEY_FILE, "/absent")], &[key, in_file]] {
            assert_eq!(sent(&given(None, Some(path)), variables), is("k-file"));
            assert_eq!(sent(&given(Some("k-option"), None), variables), is("k-option"));
        }
        assert_eq!(sent(&given(None, None), &[key]), is("k-variable"));
        assert_eq!(sent(&given(None, None), &[in_file]), is("k-file"));
        assert_eq!(sent(&given(None, None), &[(KEY, ""), in_file]), is("k-file"));
        let said = sent(&given(None, None), &[key, in_file]).unwrap_err();
        assert!(said.contains("SLUICE_KEY is set too; unset one of them") && !said.contains("k-variable"), "{said}");
    }

    #[test]
    fn wrong_headers_are_refused() {
        for text in ["x", "a b: c", "Mcp-Session-Id: 1", "x: a\nb"] {
            assert!(header(text).is_err(), "{text}");
        }
    }
}

//! Reads `[http]` and `[admin]`: the two listeners. Converts host names and origins to the canonical form of
//! `authority`, with which the headers of requests are compared.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::authority::{Host, InvalidAuthority, Origin, is_loopback_address};
use super::defaults::ADMIN;
use super::model::Http;
use super::proxies;
use super::section::Section;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);
const KIB: usize = 1 << 10;
const GIB: usize = 1 << 30;
const MILLION: usize = 1_000_000;
const NO_HOST: &str =
    "not a host name; write it without scheme, port and path, such as \"mcp.example.com\", or \"*\" for any";
const NO_ORIGIN: &str = "not an origin; write scheme and host, and a port that is not the usual one, such as \
                         \"https://app.example.com\", or \"*\" for any";

/// Reads `[http]`.
pub(super) fn read(s: &mut Section<'_>) -> Http {
    let default = Http::default();
    Http {
        listen: s.socket_addr("listen", default.listen),
        public_url: public_url(s),
        allowed_hosts: words(s, "allowed_hosts", host, NO_HOST),
        allowed_origins: words(s, "allowed_origins", origin, NO_ORIGIN),
        max_connections: s.count("max_connections", default.max_connections, 1..=MILLION),
        max_connections_per_address: s.optional_count("max_connections_per_address", 1..=MILLION),
        proxies: Arc::new(proxies::read(s)),
        header_timeout: s.duration("header_timeout", default.header_timeout, MS..=HOUR),
        body_timeout: s.duration("body_timeout", default.body_timeout, MS..=HOUR),
        max_body: s.bytes("max_body", default.max_body, KIB..=GIB),
        // A tool call with its arguments is some eight levels deep.
        max_depth: s.count("max_depth", default.max_depth, 8..=10_000),
        max_batch: s.count("max_batch", default.max_batch, 1..=10_000),
        keep_alive: s.duration("keep_alive", default.keep_alive, MS * 10..=HOUR),
        slow_client_timeout: s.duration("slow_client_timeout", default.slow_client_timeout, MS * 10..=HOUR),
        stream_messages: s.count("stream_messages", default.stream_messages, 1..=MILLION),
        stream_bytes: s.bytes("stream_bytes", default.stream_bytes, KIB..=GIB),
    }
}

/// Reads the address in `[admin]`; [`ADMIN`] if none is given. `None` for `listen = "off"`.
pub(super) fn read_admin(section: &mut Section<'_>) -> Option<SocketAddr> {
    match section.string("listen") {
        None => Some(ADMIN),
        Some(text) if text == "off" => None,
        Some(text) => text.parse().map(Some).unwrap_or_else(|_| {
            section.problem(
                "listen",
                format!("{text:?} is neither \"off\" nor an IP address and a port, such as \"{ADMIN}\""),
            );
            Some(ADMIN)
        }),
    }
}

/// Whether two listeners cannot both have their addresses.
pub(super) fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
}

/// The public URL without its trailing slash.
fn public_url(section: &mut Section<'_>) -> Option<String> {
    let text = section.nonempty("public_url")?;
    let wrong = match (web_url(&text), Origin::of_url(&text)) {
        (Err(why), _) => format!("{why}; write the URL that clients use, such as \"https://mcp.example.com\""),
        (Ok(_), _) if text.contains('?') => "has a query; write it without".to_owned(),
        (Ok(_), _) if text.matches("://").count() > 1 => "has a scheme twice; write it once".to_owned(),
        (Ok(_), Err(why)) => format!("{why}; write the host as clients send it"),
        (Ok(uri), Ok(_)) => {
            let path = uri.path().trim_end_matches('/');
            if path.ends_with("/mcp") || path.ends_with("/sse") || path.contains("/servers/") {
                let text =
                    "is the base, to which /mcp, /sse and /servers/NAME/… are added; leave out what is there of these";
                section.warning("public_url", text);
            }
            return Some(text.trim_end_matches('/').to_owned());
        }
    };
    section.problem("public_url", wrong);
    None
}

/// Parses an http or https URL, which must have a host and neither a user nor a fragment. The error is the fault in
/// words.
pub(super) fn web_url(text: &str) -> Result<http::Uri, &'static str> {
    let uri: http::Uri = text.parse().map_err(|_| "not a URL")?;
    match uri.scheme_str() {
        Some("http" | "https") => {}
        _ => return Err("not an http or https URL"),
    }
    let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    match uri.host() {
        None | Some("") => Err("a URL without a host"),
        _ if authority.contains('@') => Err("a URL with a user or a password in it"),
        _ if text.contains('#') => Err("a URL with a fragment (#…)"),
        _ => Ok(uri),
    }
}

/// Whether nobody on the network can change what comes from a URL: https, `localhost`, or a loopback address.
pub(super) fn is_protected(uri: &http::Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    uri.scheme_str() == Some("https") || host.eq_ignore_ascii_case("localhost") || is_loopback_address(host)
}

/// A list of strings, each `*` or in the canonical form that `parse` returns. `wrong` is the text of the problem with
/// others.
fn words(
    section: &mut Section<'_>,
    key: &str,
    parse: fn(&str) -> Result<String, InvalidAuthority>,
    wrong: &str,
) -> Vec<String> {
    let path = section.path.key(key);
    let texts = section.strings(key);
    let word = |(index, text): (usize, &String)| match text.as_str() {
        "*" => Some(text.clone()),
        _ => parse(text).map_err(|_| section.reading.problem(&path.index(index), format!("{text:?} is {wrong}"))).ok(),
    };
    texts.iter().enumerate().filter_map(word).collect()
}

fn host(text: &str) -> Result<String, InvalidAuthority> {
    // An address stands in brackets in the header, but hardly anybody writes it so here.
    match text.parse::<Ipv6Addr>() {
        Ok(address) => Ok(Host::Address(address.to_canonical()).to_string()),
        Err(_) => Host::parse(text).map(|host| host.to_string()),
    }
}

fn origin(text: &str) -> Result<String, InvalidAuthority> {
    Origin::parse(text).map(|origin| origin.to_string())
}

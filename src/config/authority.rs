//! Hosts, authorities (host and port) and origins in a canonical form, in which all of them are compared: names in
//! lower case and without a final dot, addresses as numbers, no port that the scheme implies.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// A host: a name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host<'a> {
    /// A DNS name in lower case, without a final dot.
    Name(Cow<'a, str>),
    /// An address. An IPv4-mapped IPv6 address is stored as the IPv4 address.
    Address(IpAddr),
}

/// A host, and a port if one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port. `None` if none is given, or if [`Authority::under`] has left the port out because the scheme implies
    /// it.
    pub port: Option<u16>,
}

/// The origin of a web page (RFC 6454): scheme, host, and the port unless the scheme implies it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    scheme: String,
    authority: Authority<'static>,
}

/// The reason why a text is not a host, authority or origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// The host is empty.
    #[error("there is no host")]
    Empty,
    /// The text has a user (`user@host`).
    #[error("there is a user in it")]
    User,
    /// The host is neither a DNS name nor an address.
    #[error("the host is neither a DNS name nor an address (IPv6 in brackets)")]
    Host,
    /// The port is not a number up to 65535.
    #[error("the port is no number up to 65535")]
    Port,
    /// The text has no `scheme://` before the host.
    #[error("there is no scheme, such as https://")]
    Scheme,
}

/// The longest DNS name, in bytes (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;

impl<'a> Host<'a> {
    /// Parses a host. An IPv6 address must be in brackets. A name may have underscores.
    ///
    /// # Errors
    /// The text is empty, or neither a name nor an address.
    pub fn parse(text: &'a str) -> Result<Self, InvalidAuthority> {
        if let Some(address) = text.strip_prefix('[') {
            let address = address.strip_suffix(']').ok_or(InvalidAuthority::Host)?;
            let address: Ipv6Addr = address.parse().map_err(|_| InvalidAuthority::Host)?;
            return Ok(Self::Address(address.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() {
            return Err(InvalidAuthority::Empty);
        }
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && let Ok(address) = name.parse()
        {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let is_label = |label: &[u8]| {
            !label.is_empty() && label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        if name.len() > LONGEST_NAME || !name.as_bytes().split(|byte| *byte == b'.').all(is_label) {
            return Err(InvalidAuthority::Host);
        }
        Ok(Self::Name(lower(name)))
    }

    /// Whether the host is `localhost` or a loopback address.
    pub fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name == "localhost",
            Self::Address(address) => address.is_loopback(),
        }
    }

    /// Whether the host is an address, which no name server can redirect.
    pub fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }

    /// The same host, without borrowed text.
    pub fn into_owned(self) -> Host<'static> {
        match self {
            Self::Name(name) => Host::Name(Cow::Owned(name.into_owned())),
            Self::Address(address) => Host::Address(address),
        }
    }
}

impl<'a> Authority<'a> {
    /// Parses `host` or `host:port`.
    ///
    /// # Errors
    /// The text has another form, such as `user@host`.
    pub fn parse(text: &'a str) -> Result<Self, InvalidAuthority> {
        // Hosts are short: a search byte by byte is the quickest.
        let find = |wanted: u8| text.bytes().position(|byte| byte == wanted);
        if find(b'@').is_some() {
            return Err(InvalidAuthority::User);
        }
        // The colons within brackets belong to the address.
        let after_host = find(b']').map_or(0, |bracket| bracket + 1);
        let colon = text.bytes().skip(after_host).position(|byte| byte == b':');
        let (host, port) = match colon {
            Some(at) => text.split_at(after_host + at),
            None => (text, ""),
        };
        let port = match port.strip_prefix(':').unwrap_or_default() {
            "" => None,
            digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_| InvalidAuthority::Port)?)
            }
            _ => return Err(InvalidAuthority::Port),
        };
        Ok(Self { host: Host::parse(host)?, port })
    }

    /// The same authority, without its port if `scheme` implies that port (80 for http, 443 for https).
    #[must_use]
    pub fn under(self, scheme: &str) -> Self {
        let implied = match scheme {
            "http" => Some(80),
            "https" => Some(443),
            _ => None,
        };
        Self { port: self.port.filter(|port| Some(*port) != implied), ..self }
    }
}

impl Origin {
    /// Parses the value of an `Origin` header: `scheme://host` or `scheme://host:port`.
    ///
    /// # Errors
    /// The text has another form, such as `null`.
    pub fn parse(text: &str) -> Result<Self, InvalidAuthority> {
        let (scheme, authority) = text.split_once("://").ok_or(InvalidAuthority::Scheme)?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
            return Err(InvalidAuthority::Scheme);
        }
        let scheme = scheme.to_ascii_lowercase();
        let Authority { host, port } = Authority::parse(authority)?.under(&scheme);
        Ok(Self { scheme, authority: Authority { host: host.into_owned(), port } })
    }

    /// The origin of an absolute URL.
    ///
    /// # Errors
    /// The URL has no scheme, or its authority is invalid.
    pub fn of_url(url: &str) -> Result<Self, InvalidAuthority> {
        let (scheme, rest) = url.split_once("://").ok_or(InvalidAuthority::Scheme)?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        Self::parse(&format!("{scheme}://{authority}"))
    }

    /// The host.
    pub fn host(&self) -> &Host<'static> {
        &self.authority.host
    }

    /// Whether this is the http or https origin of pages served under `authority`.
    pub fn is_of(&self, authority: &Authority<'_>) -> bool {
        matches!(self.scheme.as_str(), "http" | "https") && self.authority == authority.clone().under(&self.scheme)
    }
}

impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

impl fmt::Display for Authority<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)?;
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)
    }
}

/// Whether the host of a URL is a loopback address. Neither a name nor an IPv4-mapped IPv6 address counts, because both
/// can lead elsewhere.
pub fn is_loopback_address(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.is_ok_and(|address| address.is_loopback())
}

/// The text in lower case. Copies the text only if it has upper case.
fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) { text.to_ascii_lowercase().into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_authority_has_one_form() {
        for (text, form) in [
            ("Example.COM", "example.com"),
            ("example.com.", "example.com"),
            ("example.com.:8081", "example.com:8081"),
            ("example.com:", "example.com"),
            ("127.0.0.1:0080", "127.0.0.1:80"),
            ("127.0.0.1.", "127.0.0.1"),
            ("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:127.0.0.1]", "127.0.0.1"),
            ("host_with-both", "host_with-both"),
            ("1.example", "1.example"),
        ] {
            assert_eq!(Authority::parse(text).unwrap().to_string(), form, "{text}");
        }
    }

    #[test]
    fn what_is_no_authority_is_refused() {
        for text in [
            "",
            ".",
            ":80",
            "a..b",
            "a.b..",
            "a b",
            "a,b",
            "a/b",
            "a%41",
            "a@b",
            "user:pass@a",
            "2001:db8::1",
            "[::1",
            "::1]",
            "[::1]x",
            "[::1]]",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "a:80:80",
            "a:-1",
            "a:+80",
            "a:65536",
            "a:x",
            "\u{fc}.example",
            "*",
            "a*",
            "a\t",
        ] {
            assert!(Authority::parse(text).is_err(), "{text:?} is {:?}", Authority::parse(text));
        }
        assert!(Authority::parse(&"a".repeat(254)).is_err());
    }

    #[test]
    fn an_origin_is_compared_by_its_parts() {
        for (one, other, are_equal) in [
            ("https://a.example:443", "HTTPS://A.example.", true),
            ("http://a.example:80", "http://a.example", true),
            ("http://a.example:443", "https://a.example", false),
            ("http://a.example", "https://a.example", false),
            ("https://a.example:80", "https://a.example", false),
            ("app://localhost", "app://localhost", true),
        ] {
            assert_eq!(Origin::parse(one).unwrap() == Origin::parse(other).unwrap(), are_equal, "{one} {other}");
        }
        for text in ["null", "", "a.example", "://a", "https://", "https://a.example/", "https://u@a.example", "1://a"]
        {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
        let own =
            |origin: &str, authority: &str| Origin::parse(origin).unwrap().is_of(&Authority::parse(authority).unwrap());
        assert!(own("https://a.example", "A.example:443") && own("https://a.example:443", "a.example"));
        assert!(own("http://a.example:8081", "a.example:8081") && own("http://[::1]", "[0::1]:80"));
        assert!(!own("https://a.example", "a.example:80") && !own("app://a.example", "a.example"));
        assert_eq!(Origin::of_url("https://A.example:443/x?y").unwrap().to_string(), "https://a.example");
    }
}

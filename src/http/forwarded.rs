//! Reads whose request a proxy has passed on, from `X-Forwarded-For` or `Forwarded` (RFC 7239). Each proxy adds the
//! address that it was called from at the right end, so the list is read from there, as far as trusted proxies have
//! written it: what stands further left, a client may have made up.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName};

use super::forwarded_element::{Hop, elements, node};
use crate::config::{ForwardedHeader, Proxies};

/// The largest number of trusted proxies that a request may have passed.
const MOST_HOPS: usize = 32;
/// The header `X-Forwarded-For`, which no RFC describes.
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The fault of a header of a trusted proxy. The text leaves out the value, which must not be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidForwarded {
    /// A header cannot be read by its grammar.
    #[error("the header {0} cannot be read")]
    Syntax(&'static str),
    /// An entry is not an address.
    #[error("the header {0} has an entry that is no IP address")]
    Address(&'static str),
    /// The request has passed too many trusted proxies.
    #[error("the header {0} names {MOST_HOPS} trusted proxies or more")]
    TooLong(&'static str),
}

/// The address of the client whose request came from `peer` with these headers. That is `peer` unless `peer` is a
/// trusted proxy: then it is the address from which the first of the trusted proxies was called, or the address of a
/// proxy that does not tell.
///
/// # Errors
/// A header of a trusted proxy cannot be read as far as it has to be.
pub fn client(peer: IpAddr, headers: &HeaderMap, proxies: &Proxies) -> Result<IpAddr, InvalidForwarded> {
    if !proxies.trusts(peer) {
        return Ok(peer);
    }
    let mut walk = Walk { client: peer, hops: 0, proxies };
    match proxies.header {
        ForwardedHeader::XForwardedFor => {
            let name = "X-Forwarded-For";
            for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
                let entries = value.as_bytes().rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii);
                // A list may have empty entries (RFC 9110 section 5.6.1.2).
                if walk.passes(entries.filter(|entry| !entry.is_empty()).map(entry), name)? {
                    break;
                }
            }
        }
        ForwardedHeader::Forwarded => {
            let name = "Forwarded";
            for value in headers.get_all(FORWARDED).iter().rev() {
                let elements = elements(value.as_bytes()).ok_or(InvalidForwarded::Syntax(name))?;
                let nodes = elements.into_iter().rev();
                if walk.passes(nodes.map(|element| element.map_or(Some(Hop::Untold), node)), name)? {
                    break;
                }
            }
        }
    }
    Ok(walk.client)
}

/// The way back from the gateway to the client.
struct Walk<'a> {
    /// The address that is reached: a trusted proxy's, until the client is found.
    client: IpAddr,
    /// The number of trusted proxies passed, without the peer.
    hops: usize,
    proxies: &'a Proxies,
}

impl Walk<'_> {
    /// Goes on along the hops of one header, the last first; `None` is a hop that cannot be read. Returns whether the
    /// client is found.
    fn passes(
        &mut self,
        hops: impl Iterator<Item = Option<Hop>>,
        name: &'static str,
    ) -> Result<bool, InvalidForwarded> {
        for hop in hops {
            match hop.ok_or(InvalidForwarded::Address(name))? {
                Hop::Untold => return Ok(true),
                Hop::Address(address) => self.client = address,
            }
            if !self.proxies.trusts(self.client) {
                return Ok(true);
            }
            self.hops += 1;
            if self.hops >= MOST_HOPS {
                return Err(InvalidForwarded::TooLong(name));
            }
        }
        Ok(false)
    }
}

/// Reads an entry of `X-Forwarded-For`: what [`node`] reads, or an IPv6 address without brackets.
fn entry(text: &[u8]) -> Option<Hop> {
    match std::str::from_utf8(text).ok()?.parse::<IpAddr>() {
        Ok(address) => Some(Hop::Address(address.to_canonical())),
        Err(_) => node(text),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().unwrap()).to_vec();
        Proxies { trusted, header, protocol: false }
    }

    fn seen(header: ForwardedHeader, peer: &str, lines: &[&[u8]]) -> Result<String, InvalidForwarded> {
        let name = if header == ForwardedHeader::Forwarded { FORWARDED } else { X_FORWARDED_FOR };
        let other = if header == ForwardedHeader::Forwarded { X_FORWARDED_FOR } else { FORWARDED };
        let mut headers = HeaderMap::from_iter([(other, HeaderValue::from_static("for=203.0.113.66"))]);
        for line in lines {
            headers.append(&name, HeaderValue::from_bytes(line).unwrap());
        }
        client(peer.parse().unwrap(), &headers, &proxies(header)).map(|address| address.to_string())
    }

    fn from(peer: &str, lines: &[&str]) -> Result<String, InvalidForwarded> {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        seen(ForwardedHeader::XForwardedFor, peer, &lines)
    }

    fn rfc(peer: &str, lines: &[&str]) -> Result<String, InvalidForwarded> {
        let lines: Vec<_> = lines.iter().map(|line| line.as_bytes()).collect();
        seen(ForwardedHeader::Forwarded, peer, &lines)
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_as_far_as_proxies_are_trusted() {
        let is = |peer, lines: &[&str], client: &str| assert_eq!(from(peer, lines).as_deref(), Ok(client), "{lines:?}");
        is("192.0.2.1", &["6.6.6.6"], "192.0.2.1");
        is("10.0.0.1", &[], "10.0.0.1");
        is("10.0.0.1", &["192.0.2.9"], "192.0.2.9");
        is("10.0.0.1", &["6.6.6.6, 192.0.2.9 ,10.0.0.2,,"], "192.0.2.9");
        is("10.0.0.1", &["what ever, 192.0.2.9"], "192.0.2.9");
        is("10.0.0.1", &["192.0.2.9", "10.0.0.2", ""], "192.0.2.9");
        is("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3");
        is("2001:db8::1", &["::ffff:192.0.2.9"], "192.0.2.9");
        is("10.0.0.1", &["2001:db9::7"], "2001:db9::7");
        is("10.0.0.1", &["[2001:db9::7]:443"], "2001:db9::7");
        is("10.0.0.1", &["192.0.2.9:55123"], "192.0.2.9");
        is("10.0.0.1", &["192.0.2.9, unknown, 10.0.0.2"], "10.0.0.2");
        let address = Err(InvalidForwarded::Address("X-Forwarded-For"));
        for wrong in
            ["192.0.2", "192.0.2.9:", "192.0.2.9:x", "192.0.2.9:123456", "[::1", "::1%eth0", "localhost", "\"a\""]
        {
            assert_eq!(from("10.0.0.1", &[wrong]), address, "{wrong}");
            assert_eq!(from("10.0.0.1", &[&format!("192.0.2.9, {wrong}, 10.0.0.2")]), address, "{wrong}");
        }
        let many = vec!["10.0.0.2"; 40].join(",");
        assert_eq!(from("10.0.0.1", &[&many]), Err(InvalidForwarded::TooLong("X-Forwarded-For")));
    }

    #[test]
    fn forwarded_is_read_by_its_grammar() {
        let is = |lines: &[&str], client: &str| assert_eq!(rfc("10.0.0.1", lines).as_deref(), Ok(client), "{lines:?}");
        is(&["for=192.0.2.9"], "192.0.2.9");
        is(&["For=\"[2001:db9::7]:47011\";by=_x;proto=https"], "2001:db9::7");
        is(&["for=6.6.6.6, proto=http ; for=\"192.0.2.9:80\" ,, for=10.0.0.2"], "192.0.2.9");
        is(&["for=192.0.2.9;host=\"a,for=6.6.6.6\\\",\""], "192.0.2.9");
        is(&["for=192.0.2.9", "for=10.0.0.2"], "192.0.2.9");
        is(&["for=192.0.2.9, for=unknown"], "10.0.0.1");
        is(&["for=192.0.2.9, for=_hidden, for=\"10.0.0.2:_port\""], "10.0.0.2");
        is(&["for=192.0.2.9, by=10.0.0.2"], "10.0.0.1");
        is(&["", ";", " , "], "10.0.0.1");
        let syntax = Err(InvalidForwarded::Syntax("Forwarded"));
        for wrong in [
            "for",
            "for=",
            "=x",
            "for=[::1]",
            "for=\"192.0.2.9",
            "for=1.2.3.4 x=y",
            "for=a\"b\"",
            "for=\"a\"b",
            "for=192.0.2.9;for=192.0.2.8",
            "for=\"x\\",
            "for =192.0.2.9",
            "192.0.2.9:80",
        ] {
            assert_eq!(rfc("10.0.0.1", &[wrong]), syntax, "{wrong}");
        }
        for wrong in
            ["for=192.0.2", "for=\"::1\"", "for=\"[1.2.3.4]\"", "for=\"192.0.2.9:_\"", "for=_", "for=\"1\\92.0.2.9\""]
        {
            assert_eq!(rfc("10.0.0.1", &[wrong]), Err(InvalidForwarded::Address("Forwarded")), "{wrong}");
        }
    }

    proptest! {
        /// Whatever a client sends, the address that the proxy adds is the one, or the request is refused.
        #[test]
        fn no_client_chooses_its_address(made_up in "[ -~]{0,60}", more in "[ -~]{0,60}") {
            let [left, right] = [&made_up, &more].map(|text| text.as_bytes());
            let added = [right, b", 192.0.2.9"].concat();
            let read = seen(ForwardedHeader::XForwardedFor, "10.0.0.1", &[left, &added]);
            prop_assert_eq!(read.as_deref(), Ok("192.0.2.9"));
            for by_proxy in [&b", for=192.0.2.9"[..], b", for=\"192.0.2.9:80\"", b", by=_b;host=\"a\";for=192.0.2.9"] {
                let added = [right, by_proxy].concat();
                let read = seen(ForwardedHeader::Forwarded, "10.0.0.1", &[left, &added]);
                let is_his = read.as_deref().is_ok_and(|address| address == "192.0.2.9");
                prop_assert!(is_his || read.is_err(), "{:?}", read);
            }
        }

        #[test]
        fn quotes_hide_nothing(made_up in "(for=|10\\.0\\.0\\.2|[\",;\\\\= a]){0,12}") {
            let added = [made_up.as_bytes(), b", for=\"[2001:db9::7]:80\";by=\"_b\""].concat();
            let read = seen(ForwardedHeader::Forwarded, "10.0.0.1", &[&added]);
            prop_assert!(read.as_deref().is_ok_and(|address| address == "2001:db9::7") || read.is_err(), "{:?}", read);
        }
    }
}

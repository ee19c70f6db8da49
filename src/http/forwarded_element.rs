//! Parses `Forwarded` (RFC 7239): the elements of a header, and the nodes that they name. Without I/O, and strict: what
//! the grammar does not have makes the whole header invalid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One step of the way of a request, as the next proxy tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// The address from which the proxy was called.
    Address(IpAddr),
    /// The proxy does not tell: `unknown`, a name that begins with `_`, or nothing.
    Untold,
}

/// The value of the parameter `for` of each element of a header, without its quotes; `None` for an element without
/// that parameter. Elements without any parameter are left out.
///
/// The header is read from its left, because only so it is known what stands in quotes. A quote that a client has left
/// open makes the header invalid, and hides nothing of what a proxy has added.
pub fn elements(header: &[u8]) -> Option<Vec<Option<&[u8]>>> {
    let mut reader = Reader(header);
    let mut elements = Vec::new();
    let (mut node, mut is_empty) = (None, true);
    loop {
        reader.skip(|byte| matches!(byte, b' ' | b'\t'));
        let name = reader.skip(is_token);
        if !name.is_empty() {
            is_empty = false;
            reader.expect(b'=')?;
            let value = reader.value()?;
            if name.eq_ignore_ascii_case(b"for") && node.replace(value).is_some() {
                return None;
            }
            reader.skip(|byte| matches!(byte, b' ' | b'\t'));
        }
        let separator = reader.next();
        if separator == Some(b';') {
            continue;
        }
        if !is_empty {
            elements.push(node.take());
            is_empty = true;
        }
        match separator {
            None => return Some(elements),
            Some(b',') => {}
            Some(_) => return None,
        }
    }
}

/// Reads a node (RFC 7239 section 6): an IPv4 address, an IPv6 address in brackets, `unknown`, or a name that begins
/// with `_`, with a port or without. `None` for anything else.
pub fn node(text: &[u8]) -> Option<Hop> {
    let text = std::str::from_utf8(text).ok()?;
    let (hop, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (Hop::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?).to_canonical()), port)
        }
        None => {
            let (name, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
            match name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
                true => (Hop::Untold, port),
                false => (Hop::Address(IpAddr::V4(name.parse::<Ipv4Addr>().ok()?)), port),
            }
        }
    };
    let is_port = |port: &str| (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_good = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => is_port(port) || is_obfuscated(port),
    };
    is_good.then_some(hop)
}

/// Whether a name or port is hidden by the proxy: `_` and some letters, digits, or `.`, `_`, `-`.
fn is_obfuscated(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(allowed))
}

/// Whether a byte may stand in a token (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The rest of a header.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Takes the bytes from here on for which `is` holds.
    fn skip(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|byte| !is(*byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    /// Takes a token, or the content of a quoted string with its backslashes.
    fn value(&mut self) -> Option<&'a [u8]> {
        if self.0.first() != Some(&b'"') {
            return Some(self.skip(is_token)).filter(|token| !token.is_empty());
        }
        self.next();
        let whole = self.0;
        let mut length = 0;
        loop {
            match self.next()? {
                b'"' => return whole.get(..length),
                b'\\' => {
                    self.next()?;
                    length += 2;
                }
                _ => length += 1,
            }
        }
    }
}

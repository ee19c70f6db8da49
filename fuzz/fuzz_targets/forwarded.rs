//! What proxies say about whose request it is. The first byte of the input chooses what the rest is: the value of
//! `X-Forwarded-For`, that of `Forwarded`, a list of hops, or the beginning of a connection with the PROXY protocol.
//!
//! Whatever a client sends, the address that a trusted proxy has added is the one, or the request is refused; nobody
//! else is believed. Of hops, the nearest that is no trusted proxy is the one. An address that is accepted stands in
//! the header. A header of the PROXY protocol is read the same in any pieces, and nothing behind it is taken.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};
use sluice::config::{ForwardedHeader, Proxies};
use sluice::fuzzing::{forwarded_client, read_proxy_header};
use sluice_fuzz::chunks;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7));
/// The address that the proxy adds.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 9));
/// As many trusted proxies are too many.
const MOST_HOPS: usize = 32;
/// The most bytes of a header of the PROXY protocol: 16, and 4 KiB behind them.
const MOST: usize = 16 + 4096;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [kind, rest @ ..] = input else { return };
    match kind % 4 {
        0 => header(ForwardedHeader::XForwardedFor, rest),
        1 => header(ForwardedHeader::Forwarded, rest),
        2 => hops(rest),
        _ => connection(rest),
    }
});

/// What the gateway takes for the client; `None` if the lines cannot be those of a header. The error is its text.
fn seen(header: ForwardedHeader, peer: IpAddr, lines: &[&[u8]]) -> Option<Result<IpAddr, String>> {
    let trusted = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    let proxies = Proxies { trusted, header, protocol: false };
    let name = match header {
        ForwardedHeader::XForwardedFor => HeaderName::from_static("x-forwarded-for"),
        ForwardedHeader::Forwarded => FORWARDED,
    };
    let mut headers = HeaderMap::new();
    for line in lines {
        headers.append(&name, HeaderValue::from_bytes(line).ok()?);
    }
    Some(forwarded_client(peer, &headers, &proxies).map_err(|error| error.to_string()))
}

fn header(header: ForwardedHeader, made_up: &[u8]) {
    let Some(read) = seen(header, STRANGER, &[made_up]) else { return };
    assert_eq!(read, Ok(STRANGER), "a stranger is believed");
    if let Some(Ok(address)) = seen(header, PROXY, &[made_up]) {
        assert!(address == PROXY || stands_in(address, made_up), "{address} is not in the header");
    }
    let added: &[&[u8]] = match header {
        ForwardedHeader::XForwardedFor => &[b"192.0.2.9", b"192.0.2.9:80, 10.0.0.2"],
        ForwardedHeader::Forwarded => &[b"for=192.0.2.9", b"by=_b;for=\"192.0.2.9:80\";host=\"a\", for=10.0.0.2"],
    };
    for added in added {
        let own_line = seen(header, PROXY, &[made_up, added]);
        assert_eq!(own_line, Some(Ok(CLIENT)), "a line of the proxy's own");
        let one_line = seen(header, PROXY, &[&[made_up, b", ", added].concat()]).unwrap();
        // A quote that the client leaves open makes the whole line invalid.
        let is_refused = header == ForwardedHeader::Forwarded && one_line.is_err();
        assert!(is_refused || one_line == Ok(CLIENT), "{one_line:?} at the end of the client's line");
    }
}

/// Whether an address stands somewhere in a text, with or without a port.
fn stands_in(address: IpAddr, text: &[u8]) -> bool {
    let is_of_address = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let is = |text: &str| text.parse::<IpAddr>().is_ok_and(|read| read.to_canonical() == address);
    text.split(|byte| !is_of_address(byte)).any(|word| {
        let word = std::str::from_utf8(word).unwrap();
        is(word) || word.rsplit_once(':').is_some_and(|(host, _)| is(host))
    })
}

/// What a proxy may say: as an entry of `X-Forwarded-For`, as a node of `Forwarded`, and what it means. That is the
/// address and whether it is a trusted proxy's, or `None` for a proxy that does not tell; an error for no address.
type Entry = (&'static str, &'static str, Result<Option<(&'static str, bool)>, ()>);

const ENTRIES: [Entry; 10] = [
    ("10.0.0.2", "10.0.0.2", Ok(Some(("10.0.0.2", true)))),
    ("2001:db8::2", "\"[2001:db8::2]\"", Ok(Some(("2001:db8::2", true)))),
    ("::ffff:10.0.0.3", "\"[::ffff:10.0.0.3]:80\"", Ok(Some(("10.0.0.3", true)))),
    ("192.0.2.9", "192.0.2.9", Ok(Some(("192.0.2.9", false)))),
    ("192.0.2.10:80", "\"192.0.2.10:_p\"", Ok(Some(("192.0.2.10", false)))),
    ("[2001:db9::7]:443", "\"[2001:db9::7]:443\"", Ok(Some(("2001:db9::7", false)))),
    ("unknown", "Unknown", Ok(None)),
    ("_hidden", "_hidden", Ok(None)),
    ("localhost", "localhost", Err(())),
    ("192.0.2", "192.0.2", Err(())),
];

/// Each byte is a hop; those from 128 on begin a line.
fn hops(bytes: &[u8]) {
    let entries: Vec<&Entry> = bytes.iter().map(|byte| &ENTRIES[usize::from(byte % 128) % ENTRIES.len()]).collect();
    let expected = nearest(entries.iter().rev().map(|entry| entry.2));
    for header in [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded] {
        let mut lines = vec![String::new()];
        for (byte, (entry, node, _)) in bytes.iter().zip(&entries) {
            if *byte >= 128 {
                lines.push(String::new());
            }
            let line = lines.last_mut().unwrap();
            let comma = if line.is_empty() { "" } else { ", " };
            match header {
                ForwardedHeader::XForwardedFor => *line += &format!("{comma}{entry}"),
                ForwardedHeader::Forwarded => *line += &format!("{comma}proto=http;for={node}"),
            }
        }
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert_eq!(seen(header, PROXY, &lines).unwrap().ok(), expected, "{header:?}");
    }
}

/// The client behind hops, the nearest first; `None` for a request that is refused.
fn nearest(hops: impl Iterator<Item = Result<Option<(&'static str, bool)>, ()>>) -> Option<IpAddr> {
    let (mut client, mut passed) = (PROXY, 0);
    for hop in hops {
        let Some((address, is_trusted)) = hop.ok()? else { break };
        client = address.parse().unwrap();
        if !is_trusted {
            break;
        }
        passed += 1;
        if passed == MOST_HOPS {
            return None;
        }
    }
    Some(client)
}

/// The first byte chooses the pieces in which the others arrive.
fn connection(input: &[u8]) {
    let [seed, bytes @ ..] = input else { return };
    let (address, left) = read(vec![bytes]);
    assert_eq!(read(chunks(*seed, bytes)), (address.clone(), left), "pieces matter");
    assert_eq!(read(bytes.chunks(1).collect()), (address.clone(), left), "single bytes matter");
    let (header, _) = bytes.split_at(bytes.len() - left);
    assert!(header.len() <= MOST, "{} bytes are taken", header.len());
    let Ok(address) = address else { return };
    assert_eq!(read(vec![header, b"GET / HTTP/1.1\r\n"]), (Ok(address), 16), "what is behind it matters");
    assert!(read(vec![&header[..header.len() - 1]]).0.is_err(), "the last byte does not matter");
    if let Some(line) = header.strip_prefix(b"PROXY ") {
        let words: Vec<_> = std::str::from_utf8(line).unwrap().trim_end().split(' ').collect();
        let told = words.get(1).filter(|_| words[0] != "UNKNOWN");
        assert_eq!(address, told.map(|source| source.parse::<IpAddr>().unwrap().to_canonical()));
        return;
    }
    let rest = header.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n").unwrap();
    let told = match rest {
        [0x21, 0x11, _, _, source @ ..] => source.first_chunk::<4>().map(|source| Ipv4Addr::from(*source).into()),
        [0x21, 0x21, _, _, source @ ..] => source.first_chunk::<16>().map(|source| Ipv6Addr::from(*source).into()),
        _ => None,
    };
    assert_eq!(address, told.map(|source: IpAddr| source.to_canonical()));
}

/// Reads the header at the beginning of a connection whose bytes arrive in these pieces. Returns the address, or the
/// text of the error, and how many bytes are left.
fn read(pieces: Vec<&[u8]>) -> (Result<Option<IpAddr>, String>, usize) {
    let mut pieces = Pieces(pieces.into_iter().rev().collect());
    let address = RUNTIME.block_on(read_proxy_header(&mut pieces, Duration::from_secs(5)));
    (address.map_err(|error| error.to_string()), pieces.0.iter().map(|piece| piece.len()).sum())
}

/// A connection whose bytes arrive in pieces: the last is the first.
struct Pieces<'a>(Vec<&'a [u8]>);

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        while let Some(piece) = self.0.pop() {
            if piece.is_empty() {
                continue;
            }
            let (taken, rest) = piece.split_at(piece.len().min(buffer.remaining()));
            buffer.put_slice(taken);
            self.0.push(rest);
            break;
        }
        Poll::Ready(Ok(()))
    }
}

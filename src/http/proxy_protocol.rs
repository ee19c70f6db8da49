//! Reads the header of the PROXY protocol, version 1 or 2, with which a connection of a proxy begins
//! (https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// What a header of version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What a header of version 1 begins with.
const WORD: &[u8; 6] = b"PROXY ";
/// The largest header of version 1 with its line break, in bytes (section 2.1).
const LONGEST_LINE: usize = 107;
/// The largest rest of a header of version 2 behind its length, in bytes. Section 2.2 wants 216 and room for more.
const LONGEST_REST: usize = 4096;

/// The fault of a header. The text leaves out what was read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidProxyHeader {
    /// The connection does not begin with a header.
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Missing,
    /// The header cannot be read by the protocol.
    #[error("the header of the PROXY protocol is invalid: {0}")]
    Invalid(&'static str),
    /// The header did not arrive in time.
    #[error("the header of the PROXY protocol did not arrive within {0:?} (http.header_timeout)")]
    Late(Duration),
    /// The connection ended or broke off within the header.
    #[error("the connection ended within the header of the PROXY protocol")]
    Ended(#[from] std::io::Error),
}

use InvalidProxyHeader::{Invalid, Late, Missing};

/// Reads the header at the beginning of a connection, and nothing behind it, within `time`. Returns the address of the
/// client; `None` if the proxy speaks for itself, as in its health checks, or does not tell an address.
///
/// # Errors
/// There is no header, or it is invalid, late or incomplete.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), time: Duration) -> Result<Option<IpAddr>, InvalidProxyHeader> {
    timeout(time, header(stream)).await.unwrap_or(Err(Late(time)))
}

async fn header(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, InvalidProxyHeader> {
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == *SIGNATURE {
        let mut fixed = [0; 4];
        stream.read_exact(&mut fixed).await?;
        let [version, family, high, low] = fixed;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > LONGEST_REST {
            return Err(Invalid("it is longer than 4 KiB"));
        }
        let mut rest = vec![0; length];
        stream.read_exact(&mut rest).await?;
        return binary(version, family, &rest);
    }
    if !start.starts_with(WORD) {
        return Err(Missing);
    }
    let mut line = start.to_vec();
    // Byte by byte: what follows the line is not the header's.
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(Invalid("the line is longer than 107 bytes"));
        }
        line.push(stream.read_u8().await?);
    }
    text(&line)
}

/// Reads a header of version 2: the byte of version and command, the byte of family and protocol, and what follows the
/// length. Extensions (TLV) are passed over.
fn binary(version: u8, family: u8, rest: &[u8]) -> Result<Option<IpAddr>, InvalidProxyHeader> {
    match version {
        // LOCAL: the rest is to be passed over.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(Invalid("unknown version or command")),
    }
    let short = Invalid("it ends within its addresses");
    match family {
        0x00 | 0x31 => Ok(None),
        0x11 => {
            let (source, _) = rest.split_first_chunk::<4>().filter(|_| rest.len() >= 12).ok_or(short)?;
            Ok(Some(Ipv4Addr::from(*source).into()))
        }
        0x21 => {
            let (source, _) = rest.split_first_chunk::<16>().filter(|_| rest.len() >= 36).ok_or(short)?;
            Ok(Some(IpAddr::from(Ipv6Addr::from(*source)).to_canonical()))
        }
        _ => Err(Invalid("the connection is none of TCP")),
    }
}

/// Reads a header of version 1, with its line break.
fn text(line: &[u8]) -> Result<Option<IpAddr>, InvalidProxyHeader> {
    let line = std::str::from_utf8(line).ok().and_then(|line| line.strip_suffix("\r\n"));
    let mut words = line.ok_or(Invalid("it is no text"))?.split(' ').skip(1);
    let mut next = || words.next().unwrap_or_default();
    let family = next();
    // Whatever follows is to be passed over.
    if family == "UNKNOWN" {
        return Ok(None);
    }
    let (source, target, ports) = (next(), next(), [next(), next()]);
    let addresses = match family {
        "TCP4" => source.parse::<Ipv4Addr>().ok().zip(target.parse::<Ipv4Addr>().ok()).map(|(source, _)| source.into()),
        "TCP6" => source.parse::<Ipv6Addr>().ok().zip(target.parse::<Ipv6Addr>().ok()).map(|(source, _)| source.into()),
        _ => return Err(Invalid("it names neither TCP4, TCP6 nor UNKNOWN")),
    };
    let address: IpAddr = addresses.ok_or(Invalid("it has no two addresses of its family"))?;
    if !ports.iter().all(|port| is_port(port)) || words.next().is_some() {
        return Err(Invalid("it does not end with two ports"));
    }
    Ok(Some(address.to_canonical()))
}

/// Whether a text is a port as the protocol wants it: 0 to 65535, without leading zeros.
fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    /// What is read, and the bytes that are left; `None` for an error.
    fn parsed(bytes: &[u8]) -> Option<(Option<String>, Vec<u8>)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let mut rest = bytes;
        let read = runtime.block_on(read(&mut rest, Duration::from_secs(5)));
        read.ok().map(|address| (address.map(|address| address.to_string()), rest.to_vec()))
    }

    fn v2(version: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE.as_slice(), &[version, family], &length, rest, b"GET"].concat()
    }

    #[test]
    fn version_1_is_a_line() {
        let is = |line: &str, address: Option<&str>| {
            let bytes = format!("{line}\r\nGET");
            assert_eq!(parsed(bytes.as_bytes()), Some((address.map(str::to_owned), b"GET".to_vec())), "{line}");
        };
        is("PROXY TCP4 192.0.2.9 10.0.0.1 56324 443", Some("192.0.2.9"));
        is("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", Some("255.255.255.255"));
        is("PROXY TCP6 2001:db9::7 ::1 0 443", Some("2001:db9::7"));
        is("PROXY TCP6 ::ffff:192.0.2.9 ::1 1 443", Some("192.0.2.9"));
        let longest = "f".repeat(4) + &":ffff".repeat(7);
        is(&format!("PROXY TCP6 {longest} {longest} 65535 65535"), Some(&longest));
        is(&format!("PROXY UNKNOWN {longest} {longest} 65535 65535"), None);
        is("PROXY UNKNOWN", None);
        for wrong in [
            "GET / HTTP/1.1",
            "PROXY",
            "PROXY TCP4",
            "PROXY TCP4 192.0.2.9 10.0.0.1 56324",
            "proxy TCP4 192.0.2.9 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2.9 10.0.0.1 56324 443 ",
            "PROXY TCP4  192.0.2.9 10.0.0.1 56324 443",
            "PROXY TCP5 1.1.1.1 2.2.2.2 1 2",
            "PROXY TCP4 192.0.2.9 10.0.0.1 65536 443",
            "PROXY TCP4 192.0.2.9 10.0.0.1 1 02",
            "PROXY TCP4 192.0.2.9 10.0.0.1 1 +2",
            "PROXY TCP4 ::1 ::1 1 2",
            "PROXY TCP6 192.0.2.9 10.0.0.1 1 2",
            "PROXY TCP4 192.0.2.09 10.0.0.1 1 2",
            "PROXY UNKNOWNX",
        ] {
            assert_eq!(parsed(format!("{wrong}\r\nGET / HTTP/1.1\r\n").as_bytes()), None, "{wrong}");
        }
        assert_eq!(parsed(format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).as_bytes()), None);
        assert_eq!(parsed(b"PROXY TCP4 192.0.2.9 10.0.0.1 1 2\n"), None);
    }

    #[test]
    fn version_2_is_binary() {
        let v4 = [192, 0, 2, 9, 10, 0, 0, 1, 0xdc, 4, 1, 0xbb];
        let v6 = [&"2001:db9::7".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        let some = |address: &str| Some((Some(address.to_owned()), b"GET".to_vec()));
        let none = Some((None, b"GET".to_vec()));
        assert_eq!(parsed(&v2(0x21, 0x11, &v4)), some("192.0.2.9"));
        assert_eq!(parsed(&v2(0x21, 0x11, &[&v4[..], &[4, 0, 1, 0]].concat())), some("192.0.2.9"), "an extension");
        assert_eq!(parsed(&v2(0x21, 0x21, &v6)), some("2001:db9::7"));
        assert_eq!(parsed(&v2(0x20, 0x11, &v4)), none, "LOCAL");
        assert_eq!(parsed(&v2(0x20, 0, b"")), none, "LOCAL without addresses");
        assert_eq!(parsed(&v2(0x21, 0, b"")), none, "UNSPEC");
        assert_eq!(parsed(&v2(0x21, 0x31, &[0; 216])), none, "a Unix socket");
        for (version, family, rest) in
            [(0x11, 0x11, &v4[..]), (0x22, 0x11, &v4), (0x21, 0x12, &v4), (0x21, 0x11, &v4[..11])]
        {
            assert_eq!(parsed(&v2(version, family, rest)), None);
        }
        assert_eq!(parsed(&v2(0x21, 0x21, &v6[..35])), None);
        assert_eq!(parsed(&v2(0x21, 0x11, &[0; LONGEST_REST + 1])), None);
        assert_eq!(parsed(&v2(0x21, 0x11, &v4)[..20]), None, "it breaks off");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_come_is_not_waited_for() {
        let (mut near, _far) = tokio::io::duplex(64);
        assert!(matches!(read(&mut near, Duration::from_secs(3)).await, Err(Late(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail_otherwise(
            start in prop::sample::select(vec![&b""[..], WORD, b"PROXY TCP4 ", SIGNATURE]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            parsed(&[start, &rest].concat());
        }
    }
}

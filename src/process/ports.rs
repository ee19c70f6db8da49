//! Warns of gateway ports in the kernel's range for automatic ports (port 0). Any program, and every server in its
//! sandbox, may be given such a port before the gateway listens on it.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use crate::config::Config;

const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

/// Warnings for the ports in `config` that lie in the kernel's range of automatic ports and are not reserved. None for
/// a port 0.
pub fn ports_within_reach(config: &Config) -> Vec<String> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let Some(range) = range(&read(RANGE)) else { return Vec::new() };
    let reserved = reserved(&read(RESERVED));
    let own = [("http.listen", Some(config.http.listen)), ("admin.listen", config.admin)];
    let own = own.into_iter().filter_map(|(key, address)| Some((key, address?)));
    own.filter_map(|(key, address)| within_reach(key, address, &range, &reserved)).collect()
}

fn within_reach(
    key: &str,
    address: SocketAddr,
    range: &RangeInclusive<u16>,
    reserved: &[RangeInclusive<u16>],
) -> Option<String> {
    let port = address.port();
    let is_drawn = range.contains(&port) && !reserved.iter().any(|range| range.contains(&port));
    is_drawn.then(|| {
        format!(
            "{key}: port {port} is one of {}-{}, from which the kernel gives ports to programs that name none, servers \
             included: one of them may have it before the gateway does; choose a port outside of that range, or reserve this \
             one (sysctl net.ipv4.ip_local_reserved_ports={port})",
            range.start(),
            range.end()
        )
    })
}

/// Parses a range of two numbers, such as "32768 60999".
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_ascii_whitespace();
    Some(numbers.next()?.parse().ok()?..=numbers.next()?.parse().ok()?)
}

/// Parses a list of numbers and ranges, such as "8080,9148-9150".
fn reserved(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_port_that_the_kernel_may_give_away_is_named_with_a_remedy() {
        let range = range("32768\t60999\n").unwrap();
        let reserved = reserved("8080,40000-40010,50000\n");
        let said = |port| within_reach("http.listen", ([127, 0, 0, 1], port).into(), &range, &reserved);
        for port in [32768, 60999, 40011, 50001] {
            assert!(said(port).unwrap().contains(&format!("ip_local_reserved_ports={port}")), "{port}");
        }
        for port in [0, 8081, 32767, 61000, 40000, 40010, 50000] {
            assert_eq!(said(port), None, "{port}");
        }
        assert_eq!((super::range(""), super::reserved("\n")), (None, Vec::new()));
    }
}

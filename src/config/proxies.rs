//! Reads which proxies stand in front of the gateway, and how they tell whose connection or request it is: the keys
//! `trusted_proxies`, `forwarded_header` and `proxy_protocol` of `[http]`.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::section::Section;

/// The proxies in front of the gateway.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    /// The addresses of the proxies, none of them an IPv4 address that is mapped into IPv6.
    pub trusted: Vec<IpNet>,
    /// The header in which the proxies tell the address of the client.
    pub header: ForwardedHeader,
    /// Whether connections of the proxies begin with a header of the PROXY protocol, version 1 or 2.
    pub protocol: bool,
}

/// The header in which proxies tell the address of the client. Only one is read: a proxy that writes one of them may
/// pass on what a client has put into the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

impl Proxies {
    /// Whether an address is that of a trusted proxy. The address is not an IPv4 address mapped into IPv6.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|net| net.contains(&address))
    }
}

/// Reads the keys about proxies in `[http]`.
pub(super) fn read(s: &mut Section<'_>) -> Proxies {
    let texts = s.strings("trusted_proxies");
    let proxies = Proxies {
        trusted: trusted(s, &texts),
        header: s.choice(
            "forwarded_header",
            ForwardedHeader::default(),
            &[("x-forwarded-for", ForwardedHeader::XForwardedFor), ("forwarded", ForwardedHeader::Forwarded)],
        ),
        protocol: s.flag("proxy_protocol").unwrap_or_default(),
    };
    if proxies.protocol && texts.is_empty() {
        s.problem(
            "proxy_protocol",
            "nobody may use it while trusted_proxies is empty; list the addresses of the proxies",
        );
    } else if s.has("forwarded_header") && texts.is_empty() {
        s.warning("forwarded_header", "is not read while trusted_proxies is empty; list the addresses of the proxies");
    }
    proxies
}

fn trusted(s: &Section<'_>, texts: &[String]) -> Vec<IpNet> {
    let path = s.path.key("trusted_proxies");
    let mut nets = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let path = path.index(index);
        match network(text) {
            Ok(net) if net.prefix_len() == 0 => {
                s.reading.warning(
                    &path,
                    format!("{net} is everybody: any client may claim any address; list the addresses of the proxies"),
                );
                nets.push(net);
            }
            Ok(net) => nets.push(net),
            Err(why) => s.reading.problem(&path, format!("{text:?} is {why}")),
        }
    }
    nets
}

/// Parses an address, or a network such as `10.0.0.0/8`. The error says what the text is.
fn network(text: &str) -> Result<IpNet, String> {
    let parsed = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text
            .parse::<IpNet>()
            .map_err(|_| "no address and no network; write one, such as \"10.0.0.7\" or \"10.0.0.0/8\"".to_owned())?,
    };
    if parsed.addr() != parsed.network() {
        return Err(format!(
            "an address within a network; write the network, {}, or the address alone",
            parsed.trunc()
        ));
    }
    Ok(canonical(parsed))
}

/// The IPv4 network that a network of mapped addresses (`::ffff:0:0/96`) stands for; any other network as it is.
fn canonical(net: IpNet) -> IpNet {
    let mapped = match net {
        IpNet::V6(net) => net.addr().to_ipv4_mapped().zip(net.prefix_len().checked_sub(96)),
        IpNet::V4(_) => None,
    };
    mapped.and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok()).map_or(net, IpNet::V4)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_and_networks_are_read_into_one_form() {
        let proxies = |texts: &[&str]| Proxies {
            trusted: texts.iter().map(|text| network(text).unwrap()).collect(),
            ..Proxies::default()
        };
        let trusts = |texts: &[&str], address: &str| proxies(texts).trusts(address.parse().unwrap());
        assert!(trusts(&["10.0.0.0/8"], "10.255.0.1") && !trusts(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(trusts(&["192.0.2.7"], "192.0.2.7") && !trusts(&["192.0.2.7"], "192.0.2.8"));
        assert!(trusts(&["::ffff:10.0.0.0/104"], "10.9.9.9") && trusts(&["::ffff:10.0.0.1"], "10.0.0.1"));
        assert!(trusts(&["2001:db8::/32"], "2001:db8:1::1") && !trusts(&["2001:db8::/32"], "2001:db9::1"));
        assert!(trusts(&["::/0"], "2001:db9::1") && !trusts(&["::/0"], "192.0.2.7"));
        assert!(!trusts(&[], "127.0.0.1"));
        for wrong in ["", "10.0.0.0/33", "10.0.0", "proxy.example.com", "10.0.0.0/8 ", "fe80::1%eth0"] {
            assert!(network(wrong).unwrap_err().contains("such as"), "{wrong}");
        }
        assert!(network("10.1.2.3/8").unwrap_err().contains("10.0.0.0/8"));
    }
}

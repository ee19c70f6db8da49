//! The addresses of clients, in one form, and the network that an address stands for where addresses share something.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who shares with others: an IPv4 address, or the /64 of an IPv6 address, which is the least that a provider gives to
/// one customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address. An IPv4 address that is mapped into IPv6 is the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(Ipv6Addr::LOCALHOST) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        })
    }

    /// Whether the network is this machine under its usual address, 127.0.0.1 or ::1.
    pub fn is_this_machine(self) -> bool {
        self.0 == IpAddr::V4(Ipv4Addr::LOCALHOST)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_ipv6_address_stands_for_its_64_and_a_mapped_one_for_itself() {
        let of = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2::3"), of("2001:db8:1:2:ffff::"));
        assert_ne!(of("2001:db8:1:2::3"), of("2001:db8:1:3::3"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert!(of("::1").is_this_machine() && of("::ffff:127.0.0.1").is_this_machine());
        assert!(!of("127.0.0.2").is_this_machine() && !of("::2").is_this_machine());
    }
}

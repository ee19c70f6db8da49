//! Denies sockets by family, kind and protocol. Invariant: each network socket is TCP, UDP or ping. Landlock controls
//! TCP ports only, so no other protocol may be able to serve clients on such a port.

use seccompiler::BackendError;

use super::filter::{Answer, Denials, Is, number};

/// The sockets that a server may make. Pairs of connected Unix sockets are always allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Whether network sockets are allowed.
    pub network: bool,
    /// Whether Unix sockets are allowed.
    pub local: bool,
}

/// The families of internet sockets.
const INTERNET: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];
/// The allowed protocols of internet sockets; 0 is the default of the kind. Others (MPTCP, SMC, SCTP, DCCP, …) can
/// listen on TCP ports without Landlock's control, or are rarely used.
const PROTOCOLS: [libc::c_int; 5] = [0, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];
/// The denied kinds of internet sockets: those that are neither streams nor datagrams.
const OTHER_KINDS: [libc::c_int; 5] =
    [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET];
/// Deprecated, so the `libc` crate lacks it on some architectures.
const SOCK_PACKET: libc::c_int = 10;
/// Socket option `IP_LOCAL_PORT_RANGE`: restricts which port the kernel chooses for port 0. A range of one port would
/// let a server choose its port.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
/// The bits of a socket's kind that are no flags.
const KINDS: u64 = 0xf;

/// Refuses sockets that `sockets` does not allow.
///
/// # Errors
/// The rules cannot be expressed.
pub(super) fn refuse_sockets(denials: &mut Denials, sockets: Sockets) -> Result<(), BackendError> {
    let network = sockets.network.then_some([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]);
    let local = sockets.local.then_some(libc::AF_UNIX);
    let families: Vec<_> = network.into_iter().flatten().chain(local).collect();
    match families.as_slice() {
        [] => _ = denials.always(&[libc::SYS_socket]),
        families => {
            let other: Vec<_> = families.iter().map(|family| (0, Is::Not(number(*family)))).collect();
            denials.when(Answer::Refused, libc::SYS_socket, &other)?;
        }
    }
    for family in INTERNET {
        let family = (0, Is::Equal(number(family)));
        for kind in OTHER_KINDS {
            denials.when(Answer::Refused, libc::SYS_socket, &[family, (1, Is::Masked(KINDS, number(kind)))])?;
        }
        let others = PROTOCOLS.iter().map(|protocol| (2, Is::Not(number(*protocol))));
        let other: Vec<_> = [family].into_iter().chain(others).collect();
        denials.when(Answer::NoProtocol, libc::SYS_socket, &other)?;
    }
    let range = [(1, Is::Equal(number(libc::IPPROTO_IP))), (2, Is::Equal(number(IP_LOCAL_PORT_RANGE)))];
    denials.when(Answer::Refused, libc::SYS_setsockopt, &range)?;
    // Addresses and routes, which the C library asks for; not the kernel's events and its list of all sockets.
    let other = [(0, Is::Equal(number(libc::AF_NETLINK))), (2, Is::Not(number(libc::NETLINK_ROUTE)))];
    denials.when(Answer::NoProtocol, libc::SYS_socket, &other)?;
    denials.when(Answer::Refused, libc::SYS_socketpair, &[(0, Is::Not(number(libc::AF_UNIX)))])?;
    if !sockets.local {
        // One of a pair of any other kind can be connected anew, to somebody outside: they become datagrams.
        let stays = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(number);
        for kind in (0..=KINDS).filter(|kind| !stays.contains(kind)) {
            denials.when(Answer::Refused, libc::SYS_socketpair, &[(1, Is::Masked(KINDS, kind))])?;
        }
    }
    Ok(())
}

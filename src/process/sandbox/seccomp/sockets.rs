//! Which sockets can be made. Invariant: every one of the network is of TCP, UDP or ping, so that Landlock, which knows TCP
//! alone, decides over all by which a client of the gateway could be served.

use seccompiler::BackendError;

use super::filter::{Answer, Denials, Is, number, rule};

/// What sockets can be made. Pairs that are connected to each other always can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sockets {
    /// Those of the network.
    pub network: bool,
    /// Those of the machine, which have a name in the file system.
    pub local: bool,
}

/// The families of sockets that programs use; the others are ways into rarely used parts of the kernel.
const INTERNET: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];
/// Their protocols; 0 is the usual one. The others (MPTCP, SMC, SCTP, DCCP, …) listen on the ports of TCP too, unseen by
/// Landlock, or are rarely used.
const PROTOCOLS: [libc::c_int; 5] = [0, libc::IPPROTO_ICMP, libc::IPPROTO_TCP, libc::IPPROTO_UDP, libc::IPPROTO_ICMPV6];
/// Their kinds that are neither streams nor datagrams: raw, SCTP, DCCP and the like.
const OTHER_KINDS: [libc::c_int; 5] =
    [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET];
/// Deprecated, and so not in the `libc` crate everywhere.
const SOCK_PACKET: libc::c_int = 10;
/// `IP_LOCAL_PORT_RANGE`: from which ports the kernel takes one for port 0. With a range of one port, a socket chooses its own.
const IP_LOCAL_PORT_RANGE: libc::c_int = 51;
/// The part of the kind that is no flag.
const KINDS: u64 = 0xf;

pub(super) fn refuse_sockets(denials: &mut Denials, sockets: Sockets) -> Result<(), BackendError> {
    let network = sockets.network.then_some([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK]);
    let local = sockets.local.then_some(libc::AF_UNIX);
    let families: Vec<_> = network.into_iter().flatten().chain(local).collect();
    match families.as_slice() {
        [] => _ = denials.always(&[libc::SYS_socket]),
        families => {
            let other: Vec<_> = families.iter().map(|family| (0, Is::Not(number(*family)))).collect();
            denials.when(Answer::Refused, libc::SYS_socket, rule(&other)?);
        }
    }
    for family in INTERNET {
        let family = (0, Is::Equal(number(family)));
        for kind in OTHER_KINDS {
            denials.when(Answer::Refused, libc::SYS_socket, rule(&[family, (1, Is::Masked(KINDS, number(kind)))])?);
        }
        let others = PROTOCOLS.iter().map(|protocol| (2, Is::Not(number(*protocol))));
        let other: Vec<_> = [family].into_iter().chain(others).collect();
        denials.when(Answer::NoProtocol, libc::SYS_socket, rule(&other)?);
    }
    let range = [(1, Is::Equal(number(libc::IPPROTO_IP))), (2, Is::Equal(number(IP_LOCAL_PORT_RANGE)))];
    denials.when(Answer::Refused, libc::SYS_setsockopt, rule(&range)?);
    // Addresses and routes, which the C library asks for; not the kernel's events and its list of all sockets.
    let other = [(0, Is::Equal(number(libc::AF_NETLINK))), (2, Is::Not(number(libc::NETLINK_ROUTE)))];
    denials.when(Answer::NoProtocol, libc::SYS_socket, rule(&other)?);
    denials.when(Answer::Refused, libc::SYS_socketpair, rule(&[(0, Is::Not(number(libc::AF_UNIX)))])?);
    if !sockets.local {
        // One of a pair of any other kind can be connected anew, to somebody outside: they become datagrams.
        let stays = [libc::SOCK_STREAM, libc::SOCK_SEQPACKET].map(number);
        for kind in (0..=KINDS).filter(|kind| !stays.contains(kind)) {
            denials.when(Answer::Refused, libc::SYS_socketpair, rule(&[(1, Is::Masked(KINDS, kind))])?);
        }
    }
    Ok(())
}

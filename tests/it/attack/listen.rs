//! A server takes nobody's place: it listens where the kernel lets it, and never where clients look for the gateway.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use sluice::config::{Allowance, SandboxMode};

use crate::harness::{Caller, Gateway, Request, fixture};
use crate::sandbox::stage::{As, run};
use crate::sandbox::{Scene, asked, kernel};

/// The modes of a sandbox, with the network on.
const SANDBOXED: [SandboxMode; 2] = [SandboxMode::Standard, SandboxMode::Strict];
/// `IPPROTO_MPTCP`, which listens on the ports of TCP.
const MPTCP: i32 = 262;

/// A probe that listens on a port, with a socket of this protocol (0 is TCP) and with more of Perl in between.
fn listens(address: &str, port: u16, protocol: i32, more: &str) -> String {
    let (family, address) = match address.parse().unwrap() {
        IpAddr::V4(_) => ("AF_INET", format!("pack_sockaddr_in({port}, inet_pton(AF_INET, \"{address}\"))")),
        IpAddr::V6(_) => ("AF_INET6", format!("pack_sockaddr_in6({port}, inet_pton(AF_INET6, \"{address}\"))")),
    };
    format!(
        "perl -MSocket=:all -e 'socket($s, {family}, SOCK_STREAM, {protocol}) or exit 1; {more}; \
         setsockopt($s, SOL_SOCKET, SO_REUSEADDR, 1); bind($s, {address}) && listen($s, 1) or exit 1'"
    )
}

/// That the socket is of IPv6 alone.
const V6ONLY: &str = "setsockopt($s, IPPROTO_IPV6, IPV6_V6ONLY, 1) or exit 1";
/// That the port is shared with others of the same user who want that too.
const REUSEPORT: &str = "setsockopt($s, SOL_SOCKET, SO_REUSEPORT, 1) or exit 1";

/// A port that the kernel gives to nobody, and that nobody has.
fn free_port() -> u16 {
    let is_free = |port: &u16| ["127.0.0.1", "::1"].iter().all(|ip| TcpListener::bind((*ip, *port)).is_ok());
    (u16::try_from(std::process::id() % 9000).unwrap() + 20_000..32_000).find(is_free).unwrap()
}

/// What a server says to these probes.
fn answers(scene: &Scene, user: As, probes: &[(&str, String)], mode: SandboxMode, allow: &[Allowance]) -> Vec<String> {
    let script: String = probes.iter().map(|(name, probe)| asked(name, probe)).collect();
    let mut server = scene.server(mode, &script);
    if mode != SandboxMode::None {
        server.sandbox.network = Some(true);
        server.sandbox.allow = allow.to_vec();
    }
    run(server, user).stdout.lines().map(str::to_owned).collect()
}

/// The same answer to all.
fn all(probes: &[(&str, String)], answer: &str) -> Vec<String> {
    probes.iter().map(|(name, _)| format!("{name}: {answer}")).collect()
}

#[test]
fn a_server_listens_on_no_port_of_its_choice() {
    if kernel().landlock < 4 {
        return;
    }
    for user in As::all() {
        let scene = Scene::new();
        // Somebody of the same user who shares the port with whoever wants to.
        let shared =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
        rustix::net::sockopt::set_socket_reuseport(&shared, true).unwrap();
        rustix::net::bind(&shared, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        rustix::net::listen(&shared, 1).unwrap();
        let shared = TcpListener::from(shared);
        let port = free_port();
        let mut probes = vec![
            ("IPv4", listens("127.0.0.1", port, 0, "")),
            ("IPv6", listens("::1", port, 0, V6ONLY)),
            ("both", listens("::", port, 0, "")),
            ("every address", listens("0.0.0.0", port, 0, "")),
            ("another of the loopback", listens("127.0.0.2", port, 0, "")),
        ];
        if user == As::Tester {
            probes.push(("shared", listens("127.0.0.1", shared.local_addr().unwrap().port(), 0, REUSEPORT)));
        }
        assert_eq!(answers(&scene, user, &probes, SandboxMode::None, &[]), all(&probes, "yes"), "{user:?}");
        for mode in SANDBOXED {
            assert_eq!(answers(&scene, user, &probes, mode, &[]), all(&probes, "no"), "{user:?} {mode:?}");
            let allow = [Allowance::Listen];
            assert_eq!(answers(&scene, user, &probes, mode, &allow), all(&probes, "yes"), "{user:?} {mode:?}");
        }
    }
}

/// That the kernel chooses from a range of one port, which is in the range of all.
fn range_of_one(port: u16) -> String {
    format!("setsockopt($s, 0, 51, pack(\"L\", {port} * 65537)) or exit 1; my $chosen = 1")
}

#[test]
fn a_server_does_not_narrow_what_the_kernel_chooses_from() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let is_free = |port: &u16| ["127.0.0.1", "::1"].iter().all(|ip| TcpListener::bind((*ip, *port)).is_ok());
    let start = first + u16::try_from(std::process::id() % 2000).unwrap();
    let port = (start..start + 200).find(is_free).unwrap();
    let probes = [
        ("IPv4", listens("127.0.0.1", 0, 0, &range_of_one(port))),
        ("IPv6", listens("::1", 0, 0, &range_of_one(port))),
    ];
    for user in As::all() {
        let scene = Scene::new();
        let without = answers(&scene, user, &probes, SandboxMode::None, &[]);
        // Before Linux 6.3 there is no such range.
        assert!(without == all(&probes, "yes") || without == all(&probes, "no"), "{without:?}");
        for mode in SANDBOXED {
            assert_eq!(answers(&scene, user, &probes, mode, &[]), all(&probes, "no"), "{user:?} {mode:?}");
        }
    }
}

#[test]
fn a_server_listens_where_the_kernel_chooses() {
    let unbound = "perl -MSocket=:all -e 'socket($s, AF_INET, SOCK_STREAM, 0) && listen($s, 1) or exit 1'";
    let datagrams = "perl -MSocket=:all -e 'socket($s, AF_INET, SOCK_DGRAM, 0) && bind($s, pack_sockaddr_in(0, \
                     INADDR_LOOPBACK)) or exit 1'";
    let probes = [
        ("IPv4", listens("127.0.0.1", 0, 0, "")),
        ("IPv6", listens("::1", 0, 0, "")),
        ("by name", listens("127.0.0.1", 0, libc::IPPROTO_TCP, "")),
        ("unbound", unbound.to_owned()),
        ("datagrams", datagrams.to_owned()),
    ];
    for user in As::all() {
        for mode in SandboxMode::ALL {
            let said = answers(&Scene::new(), user, &probes, mode, &[]);
            assert_eq!(said, all(&probes, "yes"), "{user:?} {mode:?}");
        }
    }
}

#[test]
fn no_protocol_listens_on_the_ports_of_tcp_unseen() {
    /// `AF_SMC`, and its number as a protocol; SCTP, DCCP and UDP-Lite.
    const SMC: (i32, i32) = (43, 256);
    let socket = |family: i32, kind: i32, protocol: i32| {
        format!("perl -e 'exit(syscall({}, {family}, {kind}, {protocol}) < 0)'", libc::SYS_socket)
    };
    let port = free_port();
    let probes = [
        ("MPTCP", listens("127.0.0.1", port, MPTCP, "")),
        ("MPTCP over IPv6", listens("::1", port, MPTCP, V6ONLY)),
        ("MPTCP where the kernel chooses", listens("127.0.0.1", 0, MPTCP, "")),
        ("SMC", socket(SMC.0, libc::SOCK_STREAM, 0)),
        ("SMC over IPv6", socket(SMC.0, libc::SOCK_STREAM, 1)),
        ("SMC as a protocol", socket(libc::AF_INET, libc::SOCK_STREAM, SMC.1)),
        ("SCTP", socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP)),
        ("packets of SCTP", socket(libc::AF_INET6, libc::SOCK_SEQPACKET, 0)),
        ("DCCP", socket(libc::AF_INET, libc::SOCK_DCCP, 0)),
        ("UDP-Lite", socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
        ("raw", socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_TCP)),
        ("frames", socket(libc::AF_PACKET, libc::SOCK_DGRAM, 0)),
        ("machines", socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
        ("events of the kernel", socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_KOBJECT_UEVENT)),
        ("list of all sockets", socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_INET_DIAG)),
        ("talk of programs", socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_USERSOCK)),
    ];
    let flags = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    let everyday = [
        ("stream", socket(libc::AF_INET6, flags, 0)),
        ("datagram", socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP)),
        ("routes", socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0)),
    ];
    for user in As::all() {
        let scene = Scene::new();
        let without = answers(&scene, user, &probes, SandboxMode::None, &[]);
        // The machine may lack the others.
        for name in ["events of the kernel", "talk of programs"] {
            assert!(without.contains(&format!("{name}: yes")), "{user:?} {without:?}");
        }
        for mode in SANDBOXED {
            assert_eq!(answers(&scene, user, &probes, mode, &[]), all(&probes, "no"), "{user:?} {mode:?}");
            assert_eq!(answers(&scene, user, &everyday, mode, &[]), all(&everyday, "yes"), "{user:?} {mode:?}");
        }
    }
}

#[tokio::test]
async fn nobody_listens_beside_a_gateway_on_loopback() {
    let gateway = Gateway::start(fixture("echo")).await;
    let port = gateway.address.port();
    // Who looks for it under the other address of "localhost" finds it.
    let other = Caller::new((Ipv6Addr::LOCALHOST, port).into());
    assert_eq!(other.send(Request::get("/healthz")).await.status, 200);
    let probes = [
        ("IPv6", listens("::1", port, 0, V6ONLY)),
        ("every address of IPv6", listens("::", port, 0, V6ONLY)),
        ("every address", listens("0.0.0.0", port, 0, "")),
        ("shared", listens("::1", port, 0, REUSEPORT)),
    ];
    // Not even without a sandbox.
    for user in As::all() {
        let scene = Scene::new();
        assert_eq!(answers(&scene, user, &probes, SandboxMode::None, &[]), all(&probes, "no"), "{user:?}");
    }
    gateway.finish().await;
}

//! Binds a port for IPv4 and IPv6. Invariant: if clients may reach the gateway under a name such as `localhost`, no
//! other program can bind the port under the address of the other family and receive the clients' keys.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use futures_util::future::OptionFuture;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, TcpStream};

/// The number of connections that may wait in the kernel to be accepted.
const BACKLOG: i32 = 1024;
/// The number of ports that are tried if the kernel chooses a port that is taken in the other family.
const TRIES: usize = 64;

/// The sockets that hold a port.
#[derive(Debug)]
pub(super) struct Bound {
    /// The configured address, with the actual port.
    pub(super) address: SocketAddr,
    /// Accepts connections on the configured address.
    asked: TcpListener,
    /// Accepts connections on the loopback address of the other family.
    beside: Option<TcpListener>,
    /// Reserves the port in the other family without serving it.
    _kept: Option<OwnedFd>,
}

impl Bound {
    /// Waits for the next connection on either served address. Returns it with the address of the peer.
    pub(super) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        tokio::select! {
            accepted = self.asked.accept() => accepted,
            Some(accepted) = OptionFuture::from(self.beside.as_ref().map(TcpListener::accept)) => accepted,
        }
    }
}

/// The address of the other family under which the port is bound too, and whether the port is served there. A loopback
/// address is served in both families. With all addresses of IPv4, the port is reserved under all addresses of IPv6 and
/// not served there. `None` for all addresses of IPv6, whose socket serves both families, and for a single address.
fn other(address: IpAddr) -> Option<(IpAddr, bool)> {
    match address {
        IpAddr::V4(Ipv4Addr::LOCALHOST) => Some((Ipv6Addr::LOCALHOST.into(), true)),
        IpAddr::V6(Ipv6Addr::LOCALHOST) => Some((Ipv4Addr::LOCALHOST.into(), true)),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some((Ipv6Addr::UNSPECIFIED.into(), false)),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

/// Binds an address, and the port in the other family where [`other`] names an address. If the system chooses the port
/// (port 0), up to [`TRIES`] ports are tried.
///
/// # Errors
/// The address that could not be bound, and the error of the system.
pub(super) fn bind(address: SocketAddr) -> Result<Bound, (SocketAddr, io::Error)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        match bind_once(address) {
            Err((_, error)) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
            result => return result,
        }
    }
}

fn bind_once(address: SocketAddr) -> Result<Bound, (SocketAddr, io::Error)> {
    let failed = |address| move |error| (address, error);
    let listener = socket(address, true).and_then(listen).map_err(failed(address))?;
    let address = listener.local_addr().map_err(failed(address))?;
    let mut bound = Bound { address, asked: listener, beside: None, _kept: None };
    let Some((other, is_served)) = other(address.ip()) else { return Ok(bound) };
    let other = SocketAddr::new(other, address.port());
    match socket(other, is_served) {
        Ok(socket) if is_served => bound.beside = Some(listen(socket).map_err(failed(other))?),
        Ok(socket) => bound._kept = Some(socket),
        Err(error) => match Errno::from_io_error(&error) {
            // A machine without this family, or a container without its loopback: no other program has the address
            // either.
            Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL | Errno::PROTONOSUPPORT) => {}
            _ => return Err((other, error)),
        },
    }
    Ok(bound)
}

/// A bound TCP socket. A socket to be served (`is_served`) may take a port on which connections of an earlier process
/// are still closing, and serves both families if the address is that of all IPv6 addresses. A socket that only
/// reserves a port shares the port with no other socket.
fn socket(address: SocketAddr, is_served: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&socket, is_served)?;
    if address.is_ipv6() {
        // The default of the machine does not matter.
        sockopt::set_ipv6_v6only(&socket, !(is_served && address.ip().is_unspecified()))?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}

fn listen(socket: OwnedFd) -> io::Result<TcpListener> {
    rustix::net::listen(&socket, BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Whether another program could bind this address.
    fn is_free(address: SocketAddr) -> bool {
        std::net::TcpListener::bind(address).is_ok()
    }

    fn bound(address: &str) -> (Bound, u16) {
        let bound = bind(address.parse().unwrap()).unwrap();
        let port = bound.address.port();
        (bound, port)
    }

    #[tokio::test]
    async fn a_port_on_loopback_is_served_in_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let (bound, port) = bound(address);
            for address in ["127.0.0.1", "::1"] {
                let connected = std::net::TcpStream::connect((address, port)).unwrap();
                let (_, peer) = bound.accept().await.unwrap();
                assert_eq!(peer, connected.local_addr().unwrap());
            }
            for address in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
                assert!(!is_free(SocketAddr::new(address.parse().unwrap(), port)), "{address}");
            }
        }
    }

    #[tokio::test]
    async fn a_port_on_all_addresses_is_nobody_elses_in_either_family() {
        for (address, serves_both) in [("0.0.0.0:0", false), ("[::]:0", true)] {
            let (_bound, port) = bound(address);
            for address in ["127.0.0.1", "::1", "0.0.0.0", "::"] {
                assert!(!is_free(SocketAddr::new(address.parse().unwrap(), port)), "{address}");
            }
            let connected = std::net::TcpStream::connect(("::1", port));
            assert_eq!(connected.is_ok(), serves_both, "{address}");
            assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "{address}");
        }
    }

    #[tokio::test]
    async fn a_port_that_somebody_has_in_the_other_family_is_an_error_that_names_it() {
        let other = std::net::TcpListener::bind("[::1]:0").unwrap();
        let address = other.local_addr().unwrap();
        let (failed, error) = bind(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())).unwrap_err();
        assert_eq!((failed, error.kind()), (address, io::ErrorKind::AddrInUse));
    }
}

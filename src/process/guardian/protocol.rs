//! The packets between gateway and guardian, and the socket that carries them. A packet is JSON of at most
//! [`MAX_PACKET`] bytes with at most one descriptor, and contains no secret.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::sleep;

use crate::process::cgroup::LimitOwner;
use crate::process::descriptors;
use crate::process::exit::Signal;
use crate::process::limits::ProcessLimits;

/// Largest packet, in bytes.
const MAX_PACKET: usize = 1024;
/// Time until a send or receive is repeated that the system had no resources for.
const AGAIN: Duration = Duration::from_millis(10);

/// A request of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start the stage for child `id`, in the cgroup of `tenant` if one is given.
    Launch { id: u64, tenant: Option<String> },
    /// Keep the record of processes in the file whose descriptor comes with this packet.
    Record,
    /// Answer health checks: send back each byte that comes on the connected socket whose descriptor comes with this
    /// packet.
    HealthCheck,
    /// Set the limits of each process of child `id`.
    Limit { id: u64, limits: ProcessLimits },
    /// Send a signal to child `id`: to its process group and to the child itself; [`Signal::Kill`] also kills
    /// everything in its cgroup. Ignored if the child is reaped.
    Signal { id: u64, signal: Signal },
}

impl Request {
    /// The child that the request is about, if it is about one.
    pub(super) fn id(&self) -> Option<u64> {
        match self {
            Self::Launch { id, .. } | Self::Limit { id, .. } | Self::Signal { id, .. } => Some(*id),
            Self::Record | Self::HealthCheck => None,
        }
    }
}

/// A report of the guardian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The stage of child `id` runs as process `pid`, which becomes the child. The other end of the stage's stdin comes
    /// with this packet.
    Started { id: u64, pid: i32 },
    /// The process ids of all stages that wait for a child.
    Ready { pids: Vec<i32> },
    /// The stage of child `id` could not be started. This is the last report about the child.
    Failed { id: u64, errno: i32 },
    /// Child `id` is reaped, and its group and orphans are gone or have outlived SIGKILL for two seconds. `status` is
    /// the wait status. `memory` tells whose memory limit the kernel ended the child for. This is the last report about
    /// the child.
    Exited { id: u64, status: i32, memory: Option<LimitOwner> },
}

/// One end of the socket.
pub(super) struct PacketSocket(UnixDatagram);

impl PacketSocket {
    /// Makes the gateway's end, and the guardian's end for its stdin. An exec closes both.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Wraps an end of the socket.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // tokio has no type for sequenced packets. The one for datagrams does what is needed: it waits for readiness,
        // and each call here makes its own system calls.
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket).map(Self)
    }

    /// Sends one packet, with the descriptor `with` if it is given. Cancel-safe: a packet is sent whole or not at all.
    pub(super) async fn send(&self, packet: &impl Serialize, with: Option<&OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(packet)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::other(format!("a packet of {} bytes is over {MAX_PACKET}", bytes.len())));
        }
        let with: Vec<_> = with.map(|with| with.as_fd()).into_iter().collect();
        loop {
            match self.0.async_io(Interest::WRITABLE, || Ok(descriptors::send(&self.0, &bytes, &with)?)).await {
                Err(error) if is_passing(&error) => sleep(AGAIN).await,
                sent => return sent.map(drop),
            }
        }
    }

    /// Receives one packet and the descriptor that came with it. `None` when the other end is closed. Cancel-safe.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = [0; MAX_PACKET];
        let received = loop {
            match self.0.async_io(Interest::READABLE, || Ok(descriptors::receive(&self.0, &mut bytes)?)).await {
                Err(error) if is_passing(&error) => sleep(AGAIN).await,
                received => break received,
            }
        };
        let (length, descriptors) = match received {
            Ok((0, _)) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            received => received?,
        };
        let packet = serde_json::from_slice(bytes.get(..length).unwrap_or_default())?;
        Ok(Some((packet, descriptors.into_iter().next())))
    }
}

/// Whether the system is short of a resource for a moment. Such an error must not close the socket, because that would
/// end all children.
fn is_passing(error: &io::Error) -> bool {
    // TOOMANYREFS: more descriptors are on their way between processes than this user may have, perhaps those of a
    // child.
    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::TOOMANYREFS | Errno::INTR)
    )
}

//! The socket between gateway and guardian: small packets, each whole, each with at most one descriptor. A packet is
//! JSON of at most [`MAX_PACKET`] bytes, and carries no secret.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::sleep;

use crate::process::cgroup::LimitOwner;
use crate::process::exit::Signal;
use crate::process::limits::ProcessLimits;

/// Stages that wait for a child to become.
pub(super) const READY: usize = 2;
/// The largest packet, in bytes.
const MAX_PACKET: usize = 1024;
/// How soon is tried again what the system had no room for.
const AGAIN: Duration = Duration::from_millis(10);

/// What the gateway asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Start a stage; in the cgroup of a tenant, if one is named.
    Launch { id: u64, tenant: Option<String> },
    /// Keep the record in the file that comes with this.
    Record,
    /// Say that you are there on the socket that comes with this, whenever you are asked on it.
    HealthCheck,
    /// Set limits of each process of a child.
    Limit { id: u64, limits: ProcessLimits },
    /// Send a signal to a child's group.
    Signal { id: u64, signal: Signal },
}

impl Request {
    /// The child that it is about.
    pub(super) fn id(&self) -> Option<u64> {
        match self {
            Self::Launch { id, .. } | Self::Limit { id, .. } | Self::Signal { id, .. } => Some(*id),
            Self::Record | Self::HealthCheck => None,
        }
    }
}

/// What the guardian says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The stage runs; its process id becomes the child's. With this comes the other end of its stdin.
    Started { id: u64, pid: i32 },
    /// Stages that wait for a child to become, all of them.
    Ready { pids: [Option<i32>; READY] },
    /// The stage could not be started, with the system's error number. Nothing more will be said of this child.
    Failed { id: u64, errno: i32 },
    /// The leader has ended, its group was killed, it is reaped, and what it left has ended too. The status is as `wait` gives it; `memory` says whose
    /// limit on memory the kernel has ended it for.
    Exited { id: u64, status: i32, memory: Option<LimitOwner> },
}

/// One end of the socket.
pub(super) struct PacketSocket(UnixDatagram);

impl PacketSocket {
    /// The gateway's end, and the other, for the guardian's stdin. Both are closed by an exec.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// An end that exists already.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Self> {
        // tokio has no type for sequenced packets. The one for datagrams does what is needed: it waits for readiness,
        // and each call here makes its own system calls.
        let socket = std::os::unix::net::UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        UnixDatagram::from_std(socket).map(Self)
    }

    /// Sends one packet. Cancel-safe: it is sent whole or not at all.
    pub(super) async fn send(&self, packet: &impl Serialize, with: Option<&OwnedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(packet)?;
        if bytes.len() > MAX_PACKET {
            return Err(io::Error::other(format!("a packet of {} bytes is over {MAX_PACKET}", bytes.len())));
        }
        loop {
            match self.0.async_io(Interest::WRITABLE, || Ok(send(&self.0, &bytes, with)?)).await {
                Err(error) if is_passing(&error) => sleep(AGAIN).await,
                sent => return sent,
            }
        }
    }

    /// Receives one packet; `None` when the other end is closed. Cancel-safe.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = [0; MAX_PACKET];
        let received = loop {
            match self.0.async_io(Interest::READABLE, || Ok(receive(&self.0, &mut bytes)?)).await {
                Err(error) if is_passing(&error) => sleep(AGAIN).await,
                received => break received,
            }
        };
        let (length, descriptor) = match received {
            Ok((0, _)) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            received => received?,
        };
        Ok(Some((serde_json::from_slice(bytes.get(..length).unwrap_or_default())?, descriptor)))
    }
}

/// Whether the system has just no room for something. The end of the link is that of all children; this is no reason for it.
fn is_passing(error: &io::Error) -> bool {
    let passing = [
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::NOBUFS,
        // More descriptors are on their way between processes than this user may have: it may be a child that sends them.
        Errno::TOOMANYREFS,
        Errno::INTR,
    ];
    passing.map(Errno::raw_os_error).map(Some).contains(&error.raw_os_error())
}

fn send(socket: impl AsFd, bytes: &[u8], with: Option<&OwnedFd>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = with.iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

fn receive(socket: impl AsFd, bytes: &mut [u8]) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut slices = [IoSliceMut::new(bytes)];
    let received = rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok((received.bytes, descriptor))
}

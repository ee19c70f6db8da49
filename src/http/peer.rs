//! The other end of a connection.

use std::net::IpAddr;

use super::connection_memory::ConnectionMemory;
use super::connection_table::Place;

/// The other end of one connection: a client, or a proxy of clients.
#[derive(Debug)]
pub struct Peer {
    /// The address, never an IPv4 address mapped into IPv6.
    pub address: IpAddr,
    /// What the connection is charged for; `None` for one that is not charged. Dropped before `place`: whoever gets the
    /// place finds the memory given back.
    pub memory: Option<ConnectionMemory>,
    /// The place of the connection among those of its listener.
    pub place: Place,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::super::connection_memory::room;
    use super::super::connection_table::ConnectionTable;
    use super::super::limits::Room;
    use super::super::network::Network;
    use super::*;
    use crate::memory::Memory;

    #[tokio::test]
    async fn who_is_told_of_a_free_place_finds_the_memory_of_the_connection_free() {
        let (memory, table, address) = (Memory::new(1 << 20), Arc::<ConnectionTable>::default(), [192, 0, 2, 1].into());
        assert_eq!(room(&memory), 1);
        let open = || ConnectionMemory::open(&memory, Network::of(address));
        let place = table.claim(Network::of(address), true, &Room { most: 1, reserve: 0, most_per_address: None });
        let peer = Peer { address, memory: open().ok(), place: place.unwrap() };
        let mut waiting = std::pin::pin!(table.try_within(Duration::from_secs(60), open));
        assert!(waiting.as_mut().now_or_never().is_none(), "there is no room");
        drop(peer);
        assert!(waiting.now_or_never().is_some_and(|charged| charged.is_ok()));
    }
}

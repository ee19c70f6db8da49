//! Counts the requests in flight that come through trusted proxies, by client. Invariant: a client holds no more of
//! them than are left for the others, as with connections of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;

use super::limits::Room;
use super::network::Network;

/// The requests in flight that came through trusted proxies. A stream counts for as long as it is open.
#[derive(Debug, Default)]
pub struct ForwardedRequests(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_client: HashMap<Network, usize>,
}

/// One request in flight, until the value is dropped.
#[derive(Debug)]
pub struct ForwardedRequest {
    requests: Arc<ForwardedRequests>,
    client: Network,
}

impl ForwardedRequests {
    /// Counts a request of a client. `None` if the client has as many in flight as are left for the others, or as many
    /// as one address may have connections.
    pub fn begin(self: &Arc<Self>, client: Network, room: &Room) -> Option<ForwardedRequest> {
        let mut counts = self.0.lock();
        let own = counts.by_client.get(&client).copied().unwrap_or_default();
        let left = room.most.saturating_sub(counts.all);
        if own >= room.most_per_address.unwrap_or(usize::MAX).min(left) {
            return None;
        }
        counts.all += 1;
        counts.by_client.insert(client, own + 1);
        Some(ForwardedRequest { requests: Arc::clone(self), client })
    }
}

impl Drop for ForwardedRequest {
    fn drop(&mut self) {
        let mut counts = self.requests.0.lock();
        counts.all -= 1;
        if let Entry::Occupied(mut own) = counts.by_client.entry(self.client) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_no_more_in_flight_than_it_leaves_to_the_others() {
        let requests = Arc::<ForwardedRequests>::default();
        let room = Room { most: 16, reserve: 2, most_per_address: None };
        let hold = |last: u8, room: &Room| {
            let client = Network::of([192, 0, 2, last].into());
            std::iter::from_fn(|| requests.begin(client, room)).collect::<Vec<_>>()
        };
        let first = hold(1, &room);
        let (second, third) = (hold(2, &room), hold(3, &Room { most_per_address: Some(1), ..room }));
        assert_eq!((first.len(), second.len(), third.len()), (8, 4, 1));
        drop((first, second, third));
        let counts = requests.0.lock();
        assert!(counts.all == 0 && counts.by_client.is_empty());
    }
}

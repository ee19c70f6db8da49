//! Who holds the connections of a listener. Invariant: no network, no tenant, and nobody without a credential, keeps a
//! newcomer out. A connection is kept if a request was authenticated on it and its tenant has fewer kept than are left
//! for the others. All others make way: first the oldest of the network that holds most of them.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::limits::Room;
use super::network::Network;
use crate::config::TenantId;

/// The open connections of one listener, by network.
#[derive(Debug, Default)]
pub struct ConnectionTable {
    table: Mutex<Table>,
    /// Tells those who wait that a place has been given back.
    freed: Notify,
}

#[derive(Debug, Default)]
struct Table {
    /// The number of the next connection. Older connections have smaller numbers.
    next: u64,
    /// The number of connections that are kept.
    kept: usize,
    /// The number of other connections.
    passing: usize,
    holders: HashMap<Network, Holder>,
    /// The number of kept connections of each tenant, without those of exempt networks.
    tenants: HashMap<TenantId, usize>,
    /// The holders of connections that make way, by their rank. The last is the one that makes way first.
    ranking: BTreeSet<(Rank, Network)>,
}

/// The number of connections of a holder that make way, and the number of the oldest of them: the holder of more
/// makes way first, and of two with as many the one with the older connection.
type Rank = (usize, Reverse<u64>);

/// The connections of one network.
#[derive(Debug, Default)]
struct Holder {
    /// The connections that are kept, each with the tenant whose share it counts in.
    kept: BTreeMap<u64, Option<TenantId>>,
    /// The other connections, each with the token that ends it.
    passing: BTreeMap<u64, CancellationToken>,
}

/// The reason why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// All places are held by connections that are kept.
    All,
    /// The network holds as many connections as are left for the others, or as many as the configuration allows, and each
    /// of them is kept.
    Share,
}

/// The place of one connection in the table. Dropping the value gives the place back.
#[derive(Debug)]
pub struct Place {
    table: Arc<ConnectionTable>,
    network: Network,
    number: u64,
    /// The largest number of connections.
    most: usize,
    /// Whether the network stands for many, so that its connections count in the share of no tenant.
    is_exempt: bool,
    is_kept: AtomicBool,
    /// Cancelled when the place has been given to another connection, and this one has to end.
    makes_way: CancellationToken,
}

impl ConnectionTable {
    /// Takes a place for a connection from a network, if need be that of another connection, which is told to end. With
    /// `is_exempt` the network has no share of its own, and may hold all that is there.
    ///
    /// # Errors
    /// There is no place, and no connection that would have to make way.
    pub fn claim(self: &Arc<Self>, network: Network, is_exempt: bool, room: &Room) -> Result<Place, NoRoom> {
        let (number, makes_way) = self.table.lock().claim(network, is_exempt, room)?;
        let table = Arc::clone(self);
        Ok(Place { table, network, number, most: room.most, is_exempt, is_kept: AtomicBool::new(false), makes_way })
    }

    /// Calls `attempt` until it succeeds: now, and whenever a connection has given its place back, for at most `time`. A
    /// client may have closed one of its connections just before it opens the next.
    ///
    /// # Errors
    /// The last error of `attempt` in that time.
    pub async fn try_within<T, E>(&self, time: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
        let until = Instant::now() + time;
        loop {
            let freed = self.freed.notified();
            let result = attempt();
            if result.is_ok() || timeout_at(until, freed).await.is_err() {
                return result;
            }
        }
    }

    /// Ends the connection that is the next to make way, if there is one: there is room in the table, but the process
    /// has no descriptors left.
    pub fn make_way(&self) {
        let mut table = self.table.lock();
        if let Some(network) = table.first_to_go() {
            table.end_oldest(network);
        }
    }
}

impl Table {
    fn claim(&mut self, network: Network, is_exempt: bool, room: &Room) -> Result<(u64, CancellationToken), NoRoom> {
        let (kept, passing) = self.holders.get(&network).map_or((0, 0), Holder::counts);
        // The connections of others that are not kept make way, so what they hold is left.
        let left = room.most.saturating_sub(self.kept + passing);
        let share = room.most_per_address.unwrap_or(usize::MAX).min(left);
        let is_full = self.passing >= room.most - room.reserve || self.kept + self.passing >= room.most;
        if !is_exempt && kept + passing >= share {
            if !self.end_oldest(network) {
                return Err(if left == 0 { NoRoom::All } else { NoRoom::Share });
            }
        } else if is_full {
            let first = self.first_to_go().ok_or(NoRoom::All)?;
            // With one connection more, the newcomer's own network may be the one that holds most.
            let most = self.holders.get(&first).map_or(0, |holder| holder.passing.len());
            self.end_oldest(if passing + 1 > most && passing > 0 { network } else { first });
        }
        let number = self.next;
        self.next += 1;
        let token = CancellationToken::new();
        self.passing += 1;
        self.change(network, |holder| holder.passing.insert(number, token.clone()));
        Ok((number, token))
    }

    /// The network whose oldest connection makes way first.
    fn first_to_go(&self) -> Option<Network> {
        self.ranking.last().map(|(_, network)| *network)
    }

    /// Ends the oldest connection of a network that is not kept. `false` if there is none.
    fn end_oldest(&mut self, network: Network) -> bool {
        let Some((_, token)) = self.change(network, |holder| holder.passing.pop_first()) else { return false };
        self.passing -= 1;
        token.cancel();
        true
    }

    /// Keeps a connection, in the share of a tenant if there is one. `false` if it has had to make way, or the tenant has
    /// as many connections kept as are left for the others, of `most`.
    fn keep(&mut self, network: Network, number: u64, tenant: Option<&TenantId>, most: usize) -> bool {
        let own = tenant.and_then(|tenant| self.tenants.get(tenant)).copied().unwrap_or_default();
        if tenant.is_some() && own >= most.saturating_sub(self.kept) {
            return false;
        }
        let is_there = self.change(network, |holder| {
            let is_there = holder.passing.remove(&number).is_some();
            is_there && holder.kept.insert(number, tenant.cloned()).is_none()
        });
        if is_there {
            self.passing -= 1;
            self.kept += 1;
            if let Some(tenant) = tenant {
                self.tenants.insert(tenant.clone(), own + 1);
            }
        }
        is_there
    }

    fn remove(&mut self, network: Network, number: u64) {
        let (passing, kept) =
            self.change(network, |holder| (holder.passing.remove(&number).is_some(), holder.kept.remove(&number)));
        self.passing -= usize::from(passing);
        self.kept -= usize::from(kept.is_some());
        if let Some(Entry::Occupied(mut own)) = kept.flatten().map(|tenant| self.tenants.entry(tenant)) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }

    /// Changes a holder, and keeps the ranking in step.
    fn change<T>(&mut self, network: Network, change: impl FnOnce(&mut Holder) -> T) -> T {
        let holder = self.holders.entry(network).or_default();
        let before = holder.rank();
        let result = change(holder);
        let after = holder.rank();
        let is_empty = after.is_none() && holder.kept.is_empty();
        if let Some(rank) = before {
            self.ranking.remove(&(rank, network));
        }
        self.ranking.extend(after.map(|rank| (rank, network)));
        if is_empty {
            self.holders.remove(&network);
        }
        result
    }
}

impl Holder {
    fn counts(&self) -> (usize, usize) {
        (self.kept.len(), self.passing.len())
    }

    fn rank(&self) -> Option<Rank> {
        let (oldest, _) = self.passing.first_key_value()?;
        Some((self.passing.len(), Reverse(*oldest)))
    }
}

impl Place {
    /// Notes that a request of a tenant was authenticated on the connection. The connection does not have to make way
    /// any more, if the tenant has fewer such connections than are left for the others.
    pub fn authenticate(&self, tenant: &TenantId) {
        if !self.is_kept.load(Ordering::Relaxed) {
            let tenant = (!self.is_exempt).then_some(tenant);
            // Requests of HTTP/2 come at the same time: what one of them has noted stays.
            if self.table.table.lock().keep(self.network, self.number, tenant, self.most) {
                self.is_kept.store(true, Ordering::Relaxed);
            }
        }
    }

    /// The token that is cancelled when the connection has to make way for another one.
    pub fn makes_way(&self) -> CancellationToken {
        self.makes_way.clone()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.table.table.lock().remove(self.network, self.number);
        self.table.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn network(number: u8) -> Network {
        Network::of([192, 0, 2, number].into())
    }

    const ROOM: Room = Room { most: 16, reserve: 2, most_per_address: None };

    fn claim(table: &Arc<ConnectionTable>, number: u8) -> Result<Place, NoRoom> {
        table.claim(network(number), false, &ROOM)
    }

    fn tenant(number: u8) -> TenantId {
        format!("tenant-{number}").parse().unwrap()
    }

    fn gone(places: &[Place]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| place.makes_way.is_cancelled()).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_network_holds_no_more_than_it_leaves_to_the_others() {
        let table = Arc::default();
        let places: Vec<_> = (0..10).map(|_| claim(&table, 1).unwrap()).collect();
        assert_eq!(gone(&places), [0, 1], "8 of 16, and its own oldest make way");
        places.iter().for_each(|place| place.authenticate(&tenant(1)));
        assert_eq!(claim(&table, 1).unwrap_err(), NoRoom::Share);
        assert!(table.claim(network(1), true, &ROOM).is_ok(), "nothing is its share if it is exempt");
        let others: Vec<_> = (0..5).map(|_| claim(&table, 2).unwrap()).collect();
        assert_eq!(gone(&others), [0], "4 of 8");
        drop(places);
        assert!(claim(&table, 1).is_ok());
        let room = Room { most_per_address: Some(1), ..ROOM };
        let one = table.claim(network(3), false, &room).unwrap();
        let other = table.claim(network(3), false, &room).unwrap();
        assert!(one.makes_way.is_cancelled() && !other.makes_way.is_cancelled());
    }

    #[test]
    fn the_oldest_of_who_holds_most_makes_way_and_what_is_authenticated_stays() {
        let table = Arc::default();
        let kept = claim(&table, 100).unwrap();
        kept.authenticate(&tenant(1));
        let many: Vec<_> = (0..3).map(|_| claim(&table, 1).unwrap()).collect();
        let single: Vec<_> = (2..13).map(|number| claim(&table, number).unwrap()).collect();
        assert_eq!(gone(&many), [] as [usize; 0], "14 of 14");
        // Who has authenticated elsewhere needs another connection, and who is new its first.
        let more: Vec<_> = (0..2).map(|_| claim(&table, 100).unwrap()).collect();
        assert_eq!((gone(&many), gone(&single)), (vec![0, 1], vec![]));
        let newcomer = claim(&table, 200).unwrap();
        assert_eq!((gone(&more), gone(&many), gone(&single)), (vec![0], vec![0, 1], vec![]), "of two the oldest");
        let newcomers: Vec<_> = (201..205).map(|number| claim(&table, number).unwrap()).collect();
        assert_eq!((gone(&many), gone(&single)), (vec![0, 1, 2], vec![0, 1, 2]), "with one each, the oldest of all");
        assert!(!newcomer.makes_way.is_cancelled() && !kept.makes_way.is_cancelled());
        drop((many, single, more, newcomer, newcomers, kept));
        let table = table.table.lock();
        assert_eq!((table.kept, table.passing), (0, 0));
        assert!(table.holders.is_empty() && table.tenants.is_empty() && table.ranking.is_empty());
    }

    #[test]
    fn a_newcomer_is_refused_where_everything_is_kept() {
        let table = Arc::default();
        let table = &table;
        let hold = |number: u8| {
            (0..).map_while(move |_| claim(table, number).ok().inspect(|place| place.authenticate(&tenant(number))))
        };
        let all: Vec<_> = (1..10).flat_map(hold).collect();
        assert_eq!(all.len(), 16);
        assert_eq!(claim(table, 77).unwrap_err(), NoRoom::All);
        table.make_way();
        assert_eq!(gone(&all), [] as [usize; 0]);
    }

    #[test]
    fn a_tenant_with_many_addresses_has_no_more_kept_than_it_leaves_to_the_others() {
        let table = Arc::default();
        let take = |number: u8, of: u8| {
            let place = claim(&table, number).unwrap();
            place.authenticate(&tenant(of));
            place
        };
        let many: Vec<_> = (1..40).map(|number| take(number, 1)).collect();
        assert_eq!(many.len() - gone(&many).len(), 16, "all places");
        assert_eq!(table.table.lock().kept, 8, "half of 16");
        let other: Vec<_> = (0..2).map(|_| take(99, 2)).collect();
        let more: Vec<_> = (40..80).map(|number| take(number, 1)).collect();
        assert_eq!((gone(&other), table.table.lock().kept), (vec![], 10), "those of the other tenant stay");
        drop(many);
        let last = more.last().unwrap();
        last.authenticate(&tenant(1));
        assert!(last.is_kept.load(Ordering::Relaxed), "a later request finds room in the share");
    }

    proptest! {
        #[test]
        fn counts_and_ranking_agree_and_nobody_new_is_locked_out(
            steps in prop::collection::vec((0..3_u8, 0..6_u8, any::<prop::sample::Index>()), 1..200)
        ) {
            let table = Arc::<ConnectionTable>::default();
            let mut places: Vec<Place> = Vec::new();
            for (what, number, index) in steps {
                match what {
                    0 => places.extend(table.claim(network(number), number == 0, &ROOM)),
                    _ if places.is_empty() => {}
                    1 => places[index.index(places.len())].authenticate(&tenant(number)),
                    _ => drop(places.swap_remove(index.index(places.len()))),
                }
                places.retain(|place| !place.makes_way.is_cancelled());
                let table = table.table.lock();
                let sum = |of: fn(&Holder) -> usize| table.holders.values().map(of).sum::<usize>();
                prop_assert_eq!(sum(|holder| holder.kept.len()), table.kept);
                prop_assert_eq!(sum(|holder| holder.passing.len()), table.passing);
                prop_assert_eq!(table.kept + table.passing, places.len());
                prop_assert!(places.len() <= ROOM.most && table.passing <= ROOM.most - ROOM.reserve);
                prop_assert!(table.tenants.values().sum::<usize>() <= table.kept);
                prop_assert!(table.tenants.values().all(|own| (1..=ROOM.most / 2).contains(own)));
                let ranked: BTreeSet<_> =
                    table.holders.iter().filter_map(|(network, holder)| Some((holder.rank()?, *network))).collect();
                prop_assert_eq!(&ranked, &table.ranking);
            }
            if table.table.lock().kept < ROOM.most {
                prop_assert!(claim(&table, 99).is_ok());
            }
        }
    }
}

//! Who holds the connections of a listener. Invariant: no network, and nobody without a credential, keeps a newcomer
//! out for as long as there is a connection that nobody has authenticated on. That one makes way: the oldest of the
//! network that holds most of them.

use std::cmp::Reverse;
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
    /// The number of connections on which a request was authenticated.
    authenticated: usize,
    /// The number of other connections.
    unauthenticated: usize,
    holders: HashMap<Network, Holder>,
    /// The holders of unauthenticated connections, by their rank. The last is the one that makes way first.
    ranking: BTreeSet<(Rank, Network)>,
}

/// The number of unauthenticated connections of a holder, and the number of the oldest of them: the holder of more
/// makes way first, and of two with as many the one with the older connection.
type Rank = (usize, Reverse<u64>);

/// The connections of one network.
#[derive(Debug, Default)]
struct Holder {
    /// The connections on which a request was authenticated.
    authenticated: BTreeSet<u64>,
    /// The other connections, each with the token that ends it.
    unauthenticated: BTreeMap<u64, CancellationToken>,
}

/// The reason why a connection gets no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// All places are held by connections on which a request was authenticated.
    All,
    /// The network holds as many connections as are left for the others, or as many as the configuration allows, and a
    /// request was authenticated on each of them.
    Share,
}

/// The place of one connection in the table. Dropping the value gives the place back.
#[derive(Debug)]
pub struct Place {
    table: Arc<ConnectionTable>,
    network: Network,
    number: u64,
    is_authenticated: AtomicBool,
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
        Ok(Place { table, network, number, is_authenticated: AtomicBool::new(false), makes_way })
    }

    /// Like [`claim`](Self::claim), but waits for a place for at most `time`: a client may have closed one of its
    /// connections just before it opens the next.
    ///
    /// # Errors
    /// The reason for which there is no place after that time.
    pub async fn claim_within(
        self: &Arc<Self>,
        network: Network,
        is_exempt: bool,
        room: &Room,
        time: Duration,
    ) -> Result<Place, NoRoom> {
        self.try_within(time, || self.claim(network, is_exempt, room)).await
    }

    /// Calls `attempt` until it succeeds: now, and whenever a connection has given its place back, for at most `time`.
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
        // The unauthenticated connections of others make way, so what they hold is left.
        let left = room.most.saturating_sub(self.authenticated + passing);
        let share = room.most_per_address.unwrap_or(usize::MAX).min(left);
        let is_full =
            self.unauthenticated >= room.most - room.reserve || self.authenticated + self.unauthenticated >= room.most;
        if !is_exempt && kept + passing >= share {
            if !self.end_oldest(network) {
                return Err(if left == 0 { NoRoom::All } else { NoRoom::Share });
            }
        } else if is_full {
            let first = self.first_to_go().ok_or(NoRoom::All)?;
            // With one connection more, the newcomer's own network may be the one that holds most.
            let most = self.holders.get(&first).map_or(0, |holder| holder.unauthenticated.len());
            self.end_oldest(if passing + 1 > most && passing > 0 { network } else { first });
        }
        let number = self.next;
        self.next += 1;
        let token = CancellationToken::new();
        self.unauthenticated += 1;
        self.change(network, |holder| holder.unauthenticated.insert(number, token.clone()));
        Ok((number, token))
    }

    /// The network whose oldest unauthenticated connection makes way first.
    fn first_to_go(&self) -> Option<Network> {
        self.ranking.last().map(|(_, network)| *network)
    }

    /// Ends the oldest unauthenticated connection of a network. `false` if the network has none.
    fn end_oldest(&mut self, network: Network) -> bool {
        let Some((_, token)) = self.change(network, |holder| holder.unauthenticated.pop_first()) else { return false };
        self.unauthenticated -= 1;
        token.cancel();
        true
    }

    /// Notes that a request was authenticated. Without effect if the connection has had to make way.
    fn authenticate(&mut self, network: Network, number: u64) {
        let is_there = self.change(network, |holder| {
            let is_there = holder.unauthenticated.remove(&number).is_some();
            is_there && holder.authenticated.insert(number)
        });
        if is_there {
            self.unauthenticated -= 1;
            self.authenticated += 1;
        }
    }

    fn remove(&mut self, network: Network, number: u64) {
        let (passing, kept) = self.change(network, |holder| {
            (holder.unauthenticated.remove(&number).is_some(), holder.authenticated.remove(&number))
        });
        self.unauthenticated -= usize::from(passing);
        self.authenticated -= usize::from(kept);
    }

    /// Changes a holder, and keeps the ranking in step.
    fn change<T>(&mut self, network: Network, change: impl FnOnce(&mut Holder) -> T) -> T {
        let holder = self.holders.entry(network).or_default();
        let before = holder.rank();
        let result = change(holder);
        let after = holder.rank();
        let is_empty = after.is_none() && holder.authenticated.is_empty();
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
        (self.authenticated.len(), self.unauthenticated.len())
    }

    fn rank(&self) -> Option<Rank> {
        let (oldest, _) = self.unauthenticated.first_key_value()?;
        Some((self.unauthenticated.len(), Reverse(*oldest)))
    }
}

impl Place {
    /// Notes that a request on the connection was authenticated. The connection does not have to make way any more.
    pub fn authenticate(&self) {
        if !self.is_authenticated.load(Ordering::Relaxed) && !self.is_authenticated.swap(true, Ordering::Relaxed) {
            self.table.table.lock().authenticate(self.network, self.number);
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

    fn gone(places: &[Place]) -> Vec<usize> {
        places.iter().enumerate().filter(|(_, place)| place.makes_way.is_cancelled()).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_network_holds_no_more_than_it_leaves_to_the_others() {
        let table = Arc::default();
        let places: Vec<_> = (0..10).map(|_| claim(&table, 1).unwrap()).collect();
        assert_eq!(gone(&places), [0, 1], "8 of 16, and its own oldest make way");
        places.iter().for_each(Place::authenticate);
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
        kept.authenticate();
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
        assert_eq!((table.authenticated, table.unauthenticated), (0, 0));
        assert!(table.holders.is_empty() && table.ranking.is_empty());
    }

    #[test]
    fn a_newcomer_is_refused_where_everything_is_authenticated() {
        let table = Arc::default();
        let table = &table;
        let hold = |number: u8| (0..).map_while(move |_| claim(table, number).ok().inspect(Place::authenticate));
        let all: Vec<_> = (1..10).flat_map(hold).collect();
        assert_eq!(all.len(), 16);
        assert_eq!(claim(table, 77).unwrap_err(), NoRoom::All);
        table.make_way();
        assert_eq!(gone(&all), [] as [usize; 0]);
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
                    1 => places[index.index(places.len())].authenticate(),
                    _ => drop(places.swap_remove(index.index(places.len()))),
                }
                places.retain(|place| !place.makes_way.is_cancelled());
                let table = table.table.lock();
                let sum = |of: fn(&Holder) -> usize| table.holders.values().map(of).sum::<usize>();
                prop_assert_eq!(sum(|holder| holder.authenticated.len()), table.authenticated);
                prop_assert_eq!(sum(|holder| holder.unauthenticated.len()), table.unauthenticated);
                prop_assert_eq!(table.authenticated + table.unauthenticated, places.len());
                prop_assert!(places.len() <= ROOM.most && table.unauthenticated <= ROOM.most - ROOM.reserve);
                let ranked: BTreeSet<_> =
                    table.holders.iter().filter_map(|(network, holder)| Some((holder.rank()?, *network))).collect();
                prop_assert_eq!(&ranked, &table.ranking);
            }
            if table.table.lock().authenticated < ROOM.most {
                prop_assert!(claim(&table, 99).is_ok());
            }
        }
    }
}

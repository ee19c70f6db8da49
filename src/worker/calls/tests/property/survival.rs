//! Sessions outlive their children: one crashes, or retires beside its successor, and what it has granted a session is
//! asked of the next, by what the product takes for that. What the next grants, the session has then, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::super::super::LeaseId;
use super::super::model::{LEVELS, TIMEOUT, What};
use super::client::{replay_id, replayed};
use super::{SESSIONS, Seen, World};
use crate::stream::Exchange;
use crate::worker::Negotiated;
use crate::worker::calls::Standing;
use crate::worker::tests::rng::TestRng;

/// Children that finish what is in flight, beside the one that takes calls.
const RETIRED: usize = 3;

/// What a child has granted a session, as the model has it.
type Had = (Option<&'static str>, BTreeSet<usize>);

/// Sessions, and the children that they are on.
pub(super) struct Gateway {
    rng: TestRng,
    /// Takes calls.
    child: World,
    retired: Vec<World>,
    sessions: BTreeSet<LeaseId>,
    /// Those that are not settled on the child that takes calls.
    moving: BTreeMap<LeaseId, Move>,
    next_session: u64,
    children: u64,
    is_lazy: bool,
    seen: Seen,
}

/// A session on its way to another child.
#[derive(Default)]
struct Move {
    /// The child that still grants it something, by its number.
    before: Option<u64>,
    /// What it has been granted: what is kept of it, and what the model says.
    negotiated: Negotiated,
    had: Had,
    coming: Option<Coming>,
}

/// The child that it comes to, by its number; what that is still to be asked, and how the last of it is waited for.
struct Coming {
    to: u64,
    asks: VecDeque<(What, Bytes)>,
    asked: Option<Arc<Exchange>>,
}

impl Gateway {
    pub(super) fn new(seed: u64, max_in_flight: usize, is_lazy: bool) -> Self {
        let child = World::new(seed.rotate_left(32), max_in_flight, is_lazy);
        let (sessions, moving, seen) = (BTreeSet::new(), BTreeMap::new(), Seen::default());
        let (rng, retired) = (TestRng::new(seed), Vec::new());
        Self { rng, child, retired, sessions, moving, next_session: 0, children: 0, is_lazy, seen }
    }

    pub(super) fn step(&mut self) {
        match self.rng.below(1000) {
            0 if self.rng.below(3) == 0 => self.crash(),
            1 if self.rng.below(3) == 0 => self.retire(),
            2 if self.rng.below(3) == 0 => self.crash_retired(),
            // The crowd grows and shrinks, so that a session is alone now and then.
            0..=20 => self.attach(),
            21..=34 => self.someone().into_iter().for_each(|session| self.leave(session)),
            35 if self.rng.below(4) == 0 => self.many_leave(),
            36..=235 if !self.moving.is_empty() => self.move_on(),
            _ => self.let_one_step(),
        }
    }

    fn let_one_step(&mut self) {
        let place = self.rng.below(2 * RETIRED + 2);
        if place >= self.retired.len() {
            return self.child.step();
        }
        self.retired[place].step();
        self.wind_up(place);
    }

    fn someone(&mut self) -> Option<LeaseId> {
        let count = self.sessions.len();
        (count > 0).then(|| *self.sessions.iter().nth(self.rng.below(count)).unwrap())
    }

    fn worlds(&mut self) -> impl Iterator<Item = &mut World> {
        self.retired.iter_mut().chain([&mut self.child])
    }

    fn attach(&mut self) {
        if self.sessions.len() < SESSIONS {
            let session = LeaseId(self.next_session);
            self.next_session += 1;
            self.sessions.insert(session);
            self.child.attach(session);
        }
    }

    /// A session ends.
    fn leave(&mut self, session: LeaseId) {
        self.sessions.remove(&session);
        self.moving.remove(&session);
        self.worlds().for_each(|world| world.detach(session));
    }

    fn many_leave(&mut self) {
        for _ in 0..60 {
            self.someone().into_iter().for_each(|session| self.leave(session));
        }
        // Often the child catches up with what they have left behind.
        if self.rng.below(4) > 0 {
            self.child.catch_up();
        }
    }

    /// Another child takes the calls.
    fn succeed(&mut self) -> World {
        self.children += 1;
        let World { model, stale, .. } = &self.child;
        let mut next = World::new(self.rng.next(), model.max_in_flight, self.is_lazy);
        next.number = self.children;
        next.stale = stale.iter().copied().chain(model.asked.keys().copied()).collect();
        let old = std::mem::replace(&mut self.child, next);
        for session in old.model.peers.keys() {
            self.moving.entry(*session).or_insert_with(|| Move { before: Some(old.number), ..Move::default() });
        }
        old
    }

    fn crash(&mut self) {
        let mut dead = self.succeed();
        dead.seen.crashes += 1;
        self.bury(dead);
    }

    fn crash_retired(&mut self) {
        if !self.retired.is_empty() {
            let place = self.rng.below(self.retired.len());
            let mut dead = self.retired.swap_remove(place);
            dead.seen.crashes += 1;
            self.bury(dead);
        }
    }

    /// It takes no more calls, and its sessions go on with another as soon as they need one.
    fn retire(&mut self) {
        if self.retired.len() == RETIRED {
            return;
        }
        let mut old = self.succeed();
        old.is_retired = true;
        self.retired.push(old);
    }

    /// A retired child lets sessions go that have another, and ends with the last of what is in flight.
    fn wind_up(&mut self, place: usize) {
        let world = &mut self.retired[place];
        let ready = world.multiplexer.ready_to_leave();
        let (has_task, all) =
            (|session| world.model.tasks.values().any(|owner| *owner == session), world.model.ready_to_leave());
        assert!(ready.iter().all(|session| all.contains(session)), "{ready:?} would leave, of {all:?}");
        assert!(
            all.iter().all(|session| ready.contains(session) || has_task(*session)),
            "only {ready:?} leave, of {all:?}"
        );
        // Tasks keep a child, and a session on it, until their results are fetched or nobody can be waiting for them.
        let is_idle = world.multiplexer.is_idle();
        assert!(world.model.is_idle() || !is_idle, "the child would end");
        assert!(is_idle || !world.model.is_idle() || !world.model.tasks.is_empty(), "the child would stay");
        for session in ready {
            world.detach(session);
            world.seen.let_go += 1;
        }
        if is_idle {
            let done = self.retired.swap_remove(place);
            self.bury(done);
        }
    }

    /// A child has ended. Most of its sessions go on, with what it had granted.
    fn bury(&mut self, mut dead: World) {
        dead.die();
        for session in dead.model.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(to_move) = self.moving.get_mut(&session) {
                // What the one before has granted is still to be asked for.
                to_move.coming.take_if(|coming| coming.to == dead.number);
                to_move.part_with(session, &mut dead);
            }
            dead.detach(session);
            if self.rng.below(10) == 0 {
                self.leave(session);
            }
        }
        dead.check_empty();
        self.seen = std::mem::take(&mut self.seen).and(&dead.seen);
    }

    /// A session that has to do with another child gets there, or one step nearer.
    fn move_on(&mut self) {
        let place = self.rng.below(self.moving.len());
        let session = *self.moving.keys().nth(place).unwrap();
        if self.moving[&session].coming.is_some() {
            return self.replay(session);
        }
        let to_move = self.moving.get_mut(&session).unwrap();
        if let Some(before) = self.retired.iter_mut().find(|world| Some(world.number) == to_move.before) {
            let has_standing_request = before.model.has_standing_request(session);
            assert_eq!(before.multiplexer.sharing.has_standing_request(session, false), has_standing_request);
            // It has a moment to answer what it has been asked for last.
            if has_standing_request && self.rng.below(8) > 0 {
                return;
            }
            to_move.part_with(session, before);
        }
        to_move.coming = Some(Coming { to: self.child.number, asks: to_move.asks(), asked: None });
        self.child.attach(session);
        self.child.coming.insert(session);
    }

    /// The next thing that a session had of another child, once the one before is answered or given up.
    fn replay(&mut self, session: LeaseId) {
        let to_move = self.moving.get_mut(&session).unwrap();
        let coming = to_move.coming.as_mut().unwrap();
        let world = self.retired.iter_mut().chain([&mut self.child]).find(|world| world.number == coming.to).unwrap();
        if coming.asked.as_ref().is_some_and(|exchange| world.model.is_pending(exchange)) {
            return;
        }
        if let Some((what, message)) = coming.asks.front() {
            coming.asked = world.ask_again(session, *what, message);
            if coming.asked.is_some() {
                coming.asks.pop_front();
            }
            return;
        }
        let (level, uris) = world.model.granted(session);
        assert!(level.is_none() || level == to_move.had.0, "{session:?} has never been granted {level:?}");
        assert!(uris.is_subset(&to_move.had.1), "{session:?} has never been granted {uris:?}");
        world.check_granted(session);
        world.seen.levels_again += u64::from(level.is_some());
        world.seen.uris_again += uris.len() as u64;
        world.seen.not_again += (to_move.had.1.len() - uris.len()) as u64 + u64::from(level != to_move.had.0);
        world.coming.remove(&session);
        let (to, is_retired) = (world.number, world.is_retired);
        let on = |world: &&mut World| world.number != to && world.model.peers.contains_key(&session);
        self.worlds().filter(on).for_each(|world| world.leave_when_idle(session));
        match is_retired {
            true => *self.moving.get_mut(&session).unwrap() = Move { before: Some(to), ..Move::default() },
            false => drop(self.moving.remove(&session)),
        }
    }

    /// Everything comes to an end: no call is left open, and when all have left nothing is left of them.
    pub(super) fn end(mut self) -> (u64, Seen) {
        for world in self.worlds() {
            world.catch_up();
            assert!(world.model.open.is_empty(), "the child has answered all: {:?}", world.model.open);
            world.expire();
        }
        while let Some(session) = self.someone() {
            self.leave(session);
        }
        self.worlds().for_each(World::check_empty);
        let seen = std::mem::take(&mut self.seen);
        (self.children, self.worlds().fold(seen, |seen, world| seen.and(&world.seen)))
    }
}

impl Move {
    /// The session takes what the child has granted it, if it has that of this one still, and gets nothing more of it.
    fn part_with(&mut self, session: LeaseId, before: &mut World) {
        if self.before.take_if(|number| *number == before.number).is_some() {
            let (negotiated, had) = before.hand_over(session);
            self.negotiated = negotiated;
            self.had = had;
        }
    }

    /// What another child is asked for: what the one before has granted, and nothing else.
    fn asks(&self) -> VecDeque<(What, Bytes)> {
        let (level, uris) = &self.had;
        let level = level.map(|level| What::Level(LEVELS.iter().position(|other| *other == level).unwrap()));
        let expected = level.into_iter().chain(uris.iter().map(|uri| What::Subscribe(*uri)));
        let text = |what| replayed(replay_id(what), what, self.had.0.unwrap_or_default());
        let expected: Vec<(What, Bytes)> = expected.map(|what| (what, text(what).into())).collect();
        let asks: Vec<Bytes> = self.negotiated.granted.iter().map(Standing::request).collect();
        assert_eq!(asks, expected.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>());
        expected.into()
    }
}

impl World {
    fn attach(&mut self, session: LeaseId) {
        self.multiplexer.attach(session);
        self.model.peers.insert(session, super::Has::default());
    }

    fn detach(&mut self, session: LeaseId) {
        if self.model.peers.contains_key(&session) {
            let gone = self.multiplexer.detach(session, self.now);
            let (frames, failed) = self.model.leave(session, self.now);
            self.check_expired(gone, frames, failed, Vec::new());
            self.coming.remove(&session);
        }
    }

    fn leave_when_idle(&mut self, session: LeaseId) {
        self.multiplexer.leave_when_idle(session);
        self.model.leaving.insert(session);
    }

    /// What a session has of the child, which grants it nothing more.
    fn hand_over(&mut self, session: LeaseId) -> (Negotiated, Had) {
        self.check_granted(session);
        let (negotiated, had) = (Negotiated::of(&self.multiplexer, session, true), self.model.granted(session));
        let gone = self.multiplexer.hand_over(session, self.now);
        let (frames, failed) = self.model.hand_over(session, self.now);
        self.check_expired(gone, frames, failed, Vec::new());
        (negotiated, had)
    }

    /// What another child would be asked for is what this one has agreed to.
    fn check_granted(&self, session: LeaseId) {
        let (level, uris) = self.multiplexer.granted(session);
        let (expected, numbers) = self.model.granted(session);
        assert_eq!((level, uris), (expected, numbers.into_iter().map(super::uri).collect()));
    }

    /// The child is gone: calls in flight fail, and nothing that is still said to it or by it gets anywhere.
    fn die(&mut self) {
        self.model.peers.keys().for_each(|session| self.check_granted(*session));
        self.stale.extend(self.model.asked.keys());
        let expired = self.multiplexer.drain();
        let (failed, withdrawn) = self.model.fail_all();
        self.seen.crashed_over += failed.len() as u64;
        self.check_expired(expired, Vec::new(), failed, withdrawn);
        assert_eq!(self.multiplexer.load(), 0);
        for _ in 0..10 {
            self.answer();
            self.client_answers();
        }
    }

    fn catch_up(&mut self) {
        while !self.heard.is_empty() {
            self.answer();
        }
    }

    /// When all have left and some time has passed, nothing is left of them.
    fn check_empty(&mut self) {
        self.now += 2 * TIMEOUT;
        let expired = self.multiplexer.expire(self.now);
        let (frames, failed, withdrawn) = self.model.expire(self.now);
        self.check_expired(expired, frames, failed, withdrawn);
        assert_eq!(self.multiplexer.left_behind(), Vec::<String>::new());
        assert_eq!(self.multiplexer.answered, self.model.answered);
    }
}

//! Permits: ceilings hold, claims are whole, tenants and their principals take turns and have shares, queues are
//! bounded, and no unit and no wake-up is lost.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod shares;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::queues::WAITING;
use super::*;
use crate::auth::Principal;
use crate::config::{ApiKey, Config, Contenders, Server};

const LONG: Duration = Duration::from_secs(60);

/// The principal `subject` of the tenant `name`.
fn principal(name: &str, subject: &str) -> Principal {
    Principal::of_key(name, subject)
}

/// The only principal of the tenant `name`.
fn tenant(name: &str) -> Claimant {
    Claimant::of(&principal(name, "only"))
}

/// A configuration's contenders: a server `s` that all tenants may use, and the keys of these principals.
fn contenders(principals: &[Principal]) -> Contenders {
    let mut config = Config::for_servers([Server::new("s".parse().unwrap(), "nothing", Vec::new())]);
    config.auth.anonymous = None;
    for one in principals {
        config.tenants.entry(one.tenant().clone()).or_default();
        config.auth.keys.push(ApiKey::from_plain("k", one.tenant().clone(), one.subject().to_owned(), Vec::new()));
    }
    Contenders::of(&config)
}

fn in_use(most: usize) -> Limit {
    (Ceiling::InUse("s".parse().unwrap()), most)
}

fn server(name: &str, most: usize) -> Limit {
    (Ceiling::Server(name.parse().unwrap()), most)
}

fn of_tenant(name: &str, most: usize) -> Limit {
    (Ceiling::Tenant(name.parse().unwrap()), most)
}

impl Permits {
    /// The number of claims that wait.
    fn queued(&self) -> usize {
        self.waiting(|_| true)
    }

    /// A task that waits for a claim, and has begun to.
    async fn waiter(&self, name: &str, limits: &[Limit]) -> tokio::task::JoinHandle<Result<Claim, Full>> {
        let (permits, own, limits, before) = (self.clone(), tenant(name), limits.to_vec(), self.queued());
        let waiter = tokio::spawn(async move { permits.claim(&own, &limits, LONG).await });
        while self.queued() == before {
            tokio::task::yield_now().await;
        }
        waiter
    }
}

/// The number of claims that wait for this ceiling.
fn waiting_for(permits: &Permits, ceiling: &Ceiling) -> usize {
    permits.waiting(|full| full.ceiling == *ceiling)
}

#[tokio::test(start_paused = true)]
async fn the_ceiling_holds_and_waiting_ends() {
    let (permits, limits) = (Permits::default(), [server("s", 2)]);
    let (a, b) = (permits.try_claim(&tenant("t"), &limits).unwrap(), permits.try_claim(&tenant("t"), &limits).unwrap());
    assert!(permits.try_claim(&tenant("t"), &limits).is_err());
    let full = permits.claim(&tenant("t"), &limits, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(full, Full { ceiling: limits[0].0.clone(), most: 2, by: By::All });
    assert_eq!(permits.queued(), 0, "a claim that was given up waits no more");
    drop(a);
    assert_eq!(permits.taken(&limits[0].0), 1);
    drop(b);
    assert!(permits.is_unused());
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_waits_holds_nothing_of_what_others_could_have() {
    let permits = Permits::default();
    let (both, other) = ([of_tenant("t", 1), server("a", 1)], [of_tenant("t", 1), server("b", 1)]);
    let taken = permits.try_claim(&tenant("t"), &both[1..]).unwrap();
    let waiter = permits.waiter("t", &both).await;
    assert_eq!(waiting_for(&permits, &both[1].0), 1);
    let of_other = permits.try_claim(&tenant("t"), &other).unwrap();
    assert_eq!(
        (waiting_for(&permits, &both[0].0), waiting_for(&permits, &both[1].0)),
        (1, 0),
        "the first full one counts"
    );
    drop(taken);
    tokio::task::yield_now().await;
    assert!(!waiter.is_finished(), "there is room under one ceiling alone");
    assert!(permits.try_claim(&tenant("t"), &both[1..]).is_ok(), "nobody has it");
    drop(of_other);
    let claim = waiter.await.unwrap().unwrap();
    assert!(both.iter().all(|(ceiling, _)| claim.holds(ceiling)));
    drop(claim);
    assert!(permits.is_unused());
}

#[tokio::test(start_paused = true)]
async fn tenants_take_turns() {
    let (permits, limits) = (Permits::default(), [server("s", 1)]);
    let first = permits.try_claim(&tenant("t"), &limits).unwrap();
    let (order, mut served) = tokio::sync::mpsc::channel(16);
    for name in ["a", "a", "a", "b", "c"] {
        let (waiter, order) = (permits.waiter(name, &limits).await, order.clone());
        tokio::spawn(async move {
            let claim = waiter.await.unwrap().unwrap();
            order.send(name).await.unwrap();
            drop(claim);
        });
    }
    drop(first);
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(served.recv().await.unwrap());
    }
    assert_eq!(names, ["a", "b", "c", "a", "a"]);
}

/// Drops a claim when it is granted.
fn is_served(waiter: tokio::task::JoinHandle<Result<Claim, Full>>) -> tokio::task::JoinHandle<bool> {
    tokio::spawn(async move { waiter.await.unwrap().is_ok() })
}

#[tokio::test(start_paused = true)]
async fn only_so_many_of_a_tenant_wait_and_the_next_is_told_at_once() {
    for limits in [[server("s", 1)], [of_tenant("many", 1)]] {
        let permits = Permits::default();
        permits.contend(contenders(&[principal("many", "only"), principal("another", "only")]));
        let first = permits.try_claim(&tenant("t"), &limits).unwrap();
        let mut waiting = Vec::new();
        for _ in 0..WAITING / 2 {
            waiting.push(is_served(permits.waiter("many", &limits).await));
        }
        let now = tokio::time::Instant::now();
        assert_eq!(permits.claim(&tenant("many"), &limits, LONG).await.unwrap_err().by, By::Queue);
        assert_eq!(now.elapsed(), Duration::ZERO);
        waiting.push(is_served(permits.waiter("another", &limits).await));
        drop(first);
        for is_served in waiting {
            assert!(is_served.await.unwrap());
        }
        assert!(permits.is_unused());
    }
}

#[tokio::test(start_paused = true)]
async fn a_unit_granted_to_a_claim_that_is_given_up_is_not_lost() {
    let (permits, limits) = (Permits::default(), [server("s", 1)]);
    let first = permits.try_claim(&tenant("t"), &limits).unwrap();
    let left = permits.waiter("t", &limits).await;
    drop(first);
    left.abort();
    let _ = left.await;
    assert!(permits.try_claim(&tenant("t"), &limits).is_ok());
}

#[test]
fn a_merged_claim_holds_each_unit_once() {
    let (permits, both) = (Permits::default(), [of_tenant("t", 9), server("s", 9)]);
    let (mut spare, inherited) =
        (permits.try_claim(&tenant("t"), &both[1..]).unwrap(), permits.try_claim(&tenant("t"), &both).unwrap());
    assert_eq!(permits.taken(&both[1].0), 2);
    spare.merge(inherited);
    assert_eq!((permits.taken(&both[0].0), permits.taken(&both[1].0)), (1, 1));
    drop(spare);
    assert!(permits.is_unused());
}

/// Whether a future has been woken since it was polled last.
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Waiting = Pin<Box<dyn Future<Output = Result<Claim, Full>>>>;

/// A claim that waits.
struct Waiter {
    future: Waiting,
    claimant: Claimant,
    limits: Vec<Limit>,
    woken: std::sync::Arc<Woken>,
}

impl Waiter {
    fn poll(&mut self) -> Poll<Result<Claim, Full>> {
        self.woken.0.store(false, Ordering::Relaxed);
        self.future.as_mut().poll(&mut Context::from_waker(&Waker::from(std::sync::Arc::clone(&self.woken))))
    }
}

/// Small numbers, the same for the same seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % most
    }
}

/// Claims that come, wait, are granted, given up before and after that, and dropped, in any order.
#[tokio::test(start_paused = true)]
async fn whatever_happens_ceilings_hold_and_no_unit_and_no_wake_up_is_lost() {
    for seed in 0..200 {
        let (permits, mut numbers) = (Permits::default(), Numbers(seed));
        let (servers, tenants) = (["a", "b", "c"], ["t", "u", "v"]);
        // With others who may ask, and without.
        let (has_rivals, subjects) = (seed % 2 == 1, ["one", "two"]);
        if has_rivals {
            let of_tenant = |tenant: &str| subjects.map(|subject| principal(tenant, subject));
            permits.contend(contenders(&tenants.into_iter().flat_map(of_tenant).collect::<Vec<_>>()));
        }
        let most = |at: usize| if has_rivals { 3 + 2 * at } else { 1 + at };
        let all = |a_tenant: usize, a_server: usize| {
            let in_use = (Ceiling::InUse(servers[a_server].parse().unwrap()), most(a_server));
            [of_tenant(tenants[a_tenant], most(a_tenant)), in_use]
        };
        let (mut waiting, mut claims) = (Vec::<Waiter>::new(), Vec::<Claim>::new());
        for _ in 0..300 {
            match numbers.below(6) {
                0..3 => {
                    let (a_server, a_tenant) = (numbers.below(3), numbers.below(3));
                    let all = all(a_tenant, a_server);
                    let limits = match numbers.below(4) {
                        0 => &all[..1],
                        1 => &all[1..],
                        _ => &all[..],
                    };
                    let claimant = Claimant::of(&principal(tenants[a_tenant], subjects[numbers.below(2)]));
                    let all = permits.clone();
                    let key = claimant.clone();
                    let (own, woken) = (limits.to_vec(), std::sync::Arc::new(Woken(AtomicBool::new(true))));
                    // Without a budget, which would make the runtime say that what is ready is not.
                    let future = async move { all.claim(&key, &own, LONG).await };
                    let future = Box::pin(tokio::task::unconstrained(future));
                    waiting.push(Waiter { future, claimant, limits: limits.to_vec(), woken });
                }
                3 if !claims.is_empty() => drop(claims.swap_remove(numbers.below(claims.len()))),
                // With or without a claim that was granted and not looked at.
                4 if !waiting.is_empty() => drop(waiting.swap_remove(numbers.below(waiting.len()))),
                _ if claims.len() > 1 => {
                    let (other, at) = (claims.swap_remove(0), numbers.below(claims.len()));
                    claims[at].merge(other);
                }
                _ => {}
            }
            if numbers.below(2) == 0 {
                continue;
            }
            let mut index = 0;
            while let Some(waiter) = waiting.get_mut(index) {
                let was_woken = waiter.woken.0.load(Ordering::Relaxed);
                match waiter.poll() {
                    Poll::Ready(claim) => {
                        assert!(was_woken, "seed {seed}: a lost wake-up");
                        claims.push(claim.unwrap());
                        waiting.swap_remove(index);
                    }
                    Poll::Pending => {
                        assert!(
                            permits.full(&waiter.claimant, &waiter.limits).is_some(),
                            "seed {seed}: a claim waits though there is room"
                        );
                        index += 1;
                    }
                }
            }
            for limit in (0..3).flat_map(|at| all(at, at)) {
                let held = claims.iter().filter(|claim| claim.holds(&limit.0)).count();
                assert_eq!(permits.taken(&limit.0), held, "seed {seed}: {limit:?}");
                assert!(held <= limit.1, "seed {seed}: {limit:?}");
            }
            assert_eq!(permits.queued(), waiting.len(), "seed {seed}");
        }
        drop((waiting, claims));
        assert!(permits.is_unused(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_tenants_that_wait_none_is_served_twice_before_another_is_served_once() {
    for seed in 0..50 {
        let (permits, limits, mut numbers) = (Permits::default(), [server("s", 1)], Numbers(seed));
        let names = ["a", "b", "c", "d"];
        let mut held = permits.try_claim(&tenant("t"), &limits).ok();
        let mut waiting = Vec::new();
        for _ in 0..40 {
            let name = names[numbers.below(4)];
            waiting.push((name, permits.waiter(name, &limits).await));
        }
        let mut served = std::collections::HashMap::new();
        while !waiting.is_empty() {
            held.take();
            while !waiting.iter().any(|(_, waiter)| waiter.is_finished()) {
                tokio::task::yield_now().await;
            }
            let at = waiting.iter().position(|(_, waiter)| waiter.is_finished()).unwrap();
            let (name, waiter) = waiting.remove(at);
            held = Some(waiter.await.unwrap().unwrap());
            *served.entry(name).or_insert(0) += 1;
            let counts = waiting.iter().map(|(other, _)| served.get(other).copied().unwrap_or(0));
            assert!(counts.min().is_none_or(|least| served[name] <= least + 1), "seed {seed}: {served:?}");
        }
    }
}

#![expect(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::time::Instant as Clock;

use super::super::idle_index::SETTLED;
use super::*;
use crate::config::{Config, Server, Sessions};
use crate::memory::{Exhausted, Memory};
use crate::pool::{Deployment, Deployments, Pools};
use crate::stream::Budget;

const STREAM: Budget = Budget { messages: 8, bytes: 1 << 16 };

/// The sessions of the measurement: some thousand, or so many as `SLUICE_IDLE_SESSIONS` says.
fn most() -> usize {
    std::env::var("SLUICE_IDLE_SESSIONS").map_or(5_000, |number| number.parse().unwrap())
}

fn deployment() -> Arc<Deployment> {
    let server = Server::new("s".parse().unwrap(), "nothing", Vec::new());
    let deployed = Pools::of_nobody().deploy(&Config::for_servers([server]), &Deployments::default());
    Arc::clone(deployed.values().next().unwrap())
}

fn principal(number: usize) -> Principal {
    Principal::of_key("acme", &number.to_string())
}

/// Opens a session of a principal.
fn open_one(
    registry: &Registry,
    deployment: &Arc<Deployment>,
    principal: &Principal,
    limits: &Sessions,
) -> Arc<dyn Conversation> {
    let new = NewSession {
        principal,
        deployment,
        transport: Transport::Streamable,
        sessions: limits,
        tenant_sessions: None,
        account: &Memory::new(1 << 30).tenant("acme"),
        client: std::net::Ipv4Addr::LOCALHOST.into(),
        stream: STREAM,
    };
    registry.open(&new).unwrap_or_else(|rejected| panic!("{rejected}"))
}

/// Opens sessions, as many for each of some principals.
fn open(registry: &Registry, deployment: &Arc<Deployment>, count: usize, principals: usize, limits: &Sessions) {
    for number in 0..count {
        open_one(registry, deployment, &principal(number % principals), limits);
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_counts_more_than_some_seconds_without_use() {
    let (registry, deployment, ann) =
        (Registry::new(TaskTracker::new(), Permits::default()), deployment(), principal(1));
    let limits = Sessions { max_per_principal: 3, ..Sessions::default() };
    let open = || open_one(&registry, &deployment, &ann, &limits).id().clone();
    let lives = |id: &SessionId| registry.sessions.contains_key(id);
    let listening = open_one(&registry, &deployment, &ann, &limits);
    let _stream = listening.open_stream();
    tokio::time::advance(2 * SETTLED).await;
    let first = open();
    tokio::time::advance(SETTLED / 2).await;
    let second = open();
    // One that is new may still be about to be used.
    tokio::time::advance(SETTLED / 4).await;
    let third = open();
    assert!(!lives(listening.id()) && lives(&first) && lives(&second) && lives(&third));
    registry.end(&third, "the test has no more use of it");
    let listening = open_one(&registry, &deployment, &ann, &limits);
    let _stream = listening.open_stream();
    tokio::time::advance(SETTLED / 2).await;
    let fourth = open();
    assert!(!lives(&first), "without a stream, and unused for long enough");
    assert!(lives(listening.id()) && lives(&second) && lives(&fourth));
    registry.end_all("the test ends");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_client_has_left_goes_first_though_nobody_has_looked_since() {
    let (registry, deployment, ann) =
        (Registry::new(TaskTracker::new(), Permits::default()), deployment(), principal(1));
    let limits = Sessions { max_per_principal: 2, ..Sessions::default() };
    let listening = open_one(&registry, &deployment, &ann, &limits);
    let _stream = listening.open_stream();
    let left = open_one(&registry, &deployment, &ann, &limits);
    let stream = left.open_stream();
    tokio::time::advance(3 * SETTLED).await;
    drop(stream);
    tokio::time::advance(2 * SETTLED).await;
    open_one(&registry, &deployment, &ann, &limits);
    let lives = |id: &SessionId| registry.sessions.contains_key(id);
    assert!(lives(listening.id()) && !lives(left.id()));
    registry.end_all("the test ends");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_looks_at_those_that_are_due_and_at_no_others() {
    let (registry, deployment, most) = (Registry::new(TaskTracker::new(), Permits::default()), deployment(), most());
    let limits = Sessions { max: most, max_per_principal: most, ..Sessions::default() };
    open(&registry, &deployment, most, 100, &limits);
    let (patience, is_known) = (limits.idle_timeout, |_: &Principal, _: &ServerName| Some(limits.idle_timeout));
    tokio::time::advance(2 * SWEEP).await;
    let first = registry.by_use.take_due(Instant::now(), usize::MAX);
    assert_eq!(first.len(), most, "each new one is looked at soon");
    first.iter().for_each(|session| registry.look_at(session, is_known));
    tokio::time::advance(SWEEP).await;
    let sweep = Clock::now();
    assert!(registry.by_use.take_due(Instant::now(), usize::MAX).is_empty());
    let sweep = sweep.elapsed();
    let all = Clock::now();
    registry.tidy(is_known);
    let all = all.elapsed();
    println!("{most} sessions: a sweep takes {sweep:?}, a look at all {all:?}");
    tokio::time::advance(patience).await;
    registry.by_use.take_due(Instant::now(), usize::MAX).iter().for_each(|session| registry.look_at(session, is_known));
    assert!(registry.all().is_empty());
}

#[tokio::test]
async fn room_costs_as_much_with_many_sessions_as_with_few() {
    let deployment = deployment();
    let time = |most: usize, principals: usize| {
        let registry = Registry::new(TaskTracker::new(), Permits::default());
        let limits = Sessions { max: most, max_per_principal: most, ..Sessions::default() };
        open(&registry, &deployment, most, principals, &limits);
        let begin = Clock::now();
        open(&registry, &deployment, 1000, principals, &limits);
        let took = begin.elapsed();
        assert_eq!(registry.all().len(), most);
        registry.end_all("the test ends");
        took / 1000
    };
    let (few, many, spread) = (time(200, 1), time(most(), 1), time(most(), 100));
    println!("room for a session takes {few:?} with 200, {many:?} with {}, {spread:?} of 100 principals", most());
}

#[tokio::test]
async fn a_session_is_charged_until_it_is_gone_and_not_opened_without_room() {
    let (registry, deployment) = (Registry::new(TaskTracker::new(), Permits::default()), deployment());
    // Half of what is not kept for connections: three sessions.
    let memory = Memory::new(8 * SESSION);
    let account = memory.tenant("acme");
    let new = NewSession {
        principal: &principal(1),
        deployment: &deployment,
        transport: Transport::Streamable,
        sessions: &Sessions::default(),
        tenant_sessions: None,
        account: &account,
        client: std::net::Ipv4Addr::LOCALHOST.into(),
        stream: STREAM,
    };
    for number in 1..=3 {
        assert_eq!((registry.open(&new).err(), account.held()), (None, number * SESSION));
    }
    let refused = registry.open(&new).err().unwrap();
    assert_eq!(refused, Rejected::Memory(Exhausted::Share));
    assert!(refused.to_string().contains("limits.memory_budget"), "{refused}");
    registry.end_all("the test is over");
    assert_eq!(memory.held(), 0);
    assert!(registry.open(&new).is_ok());
}

//! Compares memory and processes of children with the limits that no cgroup enforces: four times a second, in one
//! reading of `/proc`. Invariants: a child over its own limit is found within two readings, and may use any amount
//! until then; for a tenant's limit at most one child of the tenant is being ended at a time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Ceilings, Short};
use crate::config::TenantId;
use crate::process::usage::{Excess, Limit, Usage, WatchedLimits};

/// Time between two readings.
const INTERVAL: Duration = Duration::from_millis(250);
/// Maximum age of the process tree to compare with, which other parts of the gateway may have read.
const MAX_AGE: Duration = Duration::from_millis(100);
/// Time between two log lines while `/proc` cannot be read.
const REPEAT: Duration = Duration::from_secs(60);

/// A child to be compared with its limits.
struct WatchedChild {
    id: u64,
    pid: i32,
    tenant: Option<TenantId>,
    bounds: WatchedLimits,
    is_leaving: bool,
}

/// Compares all children with their limits, again and again, until `stop` is cancelled.
pub async fn watch_usage(ceilings: Ceilings, stop: CancellationToken) {
    let mut looks = interval(INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reported: Option<Instant> = None;
    while stop.run_until_cancelled(looks.tick()).await.is_some() {
        let these = ceilings.clone();
        let look = tokio::task::spawn_blocking(move || compare(&these)).await.map_err(io::Error::other);
        match look.and_then(|look| look) {
            Ok(()) if reported.take().is_some() => tracing::warn!("limits are watched again"),
            Ok(()) => {}
            Err(error) => {
                ceilings.0.failures.inc();
                if reported.is_none_or(|reported| reported.elapsed() >= REPEAT) {
                    reported = Some(Instant::now());
                    tracing::error!(%error, "processes cannot be looked at: no limit that is watched holds");
                }
            }
        }
    }
}

/// Compares all children with their limits once, and has those ended that exceed one.
fn compare(ceilings: &Ceilings) -> io::Result<()> {
    let mut children = watched(ceilings);
    let (tenants, ended) = (HashSet::new(), ceilings.0.short.lock().ended);
    let machine = is_machine_short(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default());
    let mut short = Short { tenants, machine, ended };
    if children.is_empty() {
        ceilings.note_short(short);
        return Ok(());
    }
    let pids: Vec<i32> = children.iter().map(|child| child.pid).collect();
    let tree = ceilings.0.guardian.processes().read(MAX_AGE)?;
    let used = Usage::of(&pids, &tree)?;
    for child in children.iter_mut().filter(|child| !child.is_leaving) {
        if let Some(excess) = used.get(&child.pid).and_then(|used| child.bounds.exceeded_by(*used)) {
            child.is_leaving = true;
            ceilings.end(child.id, excess);
        }
    }
    let mut theirs: HashMap<&TenantId, Vec<&WatchedChild>> = HashMap::new();
    for child in &children {
        child.tenant.as_ref().inspect(|tenant| theirs.entry(tenant).or_default().push(child));
    }
    for (tenant, children) in theirs {
        let bounds = ceilings.0.tenants.load().get(tenant).map(|ceiling| ceiling.watched).unwrap_or_default();
        if is_short(bounds, &children, &used) {
            short.tenants.insert(tenant.clone());
        }
        // The end of one may be all that is needed.
        if !children.iter().any(|child| child.is_leaving)
            && let Some((id, excess)) = over(tenant, bounds, &children, &used)
        {
            ceilings.end(id, excess);
        }
    }
    ceilings.note_short(short);
    Ok(())
}

/// Whether less than a twentieth of the machine's memory is available, by the text of `/proc/meminfo`.
fn is_machine_short(meminfo: &str) -> bool {
    let amount = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        value.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let amounts = amount("MemTotal:").zip(amount("MemAvailable:"));
    amounts.is_some_and(|(total, available)| available < total / 20)
}

/// Whether `children`, all those of a tenant, together use nine tenths of the memory that they may.
fn is_short(bounds: WatchedLimits, children: &[&WatchedChild], used: &HashMap<i32, Usage>) -> bool {
    let memory: u64 = children.iter().filter_map(|child| Some(used.get(&child.pid)?.memory)).sum();
    bounds.memory.is_some_and(|limit| memory >= limit / 10 * 9)
}

/// The children to be compared: those that have watched limits, or whose tenant has.
fn watched(ceilings: &Ceilings) -> Vec<WatchedChild> {
    let (charged, tenants) = (ceilings.0.charged.lock(), ceilings.0.tenants.load());
    let watched = charged.iter().filter_map(|(id, charged)| {
        let tenant = charged.origin.tenant();
        let ceiling = tenant.as_ref().and_then(|tenant| tenants.get(tenant));
        let counts = !charged.watched.is_empty() || ceiling.is_some_and(|ceiling| !ceiling.watched.is_empty());
        let is_leaving = charged.excess.borrow().is_some();
        counts.then_some(WatchedChild { id: *id, pid: charged.pid, tenant, bounds: charged.watched, is_leaving })
    });
    watched.collect()
}

/// The child to end if `children`, all those of `tenant`, exceed `bounds` together: the one that uses most, or the
/// newest of several. Returns its number and the limit.
fn over(
    tenant: &TenantId,
    bounds: WatchedLimits,
    children: &[&WatchedChild],
    used: &HashMap<i32, Usage>,
) -> Option<(u64, Excess)> {
    let over = |kind: Limit, limit: Option<u64>, of: fn(&Usage) -> u64| {
        let each = children.iter().filter_map(|child| Some((of(used.get(&child.pid)?), child.id)));
        let limit = limit.filter(|limit| each.clone().map(|(amount, _)| amount).sum::<u64>() > *limit)?;
        each.max().map(|(_, id)| (id, Excess::new(kind, limit, Some(tenant.clone()))))
    };
    over(Limit::Memory, bounds.memory, |usage| usage.memory)
        .or_else(|| over(Limit::Processes, bounds.processes, |usage| usage.processes))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stdout, reason = "tests")]
    use super::super::tests::{ceilings, tenant};
    use super::*;

    #[test]
    fn a_machine_is_short_below_a_twentieth() {
        let meminfo = |available: u32| format!("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  {available} kB\n");
        assert!(is_machine_short(&meminfo(49)) && !is_machine_short(&meminfo(50)));
        assert!(!is_machine_short("of another form"));
    }

    #[test]
    fn the_largest_goes_and_of_equals_the_newest() {
        let usage = |memory, processes| Usage { memory, processes };
        let used = HashMap::from([(11, usage(10, 5)), (12, usage(30, 1)), (13, usage(20, 5)), (14, usage(1000, 1000))]);
        let children = [1, 2, 3].map(|id| WatchedChild {
            id,
            pid: i32::try_from(id).unwrap() + 10,
            tenant: Some(tenant()),
            bounds: WatchedLimits::default(),
            is_leaving: false,
        });
        let children: Vec<_> = children.iter().collect();
        let over = |memory, processes| {
            over(&tenant(), WatchedLimits { memory, processes }, &children, &used)
                .map(|(id, excess)| (id, excess.to_string()))
        };
        assert_eq!(over(Some(60), Some(11)), None);
        let (id, text) = over(Some(59), None).unwrap();
        assert_eq!(id, 2);
        assert!(text.contains("tenants.acme.limits.memory"), "{text}");
        let (id, text) = over(None, Some(10)).unwrap();
        assert_eq!(id, 3);
        assert!(text.contains("tenants.acme.limits.processes"), "{text}");
    }

    #[test]
    fn a_tenant_loses_no_second_child_while_one_is_on_its_way_out() {
        let own = i32::try_from(std::process::id()).unwrap();
        let bounds = WatchedLimits { memory: Some(1), processes: None };
        let ends = |ceiling, children: [(i32, WatchedLimits); 2]| {
            let ceilings = ceilings(ceiling, children);
            compare(&ceilings).unwrap();
            compare(&ceilings).unwrap();
            let charged = ceilings.0.charged.lock();
            [1, 2].map(|id| charged[&id].excess.borrow().as_ref().map(Excess::label))
        };
        // This process is the only one here.
        let (nobody, free) = (i32::MAX, WatchedLimits::default());
        assert_eq!(ends(bounds, [(own, free), (nobody, free)]), [Some("tenant_memory"), None]);
        assert_eq!(ends(bounds, [(own, bounds), (nobody, free)]), [Some("memory"), None]);
        assert_eq!(ends(free, [(own, bounds), (nobody, bounds)]), [Some("memory"), None]);
    }

    /// `cargo test --lib a_look_at_many_children -- --nocapture` prints how long a reading takes.
    #[test]
    fn a_look_at_many_children_is_one_look() {
        const MANY: usize = 500;
        let sleeper = || std::process::Command::new("sleep").arg("300").spawn().unwrap();
        let mut children: Vec<_> = (0..MANY).map(|_| sleeper()).collect();
        let bounds = WatchedLimits { memory: Some(1 << 40), processes: Some(1) };
        let pids = children.iter().map(|child| (child.id().cast_signed(), bounds));
        let ceilings = ceilings(WatchedLimits { memory: Some(1 << 50), processes: Some(MANY as u64) }, pids);
        let mut looks: Vec<_> = (0..5)
            .map(|_| {
                let begin = std::time::Instant::now();
                compare(&ceilings).unwrap();
                begin.elapsed()
            })
            .collect();
        looks.sort_unstable();
        println!("a look at {MANY} children takes {:?} (median of 5)", looks[2]);
        let ended = ceilings.0.charged.lock().values().filter(|charged| charged.excess.borrow().is_some()).count();
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert_eq!(ended, 0, "each is one process, and all are as many as they may be");
    }
}

//! What children may use: each, and all of a tenant together. Where no cgroup keeps their memory and processes, they are
//! watched (`lookout`). Invariant: a child counts for the tenant that it runs for at the moment, a spare and one that all
//! share for none.

mod folder_poller;
mod usage_poller;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::cgroup::{Controllers, LimitOwner};
use super::child::Child;
use super::exit::Exit;
use super::folder::{FolderSize, PrivateFolder};
use super::guardian::{Guardian, Limiter};
use super::launch::Launch;
use super::limits::ProcessLimits;
use super::stderr::Origin;
use super::usage::{Excess, WatchedLimits};
use crate::config::{Resources, Tenant, TenantId, may_raise_limits};

pub use folder_poller::watch_folders;
pub use usage_poller::watch_usage;

/// The ceilings of all tenants; cheap to clone.
#[derive(Clone)]
pub struct Ceilings(Arc<Shared>);

struct Shared {
    tenants: HashMap<TenantId, Ceiling>,
    charged: Mutex<HashMap<u64, Charged>>,
    last: AtomicU64,
    /// Whether the guardian may set limits of processes whatever user they have.
    limits_any: bool,
    failures: Counter,
    /// What knows the processes of the machine.
    guardian: Guardian,
}

struct Ceiling {
    limits: Resources,
    places: Option<Places>,
    /// Whether they have a cgroup together.
    has_cgroup: bool,
    /// Those of the limits that it does not keep.
    watched: WatchedLimits,
}

/// For how many children at once there is room.
struct Places {
    most: usize,
    free: Arc<Semaphore>,
    /// How many wait for one.
    waiting: AtomicUsize,
}

/// A child that counts.
struct Charged {
    pid: i32,
    origin: Origin,
    /// Those of its own.
    watched: WatchedLimits,
    /// Its temporary folder.
    temp: Option<WatchedFolder>,
    excess: watch::Sender<Option<Excess>>,
}

/// A temporary folder with its limit.
#[derive(Debug)]
struct WatchedFolder {
    folder: Weak<PrivateFolder>,
    most: FolderSize,
}

/// A place for a child under its tenant's ceiling.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "held, and dropped")] Option<OwnedSemaphorePermit>);

/// A tenant has as many children as it may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the tenant has all its {most} children in use (tenants.{tenant}.limits.max_children)")]
pub struct Full {
    /// The tenant.
    pub tenant: TenantId,
    /// How many.
    pub most: usize,
}

impl Ceilings {
    /// Those of the tenants of a configuration. Where cgroups can keep them, they do from now on. `failures` counts the
    /// looks that saw nothing.
    pub fn new<'a>(
        tenants: impl IntoIterator<Item = (&'a TenantId, &'a Tenant)>,
        guardian: &Guardian,
        failures: Counter,
    ) -> Self {
        let ceiling = |(name, tenant): (&TenantId, &Tenant)| {
            let limits = tenant.limits.clone();
            let made = guardian.cgroups().map(|cgroups| cgroups.limit_tenant(name, &limits));
            if let Some(Err(error)) = made {
                tracing::warn!(tenant = %name, %error, "the tenant gets no cgroup: its limits are watched");
            }
            let has_cgroup = guardian.limits_tenant(name);
            let kept = if has_cgroup { guardian.controllers() } else { Controllers::default() };
            let watched = WatchedLimits::left(&limits, kept);
            let of = |most| Places { most, free: Arc::new(Semaphore::new(most)), waiting: AtomicUsize::new(0) };
            let places = tenant.max_children.map(of);
            (name.clone(), Ceiling { limits, places, has_cgroup, watched })
        };
        let tenants = tenants.into_iter().map(ceiling).collect();
        // It has the same privileges as the gateway. Who is not root runs all children as itself.
        let limits_any = may_raise_limits() || !rustix::process::geteuid().is_root();
        let (charged, last, guardian) = (Mutex::default(), AtomicU64::new(0), guardian.clone());
        Self(Arc::new(Shared { tenants, charged, last, limits_any, failures, guardian }))
    }

    /// A place for one more child of a tenant, as soon as there is one.
    ///
    /// # Errors
    /// There is none in time.
    pub async fn place(&self, tenant: &TenantId, patience: Duration) -> Result<Place, Full> {
        let Some(places) = self.places(tenant) else { return Ok(Place(None)) };
        let _waits = Waits::begin(&places.waiting);
        match timeout(patience, Arc::clone(&places.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place(Some(permit))),
            _ => Err(Full { tenant: tenant.clone(), most: places.most }),
        }
    }

    /// Whether somebody waits for a place of this tenant's.
    pub fn is_waited_for(&self, tenant: &TenantId) -> bool {
        self.places(tenant).is_some_and(|places| places.waiting.load(Ordering::Relaxed) > 0)
    }

    fn places(&self, tenant: &TenantId) -> Option<&Places> {
        self.0.tenants.get(tenant)?.places.as_ref()
    }

    /// Whether a child that was started for nobody can become this tenant's. It cannot where a cgroup keeps what the
    /// tenant's children use together: what a running process has taken stays with the cgroup that it was in. Nor where the
    /// limits of its processes could not be lowered: root without a privilege may not where they have another user.
    pub fn takes_spares(&self, tenant: &TenantId) -> bool {
        let can_be_limited =
            |ceiling: &Ceiling| self.0.limits_any || ProcessLimits::from(&ceiling.limits) == ProcessLimits::default();
        self.0.tenants.get(tenant).is_none_or(|ceiling| !ceiling.has_cgroup && can_be_limited(ceiling))
    }

    /// What is started for a tenant has the limits of the tenant too.
    pub fn apply(&self, launch: Launch, tenant: Option<&TenantId>) -> Launch {
        let Some((tenant, ceiling)) = tenant.and_then(|tenant| self.0.tenants.get_key_value(tenant)) else {
            return launch;
        };
        let mut launch = Launch { tenant: Some(tenant.clone()), ..launch };
        launch.policy.limits = launch.policy.limits.lowered(&ceiling.limits);
        launch
    }

    /// Tells the owner of the child `id` to end it, because of `excess`.
    fn end(&self, id: u64, excess: Excess) {
        if let Some(charged) = self.0.charged.lock().get(&id) {
            charged.excess.send_replace(Some(excess));
        }
    }

    /// Has a child count.
    pub fn charge(&self, child: &Child, origin: &Origin) -> Charge {
        let (excess, exceeded) = watch::channel(None);
        let (id, pid) = (self.0.last.fetch_add(1, Ordering::Relaxed), child.pid().cast_signed());
        let temp = child.temp().map(|(folder, most)| WatchedFolder { folder: Arc::downgrade(folder), most });
        let charged = Charged { pid, origin: origin.clone(), watched: child.watched(), temp, excess };
        self.0.charged.lock().insert(id, charged);
        Charge {
            ceilings: self.clone(),
            limiter: child.limiter(),
            started_for: origin.tenant(),
            limits: child.process_limits().clone(),
            origin: origin.clone(),
            exceeded,
            id,
        }
    }
}

/// Someone who waits for a place; counted until it is dropped.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// That a child counts for its tenant. Whoever owns the child ends it.
pub struct Charge {
    ceilings: Ceilings,
    limiter: Limiter,
    id: u64,
    origin: Origin,
    started_for: Option<TenantId>,
    /// Those of each of its processes, as it was started.
    limits: ProcessLimits,
    exceeded: watch::Receiver<Option<Excess>>,
}

impl Charge {
    /// The child is a tenant's from now on.
    pub fn adopt(&self, tenant: &TenantId, session: &str) {
        self.origin.adopt(tenant, session);
        if self.started_for.as_ref() == Some(tenant) {
            return;
        }
        if let Some(ceiling) = self.ceilings.0.tenants.get(tenant) {
            let lowered = self.limits.lowered(&ceiling.limits);
            if lowered != self.limits {
                self.limiter.set(lowered);
            }
        }
    }

    /// Waits until the child has to go, because it uses more than it may, or its tenant's do together. It has to be killed
    /// then, at once.
    pub async fn exceeded(&self) -> Excess {
        let mut exceeded = self.exceeded.clone();
        loop {
            let found = exceeded.borrow_and_update().clone();
            match found {
                Some(excess) => return excess,
                // Once it counts no more there is nothing to wait for.
                None if exceeded.changed().await.is_err() => std::future::pending().await,
                None => {}
            }
        }
    }

    /// The limit of its tenant that the kernel ended it for, where it was that.
    pub fn ended_for(&self, exit: Exit) -> Option<Excess> {
        let tenant = self.started_for.as_ref().filter(|_| exit.out_of_memory() == Some(LimitOwner::Tenant))?;
        let limit = self.ceilings.0.tenants.get(tenant)?.limits.memory?;
        Some(Excess::memory(limit as u64, Some(tenant.clone())))
    }

    /// The child is gone.
    pub fn end(&self) {
        self.ceilings.0.charged.lock().remove(&self.id);
    }
}

#[cfg(test)]
impl Charge {
    /// That of a child which is no process.
    pub(crate) fn of_no_process(guardian: &Guardian, origin: &Origin) -> Self {
        Self {
            ceilings: Ceilings::new([], guardian, Counter::default()),
            limiter: guardian.limiter_of_nothing(),
            started_for: None,
            limits: ProcessLimits::default(),
            origin: origin.clone(),
            exceeded: watch::channel(None).1,
            id: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    pub(super) fn tenant() -> TenantId {
        "acme".parse().unwrap()
    }

    /// Ceilings of one tenant, and children of it.
    pub(super) fn ceilings(
        ceiling: WatchedLimits,
        children: impl IntoIterator<Item = (i32, WatchedLimits)>,
    ) -> Ceilings {
        let limits = Resources::default();
        let tenants =
            HashMap::from([(tenant(), Ceiling { limits, places: None, has_cgroup: false, watched: ceiling })]);
        let origin = Origin::new(&tenant(), &"s".parse().unwrap(), "-");
        let charged = (1..).zip(children).map(|(id, (pid, watched))| {
            (id, Charged { pid, origin: origin.clone(), watched, temp: None, excess: watch::channel(None).0 })
        });
        let charged = Mutex::new(charged.collect());
        let (last, failures) = (AtomicU64::new(0), Counter::default());
        let guardian = Guardian::of_nobody();
        Ceilings(Arc::new(Shared { tenants, charged, last, limits_any: true, failures, guardian }))
    }

    #[test]
    fn a_spare_is_for_who_can_be_limited() {
        let mut shared = Arc::into_inner(ceilings(WatchedLimits::default(), []).0).unwrap();
        shared.limits_any = false;
        shared.tenants.get_mut(&tenant()).unwrap().limits.memory = Some(1);
        let ceilings = Ceilings(Arc::new(shared));
        assert!(ceilings.takes_spares(&tenant()), "memory is watched, whoever is");
        let mut shared = Arc::into_inner(ceilings.0).unwrap();
        shared.tenants.get_mut(&tenant()).unwrap().limits.open_files = Some(1);
        let ceilings = Ceilings(Arc::new(shared));
        assert!(!ceilings.takes_spares(&tenant()));
    }
}

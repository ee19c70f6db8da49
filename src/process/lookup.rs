//! Looks up programs and folders on file systems that may hang. Invariants: a look-up that hangs uses up a permit of
//! its own server only, of which a tenant has what is left for the others, and it runs on a thread of its own, so that
//! it takes no thread away from other work.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::error::SpawnError;
use crate::config::ServerName;
use crate::permits::{Ceiling, Claimant, Limit, Permits};

/// Look-ups of one server that run at the same time.
const AT_ONCE: usize = 4;
/// Time limit for a look-up, waiting for a permit included.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs the look-ups of one server for one claimant.
#[derive(Debug, Clone)]
pub struct Lookups {
    permits: Permits,
    limit: Limit,
    claimant: Claimant,
    patience: Duration,
}

impl Lookups {
    /// The look-ups of a server for a claimant. All look-ups of the server are counted by the same `permits`.
    pub fn new(permits: &Permits, server: &ServerName, claimant: Claimant) -> Self {
        let limit = (Ceiling::Lookups(server.clone()), AT_ONCE);
        Self { permits: permits.clone(), limit, claimant, patience: PATIENCE }
    }

    /// Runs `look`, which may block on a disk, on a new thread. A look-up that outlasts the time limit keeps its thread
    /// and its permit until it ends, and its result is dropped. `command` is for error messages.
    ///
    /// # Errors
    /// The error of `look`, or no answer within 10 seconds.
    pub async fn run<T, L>(&self, command: &str, look: L) -> Result<T, SpawnError>
    where
        T: Send + 'static,
        L: FnOnce() -> Result<T, SpawnError> + Send + 'static,
    {
        let system = |error: std::io::Error| SpawnError::System { command: command.to_owned(), error };
        let late = || SpawnError::NoAnswer { command: command.to_owned(), patience: self.patience };
        let done = async {
            let permit = self.permits.claim(&self.claimant, std::slice::from_ref(&self.limit), self.patience).await;
            let permit = permit.map_err(|_| late())?;
            let (sender, found) = oneshot::channel();
            let look = move || {
                let found = look();
                drop(permit);
                let _ = sender.send(found);
            };
            std::thread::Builder::new().name("sluice-lookup".to_owned()).spawn(look).map_err(system)?;
            found.await.map_err(|_| system(std::io::Error::other("the look-up ended without an answer")))?
        };
        timeout(self.patience, done).await.map_err(|_| late())?
    }
}

/// Awaits `work` while holding `permit`, which is dropped after the time `most`. Returns the permit, if `work` ended
/// before that, and the result.
pub async fn hold<T, R>(permit: T, most: Duration, work: impl Future<Output = R>) -> (Option<T>, R) {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        done = &mut work => return (Some(permit), done),
        () = tokio::time::sleep(most) => drop(permit),
    }
    (None, work.await)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::auth::Principal;
    use crate::config::{ApiKey, Config, Contenders, Server};

    #[tokio::test]
    async fn a_lookup_that_hangs_holds_up_its_own_server_only() {
        let permits = Permits::default();
        let lookups = |server: &str| {
            let lookups = Lookups::new(&permits, &server.parse().unwrap(), Claimant::nobody());
            Lookups { patience: Duration::from_millis(200), ..lookups }
        };
        let (hung, other) = (lookups("hung"), lookups("other"));
        let (release, released) = sync_channel::<()>(0);
        let released = Arc::new(parking_lot::Mutex::new(released));
        // Far more than there are threads for blocking work.
        for _ in 0..600 {
            let released = Arc::clone(&released);
            let look = move || {
                let _ = released.lock().recv();
                Ok(())
            };
            let patience = Lookups { patience: Duration::from_millis(1), ..hung.clone() };
            assert!(matches!(patience.run("hung", look).await, Err(SpawnError::NoAnswer { .. })));
        }
        assert!(permits.full(&hung.claimant, std::slice::from_ref(&hung.limit)).is_some());
        assert!(Arc::strong_count(&released) <= 1 + AT_ONCE, "no thread waits but those that have a permit");
        assert_eq!(other.run("other", || Ok(7)).await.unwrap(), 7);
        assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7);
        let error = hung.run("hung", || Ok(())).await.unwrap_err().to_string();
        assert!(error.contains("\"hung\"") && error.contains("does not answer"), "{error}");
        // Once the file system is there again, all goes on.
        drop(release);
        Lookups { patience: Duration::from_secs(30), ..hung }.run("hung", || Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn look_ups_of_a_tenant_that_hang_leave_some_to_others_on_the_same_server() {
        let mut config = Config::for_servers([Server::new("s".parse().unwrap(), "nothing", Vec::new())]);
        config.auth.anonymous = None;
        let principals = ["acme", "other"].map(|tenant| Principal::of_key(tenant, "one"));
        for one in &principals {
            config.tenants.entry(one.tenant().clone()).or_default();
            let key = ApiKey::from_plain("k", one.tenant().clone(), one.subject().to_owned(), Vec::new());
            config.auth.keys.push(key);
        }
        let permits = Permits::default();
        permits.contend(Contenders::of(&config));
        let [acme, other] = principals.map(|one| Lookups::new(&permits, &"s".parse().unwrap(), Claimant::of(&one)));
        let acme = Lookups { patience: Duration::from_millis(1), ..acme };
        let (_release, released) = sync_channel::<()>(0);
        let released = Arc::new(parking_lot::Mutex::new(released));
        for _ in 0..20 {
            let released = Arc::clone(&released);
            let look = move || {
                let _ = released.lock().recv();
                Ok(())
            };
            assert!(matches!(acme.run("hung", look).await, Err(SpawnError::NoAnswer { .. })));
        }
        assert_eq!(other.run("well", || Ok(7)).await.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_held_for_a_while_only() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&turns).try_acquire_owned().unwrap();
        let (turn, done) = hold(turn, Duration::from_secs(5), async { 7 }).await;
        assert_eq!((turns.available_permits(), done), (0, 7));
        let slow = hold(turn, Duration::from_secs(5), tokio::time::sleep(Duration::from_secs(60)));
        let other = async {
            let _turn = turns.acquire().await.unwrap();
            tokio::time::Instant::now()
        };
        let begin = tokio::time::Instant::now();
        let (_, got) = tokio::join!(slow, other);
        assert_eq!(got - begin, Duration::from_secs(5));
    }
}

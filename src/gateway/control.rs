//! Puts another configuration in force while the gateway runs.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::StartError;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::http::{App, Loopback, Snapshot};
use crate::pool::Pools;
use crate::session::Registry;

/// Puts configurations in force in a gateway. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Parts>);

struct Parts {
    app: Arc<App>,
    sessions: Arc<Registry>,
    pools: Arc<Pools>,
    /// Which listeners are bound to loopback addresses.
    loopback: Loopback,
    /// Held while a configuration is put in force.
    replacing: Mutex<()>,
}

impl Control {
    pub(super) fn new(app: &Arc<App>, sessions: &Arc<Registry>, pools: &Arc<Pools>, loopback: Loopback) -> Self {
        let (app, sessions, pools) = (Arc::clone(app), Arc::clone(sessions), Arc::clone(pools));
        Self(Arc::new(Parts { app, sessions, pools, loopback, replacing: Mutex::default() }))
    }

    /// Puts another configuration in force as a whole. Requests that come later are judged by it; a session goes on
    /// with the server that it was opened on, and ends at once if its principal may not use that server any more.
    /// Without effect on what is decided at the start: addresses of the listeners,
    /// `children.spawn_concurrency`, `shutdown`, `state_dir` and `log`.
    ///
    /// # Errors
    /// A key file cannot be read or used. Then the configuration before stays in force.
    pub async fn replace(&self, config: Config) -> Result<(), StartError> {
        let parts = Arc::clone(&self.0);
        spawn_blocking(move || parts.replace(&config)).await?
    }
}

impl Parts {
    fn replace(&self, config: &Config) -> Result<(), StartError> {
        let _one_at_a_time = self.replacing.lock();
        let previous = self.app.snapshot.load_full();
        let auth = Authenticator::after(Some(&previous.auth), &config.auth)?;
        let next = Arc::new(Snapshot::new(config, auth, self.loopback, &self.pools, Some(&previous)));
        self.app.snapshot.store(Arc::clone(&next));
        self.sessions.tidy(|principal, server| next.patience(principal, server));
        Ok(())
    }
}

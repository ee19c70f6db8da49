//! Leave of the circuit breaker to have a child, and what it says to operators.

use tokio::time::{Instant, sleep};

use super::Pool;
use super::slots::Whose;
use crate::config::Isolation;
use crate::worker::error::Failure;
use crate::worker::handle::Worker;
use crate::worker::restart::{Admission, Attempt, Broken};

/// Leave to have a child. Whoever gives it back without one has tried nothing.
pub(super) struct Trial<'a> {
    pool: &'a Pool,
    whose: Whose,
    attempt: Option<Attempt>,
}

impl Trial<'_> {
    /// What has become of others while this had to wait counts for it.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) fn renew(&mut self) -> Result<(), Failure> {
        let Some(attempt) = self.attempt else { return Ok(()) };
        let renewed = self.pool.breaker.renew(&self.whose, attempt, Instant::now());
        self.attempt = Some(renewed.map_err(|retry| Failure::crash_loop(&self.pool.server.name, retry))?);
        Ok(())
    }

    /// There is a child: from now on, what becomes of that decides.
    pub(super) fn comes_to(mut self, worker: &Worker) {
        let Some(attempt) = self.attempt.take() else { return };
        worker.attempted(attempt);
        if worker.opened().is_some() {
            self.pool.breaker.opened(&self.whose, attempt);
        } else if !worker.is_alive() {
            // A spare that has just ended: perhaps before it could be known whose attempt it was.
            self.pool.breaker.abandoned(&self.whose, attempt);
        }
    }

    /// No child could be started.
    pub(super) fn fails(mut self) {
        let Some(attempt) = self.attempt.take() else { return };
        self.pool.breaker.crashed(&self.whose, attempt, self.pool.answered_for(&self.whose), Instant::now());
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.attempt.inspect(|attempt| self.pool.breaker.abandoned(&self.whose, *attempt));
    }
}

impl Pool {
    /// What an attempt may be made with that has been let through.
    pub(super) fn trial(&self, whose: Whose, attempt: Attempt) -> Trial<'_> {
        Trial { pool: self, whose, attempt: Some(attempt) }
    }

    /// Leave to have a child, after the pause that the circuit breaker wants.
    ///
    /// # Errors
    /// The server keeps crashing.
    pub(super) async fn admitted(&self, whose: Whose) -> Result<Trial<'_>, Failure> {
        let refused = |retry| Failure::crash_loop(&self.server.name, retry);
        match self.breaker.admit(&whose, Instant::now()) {
            Admission::After(attempt, pause) => {
                let trial = self.trial(whose, attempt);
                sleep(pause).await;
                // It stays of its generation, but the crashes of others may have been too many by now.
                self.breaker.renew(&trial.whose, attempt, Instant::now()).map_err(refused)?;
                Ok(trial)
            }
            Admission::Refused(retry) => Err(refused(retry)),
        }
    }

    /// For whom the server is left alone because it keeps crashing, or is just tried again.
    pub(super) fn broken(&self) -> Vec<(Whose, Broken)> {
        self.breaker.broken(Instant::now())
    }

    /// What operators are told of that, a line for each.
    pub(super) fn crash_loops(&self) -> Vec<String> {
        let name = &self.server.name;
        let who = |whose: Whose| match whose {
            Some(tenant) => format!("{name} for {tenant}"),
            None if self.server.isolation == Isolation::Shared => format!("{name}, for all"),
            None => format!("{name}, its spares"),
        };
        let says = |(whose, broken)| match broken {
            Broken::Open(left) => format!("crash loop: {}, next attempt in {:.1} s", who(whose), left.as_secs_f64()),
            Broken::HalfOpen => format!("half-open: {}, the next attempt decides", who(whose)),
        };
        self.broken().into_iter().map(says).collect()
    }

    /// Calls of clients that the children of a tenant have answered which are alive.
    pub(super) fn answered_for(&self, whose: &Whose) -> u64 {
        let shelf = self.shelf.lock();
        let theirs = |worker: &&Worker| worker.shared().origin.tenant() == *whose;
        shelf.workers.iter().filter(theirs).map(Worker::answered).sum()
    }
}

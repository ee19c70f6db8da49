//! JWK sets that change while the gateway runs: a file, which is read again when it changes, and a URL, which is
//! fetched on demand. File and URL come from the configuration and never from a token. One fetch runs at a time and
//! fetches are rate limited; if a newer set cannot be loaded, the old one stays in use for a limited time.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use reqwest::{Client, StatusCode, Url, redirect};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::keys::{KeySet, MAX_BYTES, read_bounded};
use super::{AuthError, AuthSetupError};
use crate::config::is_loopback_address;

/// The shortest time between two reads of a file.
const FILE_INTERVAL: Duration = Duration::from_secs(1);
/// The longest time for reading the file, because a file system may not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// The time after a successful fetch in which an unknown `kid` does not cause another fetch.
const FETCH_INTERVAL: Duration = Duration::from_secs(30);
/// The time after a failed fetch in which no other fetch is made.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The age of a fetched set after which a new one is fetched. The old set is used meanwhile.
const MAX_AGE: Duration = Duration::from_secs(600);
/// The longest time that a set stays in use after it was last confirmed to be current. A withdrawn key therefore
/// expires even if fetches or reads of the file fail.
const MAX_STALE: Duration = Duration::from_secs(3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const TOTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// A JWK set in a file that may change.
pub(super) struct JwksFile {
    path: PathBuf,
    current: ArcSwap<KeySet>,
    watch: Mutex<FileWatch>,
}

struct FileWatch {
    /// The earliest time of the next read of the file.
    next: Instant,
    /// The start of the read that is in progress, if there is one.
    looking: Option<Instant>,
    /// The time at which the keys in use were last confirmed to be those of the file.
    good: Instant,
    /// The SHA-256 of the file's content at the last read. Size and modification time do not prove that a file is
    /// unchanged.
    found: Option<[u8; 32]>,
    /// Whether that content was not usable.
    broken: bool,
}

impl JwksFile {
    /// Reads the file, which must contain a usable key.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, AuthSetupError> {
        let bytes = read_bounded(path)?;
        let keys = parse(path, &bytes)?;
        if keys.is_empty() {
            let problem = "no usable key: RSA (2048 bits or more), P-256, P-384 and Ed25519 keys for signatures are";
            return Err(AuthSetupError::Key { path: path.to_owned(), problem: problem.to_owned() });
        }
        let now = Instant::now();
        let found = Some(Sha256::digest(&bytes).into());
        let watch = FileWatch { next: now + FILE_INTERVAL, looking: None, good: now, found, broken: false };
        Ok(Arc::new(Self { path: path.to_owned(), current: ArcSwap::from_pointee(keys), watch: Mutex::new(watch) }))
    }

    /// The keys of the file, at most about a second old. Another thread reads the file.
    ///
    /// # Errors
    /// [`AuthError::KeysUnavailable`]: the file could not be read or used for so long that a key in use might have been
    /// withdrawn.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Arc<KeySet>, AuthError> {
        if self.is_due() {
            let file = Arc::clone(self);
            let look = tokio::task::spawn_blocking(move || Look(&file).read());
            // The look goes on: its result is for those who come later.
            if tokio::time::timeout(LOOK_TIMEOUT, look).await.is_err() {
                return Err(AuthError::KeysUnavailable(FILE_INTERVAL));
            }
        }
        let watch = self.watch.lock();
        let hangs = watch.looking.is_some_and(|since| since.elapsed() >= LOOK_TIMEOUT);
        if hangs || watch.good.elapsed() >= MAX_STALE {
            return Err(AuthError::KeysUnavailable(watch.next.saturating_duration_since(Instant::now())));
        }
        drop(watch);
        Ok(self.current.load_full())
    }

    /// Whether this caller has to read the file now. One read is in progress at a time.
    fn is_due(&self) -> bool {
        let now = Instant::now();
        let mut watch = self.watch.lock();
        let is_due = now >= watch.next && watch.looking.is_none();
        if is_due {
            (watch.next, watch.looking) = (now + FILE_INTERVAL, Some(now));
        }
        is_due
    }
}

/// A read of the file in progress. Dropping the value, on any path, allows the next read.
struct Look<'a>(&'a JwksFile);

impl Look<'_> {
    fn read(self) {
        let JwksFile { path, current, watch } = self.0;
        let bytes = read_bounded(path);
        let text = bytes.as_ref().map_or_else(|error| error.to_string().into_bytes(), Clone::clone);
        let found: [u8; 32] = Sha256::digest(&text).into();
        let is_known = watch.lock().found.replace(found) == Some(found);
        if is_known {
            // The same as before: good if it was.
            let mut watch = watch.lock();
            if bytes.is_ok() && !watch.broken {
                watch.good = Instant::now();
            }
            return;
        }
        match bytes.and_then(|bytes| parse(path, &bytes)) {
            Ok(keys) => {
                tracing::info!(path = %path.display(), "read the JWK set again");
                current.store(Arc::new(keys));
                let mut watch = watch.lock();
                (watch.good, watch.broken) = (Instant::now(), false);
            }
            Err(error) => {
                watch.lock().broken = true;
                // Once, until it changes again.
                tracing::warn!(%error, "the JWK set changed and cannot be used; the old one stays for an hour");
            }
        }
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.0.watch.lock().looking = None;
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<KeySet, AuthSetupError> {
    KeySet::jwks(bytes).map_err(|problem| AuthSetupError::Key { path: path.to_owned(), problem })
}

/// A JWK set that is fetched from a URL.
pub(super) struct JwksUrl {
    url: Url,
    client: Client,
    /// The fetched set, and the time of the fetch.
    current: ArcSwapOption<(Arc<KeySet>, Instant)>,
    attempt: Mutex<Attempt>,
    /// Signals the end of each fetch, successful or not.
    ended: watch::Sender<()>,
}

#[derive(Default)]
struct Attempt {
    running: bool,
    /// The earliest time of the next fetch.
    next: Option<Instant>,
}

impl JwksUrl {
    /// Checks the URL without fetching it.
    pub(super) fn new(url: &str) -> Result<Arc<Self>, AuthSetupError> {
        let refuse = |problem: &str| AuthSetupError::Settings(format!("jwks_url: {problem}"));
        let url = Url::parse(url).map_err(|error| refuse(&error.to_string()))?;
        let loopback = is_loopback_address(url.host_str().unwrap_or_default());
        if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
            return Err(refuse(
                "keys come over https, or over http from a loopback address (127.0.0.1, [::1]; not from a name, which may \
                 lead elsewhere): anything else could be tampered with",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("a key set is public: leave user and password out of its URL"));
        }
        let mut builder = Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TOTAL_TIMEOUT)
            .pool_max_idle_per_host(0)
            .https_only(!loopback);
        if loopback {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| refuse(&format!("no HTTP client: {error}")))?;
        let (ended, _) = watch::channel(());
        Ok(Arc::new(Self { url, client, current: ArcSwapOption::empty(), attempt: Mutex::default(), ended }))
    }

    /// The newest set, if possible one that satisfies `wanted`. A suitable cached set is returned at once; otherwise
    /// all callers wait for one fetch.
    ///
    /// # Errors
    /// [`AuthError::KeysUnavailable`]: no set could be fetched, or only one that is too old.
    pub(super) async fn get(self: &Arc<Self>, wanted: impl Fn(&KeySet) -> bool) -> Result<Arc<KeySet>, AuthError> {
        if let Some((keys, age)) = self.cached()
            && wanted(&keys)
        {
            if age >= MAX_AGE {
                self.fetch();
            }
            return Ok(keys);
        }
        if let Some(mut ended) = self.fetch() {
            // An error would mean that the sender is gone, and `self` has it.
            let _ = ended.changed().await;
        }
        self.cached().map(|(keys, _)| keys).ok_or_else(|| {
            let next = self.attempt.lock().next;
            AuthError::KeysUnavailable(
                next.map_or(RETRY_INTERVAL, |next| next.saturating_duration_since(Instant::now())),
            )
        })
    }

    fn cached(&self) -> Option<(Arc<KeySet>, Duration)> {
        let current = self.current.load();
        let (keys, at) = current.as_deref()?;
        Some((Arc::clone(keys), at.elapsed())).filter(|(_, age)| *age < MAX_STALE)
    }

    /// Starts a fetch, or joins the one in progress. `None` if it is too early for another fetch. The fetch runs in a
    /// task of its own, so that it outlives a client that disconnects.
    fn fetch(self: &Arc<Self>) -> Option<watch::Receiver<()>> {
        let mut attempt = self.attempt.lock();
        // Under the lock, so that the end of a running fetch cannot be missed.
        let ended = self.ended.subscribe();
        if attempt.running {
            return Some(ended);
        }
        if attempt.next.is_some_and(|next| Instant::now() < next) {
            return None;
        }
        attempt.running = true;
        let mut running = Running { source: Arc::clone(self), pause: RETRY_INTERVAL };
        tokio::spawn(async move {
            match running.source.download().await {
                Ok(keys) => {
                    running.pause = FETCH_INTERVAL;
                    if keys.is_empty() {
                        tracing::warn!(host = running.source.url.host_str(), "the JWK set has no usable key");
                    }
                    running.source.current.store(Some(Arc::new((Arc::new(keys), Instant::now()))));
                }
                Err(problem) => {
                    tracing::warn!(host = running.source.url.host_str(), problem, "the JWK set could not be fetched");
                }
            }
        });
        Some(ended)
    }

    async fn download(&self) -> Result<KeySet, String> {
        let request = self.client.get(self.url.clone()).header(http::header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(describe)?;
        if response.status() != StatusCode::OK {
            return Err(format!(
                "the answer was {} and not 200; redirects are not followed",
                response.status().as_u16()
            ));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(describe)? {
            if bytes.len() + chunk.len() > MAX_BYTES {
                return Err(format!("the answer is larger than {MAX_BYTES} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        KeySet::jwks(&bytes)
    }
}

/// A fetch in progress. Dropping the value, on any path, allows the next fetch and wakes the waiting callers.
struct Running {
    source: Arc<JwksUrl>,
    pause: Duration,
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.source.attempt.lock() = Attempt { running: false, next: Some(Instant::now() + self.pause) };
        self.source.ended.send_replace(());
    }
}

/// The text of a transport error with its causes and without the URL.
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests;

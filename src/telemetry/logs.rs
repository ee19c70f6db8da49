//! Logging: lines on stderr, human-readable on a terminal, otherwise one JSON object each. The logging thread only
//! formats a line; another thread writes it (`outlet`), so a slow reader of stderr blocks no thread that serves.

use std::io::{self, IsTerminal as _};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

use super::outlet::{Duty, Outlet, Share, say};
use super::repeated;
use crate::config::{Log, LogFormat};
use crate::text::{visible, visible_coloured, visible_json};

/// The tracing target of lines that child processes write to stderr.
pub const CHILD: &str = "sluice::child";
/// The tracing target of the line that reports the number of lost lines.
const LOST: &str = "sluice::log";
/// The longest time that a panicking process waits for its message to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The outlet of the process, set when logging starts.
static OUTLET: OnceLock<Outlet> = OnceLock::new();
/// The number of log lines that this process has lost.
static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

/// Starts logging for the process. An invalid filter is reported and replaced by `info`. A second call does nothing.
///
/// # Errors
/// The system cannot start the writing thread.
pub fn init(log: &Log) -> io::Result<()> {
    if OUTLET.get().is_some() {
        return Ok(());
    }
    let outlet = Outlet::start(rustix::stdio::stderr(), DROPPED.clone(), Writer)?;
    let outlet = OUTLET.get_or_init(|| outlet).clone();
    let (filter, wrong) = match EnvFilter::try_new(&log.filter) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new("info"), Some(error)),
    };
    let is_terminal = io::stderr().is_terminal();
    let form = match log.format {
        LogFormat::Auto | LogFormat::Human if is_terminal => Form::Coloured,
        LogFormat::Human => Form::Human,
        LogFormat::Auto | LogFormat::Json => Form::Json,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_span_events(FmtSpan::NONE)
        // It would say so on stderr, there and then.
        .log_internal_errors(false)
        .with_writer(Lines { outlet, form });
    let done = match form {
        Form::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        Form::Human | Form::Coloured => builder.with_ansi(form == Form::Coloured).with_target(false).try_init(),
    };
    if let (Ok(()), Some(error)) = (done, wrong) {
        tracing::warn!(filter = %log.filter, %error, "the log filter is not valid; using \"info\"");
    }
    Ok(())
}

/// Logs the numbers of omitted lines, stops taking lines, and waits until the queued lines are written, at most for
/// `within`.
pub fn finish(within: Duration) {
    if let Some(outlet) = OUTLET.get() {
        repeated::tell_all();
        outlet.finish(within);
    }
}

/// The counter of lost log lines of this process.
pub(super) fn dropped() -> Counter {
    DROPPED.clone()
}

/// Logs panics as log lines, without blocking. The default hook writes to stderr synchronously.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let (thread, at) = (std::thread::current(), panic.location().map(tracing::field::display));
        tracing::error!(thread = thread.name(), at, "panic: {}", message(panic));
    }));
}

/// For a process without logging: writes panics to stderr, with a bound on the time that a slow reader can take.
pub fn say_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        say(format!("sluice: panic at {at}: {}\n", visible(message(panic))), LAST_WORDS);
    }));
}

fn message<'a>(panic: &'a std::panic::PanicHookInfo<'_>) -> &'a str {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

/// The additional duties of the writing thread: reports lost lines and omitted lines.
struct Writer;

impl Duty for Writer {
    fn lost(&mut self, lines: u64) {
        tracing::warn!(target: LOST, lines, "log lines were lost: stderr did not take them");
    }

    fn idle(&mut self) -> Option<Duration> {
        repeated::tell()
    }
}

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Human,
    Coloured,
}

/// Makes a [`Line`] writer for each log line.
#[derive(Debug)]
struct Lines {
    outlet: Outlet,
    form: Form,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { lines: self, share: Share::Own }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line<'a> {
        let share = match meta.target() {
            CHILD => Share::Others,
            LOST => Share::Writer,
            _ => Share::Own,
        };
        Line { lines: self, share }
    }
}

/// Takes one complete log line and queues it.
struct Line<'a> {
    lines: &'a Lines,
    share: Share,
}

impl io::Write for Line<'_> {
    /// Queues a line with misleading characters escaped. The formatter writes a whole line at once.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(bytes));
        let line = match self.lines.form {
            Form::Json => visible_json(&text),
            Form::Human => visible(&text),
            Form::Coloured => visible_coloured(&text),
        };
        match line.len() + 1 == bytes.len() && matches!(line, std::borrow::Cow::Borrowed(_)) {
            true => self.lines.outlet.push(bytes, self.share),
            false => self.lines.outlet.push(format!("{line}\n").as_bytes(), self.share),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

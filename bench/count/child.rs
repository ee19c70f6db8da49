//! The server of a session: its process sleeps, and this speaks for it through its pipes, which Linux lets anybody open
//! who may look at the process.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::sync::Notify;

thread_local! {
    /// The processes that somebody speaks for.
    static KNOWN: RefCell<BTreeSet<PathBuf>> = const { RefCell::new(BTreeSet::new()) };
}

/// A handle of the server. It ends with its process.
pub struct Child {
    shared: Arc<Shared>,
    stdout: PathBuf,
}

#[derive(Default)]
struct Shared {
    /// The messages that the server has heard.
    heard: AtomicUsize,
    hears: Notify,
}

impl Child {
    /// How long a process of a server sleeps, in seconds: by this it is found. Contains the id of this process.
    pub fn seconds() -> String {
        format!("3600.{}", std::process::id())
    }

    /// Waits for the process of the session that is being opened, and speaks for it.
    pub async fn start() -> Self {
        let deadline = Instant::now() + Duration::from_secs(60);
        let process = loop {
            if let Some(process) = find() {
                break process;
            }
            assert!(Instant::now() < deadline, "no process of a server has started");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let open = pipe::OpenOptions::new();
        let stdin = open.open_receiver(process.join("fd/0")).expect("the stdin of a process of mine");
        let stdout = process.join("fd/1");
        let answers = open.open_sender(&stdout).expect("the stdout of a process of mine");
        let shared = Arc::<Shared>::default();
        tokio::spawn(speak(stdin, answers, Arc::clone(&shared)));
        Self { shared, stdout }
    }

    /// The number of messages that the server has heard.
    pub async fn heard(&self) -> usize {
        self.shared.heard.load(Ordering::Relaxed)
    }

    /// Waits until the server has heard so many messages.
    pub async fn hears(&self, count: usize) {
        while self.shared.heard.load(Ordering::Relaxed) < count {
            self.shared.hears.notified().await;
        }
    }

    /// Another way to write what the server says.
    pub fn voice(&self) -> pipe::Sender {
        pipe::OpenOptions::new().open_sender(&self.stdout).expect("the stdout of a process of mine")
    }
}

/// A process of a server that nobody speaks for.
fn find() -> Option<PathBuf> {
    let wanted = format!("sleep\0{}\0", Child::seconds());
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(|entry| Some(entry.ok()?.path()));
    let is_one =
        |process: &Path| std::fs::read(process.join("cmdline")).is_ok_and(|words| words.ends_with(wanted.as_bytes()));
    let mut found = processes.filter(|process| is_one(process));
    found.find(|process| KNOWN.with_borrow_mut(|known| known.insert(process.clone())))
}

/// Answers each request under its id; a call that says so gets no answer.
async fn speak(mut stdin: pipe::Receiver, mut stdout: pipe::Sender, shared: Arc<Shared>) {
    let mut input = Vec::with_capacity(256 * 1024);
    let mut output = Vec::with_capacity(256 * 1024);
    while stdin.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        let mut start = 0;
        while let Some(length) = memchr::memchr(b'\n', &input[start..]) {
            answer(&input[start..start + length], &mut output);
            start += length + 1;
            shared.heard.fetch_add(1, Ordering::Relaxed);
        }
        input.drain(..start);
        if stdout.write_all(&output).await.is_err() {
            return;
        }
        output.clear();
        shared.hears.notify_one();
    }
}

fn answer(line: &[u8], output: &mut Vec<u8>) {
    let after =
        |name: &[u8]| memchr::memmem::find(&line[..line.len().min(120)], name).map(|at| &line[at + name.len()..]);
    let Some(id) = after(b"\"id\":") else { return };
    let id = &id[..id.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or_default()];
    if id.is_empty() || after(b"\"unanswered\"").is_some() {
        return;
    }
    output.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    output.extend_from_slice(id);
    if after(b"\"method\":\"initialize\"").is_some() {
        output.extend_from_slice(
            b",\"result\":{\"protocolVersion\":\"2025-06-18\",\"capabilities\":{\"tools\":{},\"logging\":{}},",
        );
        output.extend_from_slice(b"\"serverInfo\":{\"name\":\"s\",\"version\":\"1\"}}}\n");
    } else {
        output.extend_from_slice(b",\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"");
        // About as much as was asked for, of the same text.
        let text = if line.len() > 2000 { &line[1000..line.len() - 1000] } else { b"answer" };
        output.extend_from_slice(text);
        output.extend_from_slice(b"\"}]}}\n");
    }
}

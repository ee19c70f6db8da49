//! Stdout of `connect`: one task writes, whole lines only, so that two messages never mix.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::jsonrpc::one_line;

/// How many lines wait for a client that is slow to read. Then nothing more is taken from the gateway.
const LINES: usize = 64;

/// Where lines are put.
#[derive(Debug)]
pub(super) struct Output {
    lines: mpsc::Sender<Bytes>,
}

/// What writes them.
#[derive(Debug)]
pub(super) struct Writer {
    task: JoinHandle<()>,
    finish: CancellationToken,
}

impl Output {
    /// Begins to write to `stdout`.
    pub(super) fn new(stdout: impl AsyncWrite + Unpin + Send + 'static) -> (Self, Writer) {
        let (lines, queue) = mpsc::channel(LINES);
        let finish = CancellationToken::new();
        let task = tokio::spawn(write(queue, stdout, finish.clone()));
        (Self { lines }, Writer { task, finish })
    }

    /// Puts a message on a line of its own. Nothing happens when stdout is closed: [`Self::closed`] ends everything.
    pub(super) async fn write(&self, message: &[u8]) {
        let _ = self.lines.send(one_line(BytesMut::from(message))).await;
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.lines.closed().await;
    }
}

impl Writer {
    /// Writes what is left, for no longer than `limit`.
    pub(super) async fn finish(self, limit: Duration) {
        self.finish.cancel();
        // A client that does not read its last answers does not want them.
        let _ = tokio::time::timeout(limit, self.task).await;
    }
}

async fn write(mut queue: mpsc::Receiver<Bytes>, mut stdout: impl AsyncWrite + Unpin, finish: CancellationToken) {
    loop {
        let line = tokio::select! {
            biased;
            line = queue.recv() => line,
            () = finish.cancelled() => None,
        };
        let Some(line) = line else { return };
        // Without a reader there is no one to tell; the queue closes, and with it `connect` ends.
        if stdout.write_all(&line).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use tokio::io::AsyncReadExt as _;

    #[tokio::test]
    async fn what_was_put_is_written_before_the_end() {
        let (mut reader, stdout) = tokio::io::duplex(1000);
        let (output, writer) = Output::new(stdout);
        for text in ["{\n}", "[\"\\n\"]"] {
            output.write(text.as_bytes()).await;
        }
        writer.finish(Duration::from_secs(10)).await;
        let mut text = String::new();
        reader.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "{ }\n[\"\\n\"]\n");
    }

    #[tokio::test]
    async fn a_reader_that_went_away_is_noticed() {
        let (reader, stdout) = tokio::io::duplex(1000);
        let (output, _writer) = Output::new(stdout);
        drop(reader);
        output.write(b"{}").await;
        output.closed().await;
    }
}

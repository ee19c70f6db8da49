//! The stdout of `connect`: one task writes whole lines, so that two messages never mix.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::jsonrpc::one_line;

/// The largest number of lines that wait for a slow client. Then no more messages are taken from the gateway.
const LINES: usize = 64;

/// The queue of lines for stdout.
#[derive(Debug)]
pub(super) struct Output {
    lines: mpsc::Sender<Bytes>,
}

/// The task that writes the lines.
#[derive(Debug)]
pub(super) struct Writer {
    task: JoinHandle<()>,
    finish: CancellationToken,
}

impl Output {
    /// Starts the writing task. Returns the queue and the task.
    pub(super) fn new(stdout: impl AsyncWrite + Unpin + Send + 'static) -> (Self, Writer) {
        let (lines, queue) = mpsc::channel(LINES);
        let finish = CancellationToken::new();
        let task = tokio::spawn(write(queue, stdout, finish.clone()));
        (Self { lines }, Writer { task, finish })
    }

    /// Queues a message as one line. Waits while the queue is full. Drops the message if stdout is closed.
    pub(super) async fn write(&self, message: &[u8]) {
        let _ = self.lines.send(one_line(BytesMut::from(message)).freeze()).await;
    }

    /// Waits until stdout is closed.
    pub(super) async fn closed(&self) {
        self.lines.closed().await;
    }
}

impl Writer {
    /// Writes the queued lines, at most for `limit`.
    pub(super) async fn finish(self, limit: Duration) {
        self.finish.cancel();
        // A client that does not read its last answers does not want them.
        let _ = tokio::time::timeout(limit, self.task).await;
    }
}

/// Writes lines until stdout fails, or until `finish` is cancelled and no line is queued.
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

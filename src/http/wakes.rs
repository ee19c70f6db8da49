//! Spares a connection a second poll for each request with a body. hyper wakes a connection whenever a handler takes a
//! frame of a request's body, so that the connection reads the next one. Behind the last frame there is nothing to
//! read; the connection would be polled once more, and perhaps a sleeping thread woken for it.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::Version;
use http_body::{Body as HttpBody, Frame, SizeHint};

thread_local! {
    /// What this thread does with the wake-ups of connections.
    static WAKES: Cell<Wakes> = const { Cell::new(Wakes::Outside) };
}

/// What a thread does with the wake-ups of connections.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wakes {
    /// The thread polls no connection: each wake-up wakes the task of its connection, and none may be held back.
    Outside,
    /// The thread polls a connection. Each wake-up wakes the task of its connection.
    Pass,
    /// Wake-ups are held back, and none has come so far.
    Hold,
    /// Wake-ups are held back, and at least one has come.
    Held,
}

/// Polls a connection with a waker of its own, whose wake-ups a [`QuietBody`] can hold back.
#[derive(Default)]
pub struct Poller {
    /// The waker of the task, and the connection's own one around it. `None` before the first poll.
    wakers: Option<(Waker, Waker)>,
}

impl Poller {
    /// Polls the connection. Allocates memory only if the connection is in another task than before.
    pub fn poll<F: Future>(&mut self, connection: Pin<&mut F>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.wakers.take_if(|(task, _)| !task.will_wake(context.waker()));
        let (_, own) = self.wakers.get_or_insert_with(|| {
            let task = context.waker().clone();
            (task.clone(), Arc::new(ConnectionWaker(task)).into())
        });
        let _inside = Inside::begin();
        connection.poll(&mut Context::from_waker(own))
    }
}

/// Wakes the task of a connection, unless wake-ups are held back on this thread.
struct ConnectionWaker(Waker);

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match WAKES.get() {
            Wakes::Outside | Wakes::Pass => self.0.wake_by_ref(),
            Wakes::Hold | Wakes::Held => WAKES.set(Wakes::Held),
        }
    }
}

/// Says that this thread polls a connection, until this value is dropped.
struct Inside;

impl Inside {
    fn begin() -> Self {
        WAKES.set(Wakes::Pass);
        Self
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        WAKES.set(Wakes::Outside);
    }
}

/// Holds back wake-ups on this thread until this value is dropped.
struct Hold;

impl Hold {
    fn begin() -> Self {
        WAKES.set(Wakes::Hold);
        Self
    }

    /// Whether a wake-up has come.
    fn has_held(&self) -> bool {
        WAKES.get() == Wakes::Held
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        WAKES.set(Wakes::Pass);
    }
}

/// The body of a request. The connection is not woken when the last frame is taken.
pub struct QuietBody<B> {
    body: B,
    /// Whether the handler is polled by the connection that reads the body, so that the connection is in hand. With
    /// HTTP/2, handlers are tasks of their own.
    is_in_hand: bool,
}

impl<B> QuietBody<B> {
    /// Wraps the body of a request of this HTTP version.
    pub fn new(body: B, version: Version) -> Self {
        Self { body, is_in_hand: version <= Version::HTTP_11 }
    }
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for QuietBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        // The rest of a body that nobody wanted is read by another task, which must wake the connection.
        if !self.is_in_hand || WAKES.get() != Wakes::Pass {
            return Pin::new(&mut self.body).poll_frame(context);
        }
        let hold = Hold::begin();
        let polled = Pin::new(&mut self.body).poll_frame(context);
        let was_woken = hold.has_held();
        drop(hold);
        // A body whose length is not known ends with a frame that the connection has yet to read.
        if was_woken && !self.body.is_end_stream() {
            context.waker().wake_by_ref();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::convert::Infallible;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Incoming;
    use hyper::service::service_fn;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use hyper_util::server::conn::auto::Builder;
    use parking_lot::Mutex;
    use tokio::io::AsyncWriteExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls a connection until it is not woken any more. Returns the number of polls.
    fn polls<F: Future>(poller: &mut Poller, mut connection: Pin<&mut F>, counter: &Arc<Counter>) -> usize {
        let waker = counter.clone().into();
        (1..)
            .find(|_| {
                counter.0.store(0, Ordering::Relaxed);
                let _ = poller.poll(connection.as_mut(), &mut Context::from_waker(&waker));
                counter.0.load(Ordering::Relaxed) == 0
            })
            .unwrap()
    }

    #[tokio::test]
    async fn a_request_whose_body_is_there_is_polled_once_and_no_frame_is_missed() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let (answers, lengths) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
        let (may_answer, length) = (Arc::clone(&answers), Arc::clone(&lengths));
        let service = service_fn(move |request: Request<Incoming>| {
            let (may_answer, length) = (Arc::clone(&may_answer), Arc::clone(&length));
            async move {
                let (parts, body) = request.into_parts();
                let body = QuietBody::new(body, parts.version).collect().await.unwrap().to_bytes();
                length.store(body.len(), Ordering::Relaxed);
                may_answer.acquire().await.unwrap().forget();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"ok"))))
            }
        });
        let builder = Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(server), service));
        let (mut poller, counter) = (Poller::default(), Arc::new(Counter::default()));
        polls(&mut poller, connection.as_mut(), &counter);
        for round in 0..3 {
            client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await.unwrap();
            let needed = polls(&mut poller, connection.as_mut(), &counter);
            assert_eq!((lengths.swap(0, Ordering::Relaxed), needed), (4, 1), "round {round}");
            answers.add_permits(1);
            polls(&mut poller, connection.as_mut(), &counter);
        }
        // Chunks: the connection is woken for each of them.
        let chunks = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n";
        client.write_all(chunks.as_bytes()).await.unwrap();
        polls(&mut poller, connection.as_mut(), &counter);
        assert_eq!(lengths.swap(0, Ordering::Relaxed), 4);
        answers.add_permits(1);
        polls(&mut poller, connection.as_mut(), &counter);
        // A body in two parts, and one of which the second part never comes.
        for (first, second, read) in [("bo", "dy", 4), ("bo", "", 0)] {
            let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
            client.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
            polls(&mut poller, connection.as_mut(), &counter);
            client.write_all(second.as_bytes()).await.unwrap();
            polls(&mut poller, connection.as_mut(), &counter);
            assert_eq!(lengths.swap(0, Ordering::Relaxed), read);
            answers.add_permits(1);
            polls(&mut poller, connection.as_mut(), &counter);
        }
    }

    /// As with the rest of a body that nobody wanted.
    #[tokio::test]
    async fn the_connection_is_woken_when_another_task_takes_a_frame() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let given = Arc::new(Mutex::new(None));
        let give = Arc::clone(&given);
        let service = service_fn(move |request: Request<Incoming>| {
            let (parts, body) = request.into_parts();
            *give.lock() = Some(QuietBody::new(body, parts.version));
            std::future::pending::<Result<Response<Full<Bytes>>, Infallible>>()
        });
        let builder = Builder::new(TokioExecutor::new());
        let mut connection = pin!(builder.serve_connection(TokioIo::new(server), service));
        let (mut poller, counter) = (Poller::default(), Arc::new(Counter::default()));
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n";
        client.write_all(format!("{head}bo").as_bytes()).await.unwrap();
        polls(&mut poller, connection.as_mut(), &counter);
        client.write_all(b"dy").await.unwrap();
        polls(&mut poller, connection.as_mut(), &counter);
        let mut body = given.lock().take().unwrap();
        let reader = Arc::new(Counter::default());
        let mut take = || match pin!(body.frame()).poll(&mut Context::from_waker(&reader.clone().into())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        };
        assert_eq!(take().as_deref(), Some(&b"bo"[..]));
        let woken = [&counter, &reader].map(|counter| counter.0.load(Ordering::Relaxed));
        assert_eq!(woken, [1, 0], "wake-ups of the connection and of the reader");
        polls(&mut poller, connection.as_mut(), &counter);
        assert_eq!(take().as_deref(), Some(&b"dy"[..]));
    }
}

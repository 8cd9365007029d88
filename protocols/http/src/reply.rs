//! What a handler answers: a response, or how it comes to one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use serveloop::{Protocol, Waker};

use crate::request::Request;
use crate::response::Response;

/// Answers requests. A closure or a function from `&Request<'_>` to a [`Response`] or a [`Reply`] is
/// a handler.
///
/// Each connection has its own, so it may keep what concerns one client. What all connections share
/// is in an `Arc`.
///
/// ```
/// use serveloop_http::{Handler, Http, Reply, Request, Response};
///
/// /// Counts the requests of each connection.
/// #[derive(Default)]
/// struct Counting(u32);
///
/// impl Handler for Counting {
///     fn handle(&mut self, _: &Request<'_>) -> Reply {
///         self.0 += 1;
///         Response::text(format!("request {}\n", self.0)).into()
///     }
/// }
///
/// let http = Http::new(Counting::default());
/// # let _ = http;
/// ```
pub trait Handler {
    /// Answers a request whose head is there. It must not block. A panic ends the connection.
    fn handle(&mut self, request: &Request<'_>) -> Reply;
}

impl<F, R> Handler for F
where
    F: FnMut(&Request<'_>) -> R,
    R: Into<Reply>,
{
    fn handle(&mut self, request: &Request<'_>) -> Reply {
        self(request).into()
    }
}

/// What a handler answers.
///
/// A [`Response`] becomes one by `into()`. It is sent at once, and a body of the request that is still
/// on its way is discarded.
pub struct Reply(pub(crate) Step);

/// The next step to a response.
pub(crate) enum Step {
    Respond(Response),
    Collect(usize, Box<dyn FnOnce(Vec<u8>) -> Reply + Send>),
    Receive(Box<dyn Receive>),
    Later(Box<dyn FnMut() -> Poll<Reply> + Send>),
    Upgrade(Response, Box<dyn Protocol + Send>),
    HandOver(Box<dyn Protocol + Send>),
}

impl Reply {
    /// Collects the body of the request, and then calls `with` with it. A body of more than `most`
    /// bytes is answered with 413, and so is one of more than
    /// [`max_body`](crate::Settings::max_body). Memory grows with what arrives, not with what the
    /// client announced.
    ///
    /// ```
    /// use serveloop::testing::MemorySession;
    /// use serveloop_http::{Http, Reply, Request, Response};
    ///
    /// let handler = |_: &Request<'_>| {
    ///     Reply::collect(1_000, |body| Response::text(format!("{} bytes\n", body.len())))
    /// };
    /// let mut session = MemorySession::new(Http::new(handler));
    /// session.receive(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    /// assert!(session.sent().ends_with(b"\r\n\r\n5 bytes\n"));
    /// ```
    pub fn collect<R: Into<Self>>(
        most: usize,
        with: impl FnOnce(Vec<u8>) -> R + Send + 'static,
    ) -> Self {
        Self(Step::Collect(most, Box::new(|body| with(body).into())))
    }

    /// Shows the body of the request to `receiver` piece by piece, as it arrives.
    pub fn receive(receiver: impl Receive + 'static) -> Self {
        Self(Step::Receive(Box::new(receiver)))
    }

    /// Answers later: `poll` is called now, and again each time that a [`Waker`] of the connection is
    /// used, until it has a reply. The request's body is discarded meanwhile. See
    /// [`Settings::reply_timeout`](crate::Settings::reply_timeout).
    ///
    /// ```
    /// use serveloop_http::{Reply, Request, Response};
    /// use std::sync::mpsc::channel;
    /// use std::task::Poll;
    /// use std::thread;
    ///
    /// fn answer(request: &Request<'_>) -> Reply {
    ///     let (sender, receiver) = channel();
    ///     let waker = request.waker();
    ///     thread::spawn(move || {
    ///         let _ = sender.send((1..=100).sum::<u32>());
    ///         waker.wake();
    ///     });
    ///
    ///     Reply::later(move || match receiver.try_recv() {
    ///         Ok(sum) => Poll::Ready(Response::text(format!("{sum}\n")).into()),
    ///         Err(_) => Poll::Pending,
    ///     })
    /// }
    /// ```
    pub fn later(poll: impl FnMut() -> Poll<Self> + Send + 'static) -> Self {
        Self(Step::Later(Box::new(poll)))
    }

    /// Answers when the other half is used, from any thread.
    ///
    /// ```
    /// use serveloop_http::{Reply, Request, Response};
    /// use std::thread;
    ///
    /// fn answer(request: &Request<'_>) -> Reply {
    ///     let (responder, reply) = Reply::promise(request);
    ///     thread::spawn(move || responder.respond(Response::text("at last\n")));
    ///     reply
    /// }
    /// ```
    #[must_use]
    pub fn promise(request: &Request<'_>) -> (Responder, Self) {
        let place = Arc::new(Mutex::new(Promise::Open));
        let responder = Responder {
            place: Arc::clone(&place),
            waker: request.waker(),
        };

        let reply = Self::later(move || {
            let mut promise = place.lock().unwrap_or_else(PoisonError::into_inner);
            match std::mem::replace(&mut *promise, Promise::Open) {
                Promise::Open => Poll::Pending,
                Promise::Kept(response) => Poll::Ready(response.into()),
                Promise::Broken => Poll::Ready(Response::status(500).into()),
            }
        });
        (responder, reply)
    }

    /// Sends `response`, made by [`Response::switch_to`], and hands the connection over to `next`,
    /// with everything that the client has sent after its request. A client that did not ask for
    /// another protocol is answered with 426, and so is every client of a protocol that was not made by
    /// [`Http::upgradable`](crate::Http::upgradable): see [`Request::upgrade`].
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::testing::MemorySession;
    /// use serveloop_http::{Http, Reply, Request, Response};
    ///
    /// let handler = |request: &Request<'_>| match request.upgrade() {
    ///     Some("echo") => Reply::upgrade(Response::switch_to("echo"), Echo),
    ///     _ => Response::new(404).into(),
    /// };
    /// let mut session = MemorySession::new(Http::new(handler).upgradable());
    /// session.receive(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhello");
    /// assert!(session.sent().ends_with(b"\r\nUpgrade: echo\r\n\r\nhello"));
    /// ```
    pub fn upgrade(response: Response, next: impl Protocol + Send + 'static) -> Self {
        Self(Step::Upgrade(response, Box::new(next)))
    }

    /// Hands the connection over to `next` as it is: nothing is sent, and `next` is shown the request
    /// from its first byte. For a protocol that reads and answers its handshake itself, as servers of
    /// WebSocket do. This has to be what the handler itself answers, not what comes later, and the
    /// protocol has to be made by [`Http::upgradable`](crate::Http::upgradable). Otherwise the client is
    /// answered with 500.
    ///
    /// ```
    /// use serveloop::protocols::Echo;
    /// use serveloop::testing::MemorySession;
    /// use serveloop_http::{Http, Reply, Request, Response};
    ///
    /// let handler = |request: &Request<'_>| match request.path() {
    ///     "/echo" => Reply::hand_over(Echo),
    ///     _ => Response::new(404).into(),
    /// };
    /// let mut session = MemorySession::new(Http::new(handler).upgradable());
    /// session.receive(b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\nhello");
    /// assert_eq!(session.sent(), b"GET /echo HTTP/1.1\r\nHost: x\r\n\r\nhello");
    /// ```
    pub fn hand_over(next: impl Protocol + Send + 'static) -> Self {
        Self(Step::HandOver(Box::new(next)))
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self(Step::Respond(response))
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Step::Respond(_) => "Reply::Respond",
            Step::Collect(..) => "Reply::Collect",
            Step::Receive(_) => "Reply::Receive",
            Step::Later(_) => "Reply::Later",
            Step::Upgrade(..) => "Reply::Upgrade",
            Step::HandOver(_) => "Reply::HandOver",
        })
    }
}

/// Takes the body of a request as it arrives.
///
/// ```
/// use serveloop::testing::MemorySession;
/// use serveloop_http::{Http, Receive, Reply, Request, Response};
///
/// /// Adds all bytes.
/// struct Sum(u64);
///
/// impl Receive for Sum {
///     fn received(&mut self, data: &[u8]) -> Result<usize, Response> {
///         self.0 += data.iter().copied().map(u64::from).sum::<u64>();
///         Ok(data.len())
///     }
///
///     fn ended(self: Box<Self>) -> Reply {
///         Response::text(format!("{}\n", self.0)).into()
///     }
/// }
///
/// let mut session = MemorySession::new(Http::new(|_: &Request<'_>| Reply::receive(Sum(0))));
/// session.receive(b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\x01\x02\r\n");
/// session.receive(b"1\r\n\x03\r\n0\r\n\r\n");
/// assert!(session.sent().ends_with(b"\r\n\r\n6\n"));
/// ```
pub trait Receive: Send {
    /// Called with content that has arrived, which is never empty. Returns how many bytes were taken.
    /// If that is not all, the client is slowed down, and the rest is shown when a [`Waker`] of the
    /// connection was used.
    ///
    /// # Errors
    /// A response ends the transfer: it is sent at once, and the rest of the body is discarded.
    fn received(&mut self, data: &[u8]) -> Result<usize, Response>;

    /// Called when the body is complete. If the client ends or fails before that, the receiver is
    /// dropped.
    fn ended(self: Box<Self>) -> Reply;

    /// Returns how many bytes of memory the receiver keeps. They count towards
    /// [`max_buffered`](serveloop::Config::max_buffered). By default 0.
    fn held(&self) -> usize {
        0
    }
}

enum Promise {
    Open,
    Kept(Response),
    Broken,
}

/// The half of a [promise](Reply::promise) that another thread answers with. If it is dropped without
/// an answer, the client is answered with 500.
pub struct Responder {
    place: Arc<Mutex<Promise>>,
    waker: Waker,
}

impl Responder {
    /// Answers the request. If the client has gone meanwhile, nothing happens.
    pub fn respond(self, response: Response) {
        self.set(Promise::Kept(response));
    }

    fn set(&self, promise: Promise) {
        let mut place = self.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Promise::Open = *place {
            *place = promise;
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.set(Promise::Broken);
        self.waker.wake();
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}

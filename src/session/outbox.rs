//! Outboxes: what others, on any thread, have for a connection to send.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Weak};

use crate::address::Peer;
use crate::error::CloseReason;
use crate::waker::sync::{Mutex, MutexGuard, lock};
use crate::waker::{Mailbox, Waker};

/// A handle with which others, on any thread, have a connection send data
/// ([`Transport::outbox`](crate::Transport::outbox)).
///
/// What is posted waits until the connection has room for it, and is not copied until then. It is
/// sent in its order, by [`Protocol::posted`](crate::Protocol::posted), which can put it into the
/// protocol's format. It goes through framings and layers like everything that the protocol writes.
///
/// At most [`max_posted`](crate::Limits::max_posted) bytes may wait. They count towards
/// [`max_buffered`](crate::Config::max_buffered), once however many outboxes they wait in.
///
/// ```
/// use serveloop::service::Outbox;
/// use serveloop::testing::MemorySession;
/// use serveloop::{Protocol, Result, Transport};
/// use std::sync::mpsc::Sender;
///
/// /// Hands its outbox out, and sends what comes.
/// struct Listener(Sender<Outbox>);
///
/// impl Protocol for Listener {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         let _ = self.0.send(transport.outbox());
///         Ok(())
///     }
///
///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
///         Ok(data.len())
///     }
/// }
///
/// let (sender, outboxes) = std::sync::mpsc::channel();
/// let mut session = MemorySession::new(Listener(sender));
/// let outbox = outboxes.recv()?;
///
/// std::thread::spawn(move || outbox.post(&b"news"[..])).join().unwrap()?;
/// session.run();
/// assert_eq!(session.sent(), b"news");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
}

struct Shared {
    /// The driver's number for the session.
    id: usize,
    /// Weak, because a mailbox whose driver never empties it again would keep itself alive.
    mailbox: Weak<Mailbox>,
    peer: Peer,
    inbox: Mutex<Inbox>,
}

/// What waits for a connection. Nearly always it is nothing, or a single post, which needs no memory
/// of its own.
struct Inbox {
    first: Option<Post>,
    /// The posts behind the first one, if there are any.
    rest: Option<Box<Rest>>,
    /// The most bytes that may wait.
    most: usize,
    state: Life,
}

#[derive(Default)]
struct Rest {
    posts: VecDeque<Post>,
    bytes: usize,
}

/// What is to become of a connection, as its outbox says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Open,
    /// Posts wait for room in the output. Never the state of an inbox.
    Waiting,
    /// The connection is to be closed after what waits.
    Closing,
    /// The connection is to be ended at once.
    Aborting,
    /// The same, because too much would wait.
    Lagging,
    /// The connection has ended.
    Over,
}

impl Life {
    /// Returns why the connection is to be ended at once, if it is.
    pub(super) fn hard_end(self) -> Option<CloseReason> {
        match self {
            Self::Aborting => Some(CloseReason::Aborted),
            Self::Lagging => Some(CloseReason::Lagging),
            _ => None,
        }
    }
}

impl Outbox {
    pub(super) fn new(waker: &Waker, peer: Peer, most: usize) -> Self {
        let (id, mailbox) = waker.target();
        let inbox = Inbox {
            first: None,
            rest: None,
            most,
            state: Life::Open,
        };
        let shared = Shared {
            id,
            mailbox,
            peer,
            inbox: Mutex::new(inbox),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Has the connection send `data` after everything posted before.
    ///
    /// # Errors
    /// [`PostError::Full`] if too much waits already; some data always fits into an empty outbox.
    /// [`PostError::Closed`] if the connection has ended or the outbox was closed.
    pub fn post(&self, data: impl Into<Arc<[u8]>>) -> Result<(), PostError> {
        let post = Post::new(data.into(), self.shared.mailbox.clone());
        if self.put(&post)? {
            self.wake();
        }
        Ok(())
    }

    /// Adds a post without a wake, if none waits. Returns whether it did; the session is to be woken
    /// then.
    #[inline]
    pub(crate) fn put_first(&self, post: &Post) -> bool {
        let mut inbox = self.inbox();
        let takes = inbox.state == Life::Open && inbox.first.is_none();
        if takes {
            inbox.first = Some(post.clone());
        }
        takes
    }

    /// Adds a post without a wake. Returns whether the session is to be woken for it.
    pub(crate) fn put(&self, post: &Post) -> Result<bool, PostError> {
        let mut inbox = self.inbox();
        if inbox.state != Life::Open {
            return Err(PostError::Closed);
        }
        if inbox.first.is_none() {
            inbox.first = Some(post.clone());
            return Ok(true);
        }
        inbox.put_behind(post)
    }

    /// Drops the oldest post, to make room. One that is partly sent does not wait here any more.
    pub(crate) fn drop_oldest(&self) {
        let mut inbox = self.inbox();
        let dropped = inbox.pop();
        drop(inbox);
        drop(dropped);
    }

    /// Closes the connection after everything that waits here and in its output was sent. Nothing
    /// can be posted any more.
    pub fn close(&self) {
        self.end(Life::Closing);
    }

    /// Ends the connection at once, and drops what waits.
    pub fn abort(&self) {
        self.end(Life::Aborting);
    }

    /// Ends the connection at once because it does not keep up, and drops what waits. Returns whether the
    /// session is to be woken for it, which is left to the caller.
    pub(crate) fn give_up(&self) -> bool {
        self.begin_end(Life::Lagging)
    }

    fn end(&self, state: Life) {
        if self.begin_end(state) {
            self.wake();
        }
    }

    /// Returns whether the session does not know yet.
    fn begin_end(&self, state: Life) -> bool {
        let mut inbox = self.inbox();
        let is_new = matches!(
            (inbox.state, state),
            (Life::Open, _) | (Life::Closing, Life::Aborting | Life::Lagging)
        );
        if is_new {
            inbox.state = state;
        }
        is_new
    }

    /// Returns the connection's number: [`Peer::id`].
    #[must_use]
    pub fn id(&self) -> u64 {
        self.shared.peer.id()
    }

    /// Returns the connection's peer, as it was when the outbox was made.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.shared.peer
    }

    /// Returns how many bytes wait here. What the connection has taken into its output does not
    /// count.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.inbox().bytes()
    }

    /// Returns whether nothing can be posted any more, because the connection has ended or the
    /// outbox was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.inbox().state != Life::Open
    }

    /// Returns why the connection is to be ended at once, if it is.
    pub(super) fn hard_end(&self) -> Option<CloseReason> {
        self.inbox().state.hard_end()
    }

    pub(crate) fn mailbox(&self) -> &Weak<Mailbox> {
        &self.shared.mailbox
    }

    /// Returns the driver's number for the session.
    pub(crate) fn session(&self) -> usize {
        self.shared.id
    }

    fn wake(&self) {
        if let Some(mailbox) = self.shared.mailbox.upgrade() {
            mailbox.push_posted(self.shared.id);
        }
    }

    #[inline]
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        lock(&self.shared.inbox)
    }
}

/// What the session does with its own outbox.
impl Outbox {
    /// Takes the oldest post, unless the connection's output is full. If it takes none, returns what
    /// is to become of the connection.
    pub(super) fn take(&self, is_full: bool) -> Result<Post, Life> {
        let mut inbox = self.inbox();
        match inbox.state {
            Life::Open | Life::Closing if is_full && inbox.first.is_some() => Err(Life::Waiting),
            Life::Open | Life::Closing => inbox.pop().ok_or(inbox.state),
            state => Err(state),
        }
    }

    /// Takes the post that waits, if it is the only one and the connection is to stay open.
    #[inline]
    pub(super) fn take_sole(&self) -> Option<Post> {
        let mut inbox = self.inbox();
        if inbox.state != Life::Open || inbox.rest.is_some() {
            return None;
        }
        inbox.first.take()
    }

    /// Sets the most bytes that may wait.
    pub(super) fn set_most(&self, most: usize) {
        self.inbox().most = most;
    }

    /// Closes the outbox, and takes everything that waits, oldest first.
    pub(super) fn drain(&self) -> Vec<Post> {
        let mut inbox = self.inbox();
        inbox.state = Life::Over;
        std::iter::from_fn(|| inbox.pop()).collect()
    }

    /// Notes that the connection has ended, and drops what waits. Returns how many bytes that was.
    pub(super) fn end_all(&self) -> usize {
        let mut inbox = self.inbox();
        inbox.state = Life::Over;
        let bytes = inbox.bytes();
        let dropped = (inbox.first.take(), inbox.rest.take());
        // Others need not wait while posts are dropped that nobody else holds.
        drop(inbox);
        drop(dropped);
        bytes
    }
}

impl Inbox {
    /// Returns how many bytes wait.
    fn bytes(&self) -> usize {
        let first = self.first.as_ref().map_or(0, |post| post.len());
        first + self.rest.as_ref().map_or(0, |rest| rest.bytes)
    }

    /// Adds a post behind others, which the session was woken for.
    fn put_behind(&mut self, post: &Post) -> Result<bool, PostError> {
        // Posts that are shorter than their places count as those.
        let places = self.rest.as_ref().map_or(0, |rest| rest.posts.len()) * size_of::<Post>();
        let bytes = self.bytes().saturating_add(post.len());
        if bytes.max(places) > self.most {
            return Err(PostError::Full);
        }
        let rest = self.rest.get_or_insert_with(Box::default);
        rest.bytes += post.len();
        rest.posts.push_back(post.clone());
        Ok(false)
    }

    fn pop(&mut self) -> Option<Post> {
        let post = self.first.take()?;
        if let Some(rest) = &mut self.rest {
            self.first = rest.posts.pop_front();
            rest.bytes -= self.first.as_ref().map_or(0, |post| post.len());
            if rest.posts.is_empty() {
                self.rest = None;
            }
        }
        Some(post)
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}

/// Why an [`Outbox`] does not take a post.
///
/// ```
/// use serveloop::service::{Outbox, PostError};
///
/// /// Returns whether `outbox` is still of use.
/// fn try_to_tell(outbox: &Outbox) -> bool {
///     match outbox.post(&b"news"[..]) {
///         Ok(()) => true,
///         Err(PostError::Full) => true, // It may have room again later.
///         Err(PostError::Closed) => false,
///     }
/// }
/// # let _ = try_to_tell;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostError {
    /// More than [`max_posted`](crate::Limits::max_posted) bytes would wait.
    Full,
    /// The connection has ended, or the outbox was closed.
    Closed,
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the outbox is full",
            Self::Closed => "the connection has ended",
        })
    }
}

impl Error for PostError {}

/// Data that was posted to an [`Outbox`] or a [`Group`](crate::service::Group). Its bytes are shared
/// by everybody who is to send them, and count once towards
/// [`max_buffered`](crate::Config::max_buffered), for as long as anybody has them.
///
/// It is a slice of bytes for a protocol that puts it into its format
/// ([`Protocol::posted`](crate::Protocol::posted)).
///
/// ```
/// use serveloop::service::Post;
/// use serveloop::{Protocol, Result, Transport};
///
/// struct Chunked;
///
/// impl Protocol for Chunked {
///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
///         Ok(data.len())
///     }
///
///     fn posted(&mut self, post: &Post, transport: &mut Transport<'_>) {
///         transport.write(format!("{:x}\r\n", post.len()).as_bytes());
///         transport.write_post(post);
///         transport.write(b"\r\n");
///     }
/// }
/// # let _ = Chunked;
/// ```
#[derive(Clone)]
pub struct Post {
    payload: Arc<Payload>,
}

struct Payload {
    data: Arc<[u8]>,
    /// Whose account the data is on.
    account: Weak<Mailbox>,
}

impl Post {
    pub(crate) fn new(data: Arc<[u8]>, account: Weak<Mailbox>) -> Self {
        if let Some(account) = account.upgrade() {
            account.charge(data.len());
        }
        Self {
            payload: Arc::new(Payload { data, account }),
        }
    }

    /// Returns the data, for others to send.
    #[must_use]
    pub fn data(&self) -> &Arc<[u8]> {
        &self.payload.data
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(account) = self.account.upgrade() {
            account.discharge(self.data.len());
        }
    }
}

impl Deref for Post {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.payload.data
    }
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Post")
            .field("length", &self.len())
            .finish_non_exhaustive()
    }
}

/// A session's own handle to its outbox. When it is dropped, the outbox is closed.
#[derive(Debug)]
pub(super) struct Own(pub(super) Outbox);

impl Drop for Own {
    fn drop(&mut self) {
        self.0.end_all();
    }
}

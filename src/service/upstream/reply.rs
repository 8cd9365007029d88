//! The answer to a request, from its promise to whoever takes it.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Weak};

use crate::error::ProtocolError;
use crate::service::job::{drop_quietly, quietly};
use crate::waker::Wake;
use crate::waker::sync::{Mutex, lock};

/// Where the answer to a request of an [`Upstream`](crate::service::Upstream) comes. Dropping it gives
/// the answer up: a request that was not written is not sent any more.
#[must_use = "dropping a reply cancels its request"]
pub struct Reply<A> {
    outcome: Outcome<A>,
    queue: Weak<dyn Cancel>,
    number: u64,
}

type Outcome<A> = Arc<Mutex<Option<Result<A, UpstreamError>>>>;

/// Removes requests that were not written.
pub(super) trait Cancel: Send + Sync {
    fn cancel(&self, number: u64);
}

impl<A> Reply<A> {
    pub(super) fn new(outcome: Outcome<A>, queue: Weak<dyn Cancel>, number: u64) -> Self {
        Self {
            outcome,
            queue,
            number,
        }
    }

    /// Takes the answer, or returns `None` if there is none yet or it was taken before. Does not wait.
    ///
    /// # Errors
    /// There is no answer, and why.
    pub fn take(&mut self) -> Option<Result<A, UpstreamError>> {
        lock(&self.outcome).take()
    }
}

impl<A> Drop for Reply<A> {
    fn drop(&mut self) {
        // No other handle is left when the answer was delivered.
        if Arc::strong_count(&self.outcome) > 1 {
            let queue = self.queue.upgrade();
            queue.inspect(|queue| queue.cancel(self.number));
        }
    }
}

impl<A> fmt::Debug for Reply<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// Whoever has asked, as the upstream knows it.
pub(super) struct Asker<A> {
    outcome: Outcome<A>,
    wake: Box<dyn Wake>,
}

impl<A> Asker<A> {
    pub(super) fn new<W: Wake + 'static>(wake: W) -> (Self, Outcome<A>) {
        let outcome = Outcome::<A>::default();
        let this = Self {
            outcome: Arc::clone(&outcome),
            wake: Box::new(wake),
        };
        (this, outcome)
    }

    fn deliver(self, answer: Result<A, UpstreamError>) {
        let Self { outcome, wake } = self;
        *lock(&outcome) = Some(answer);
        // If the answer was given up, this drops it.
        drop_quietly(outcome);
        quietly(|| wake.wake());
        drop_quietly(wake);
    }
}

/// Answers to be delivered when no lock is held, since they call a user's code.
#[must_use = "it is to be delivered"]
pub(super) struct Told<A>(Vec<(Asker<A>, Result<A, UpstreamError>)>);

impl<A> Told<A> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn push(&mut self, asker: Option<Asker<A>>, answer: Result<A, UpstreamError>) {
        match asker {
            Some(asker) => self.0.push((asker, answer)),
            None => drop_quietly(answer),
        }
    }

    pub(super) fn deliver(self) {
        for (asker, answer) in self.0 {
            asker.deliver(answer);
        }
    }
}

/// Why a request of an [`Upstream`](crate::service::Upstream) has no answer.
///
/// ```
/// use serveloop::service::UpstreamError;
///
/// /// Returns whether the request can be made again without a risk that it is done twice.
/// fn is_undone(error: UpstreamError) -> bool {
///     matches!(error, UpstreamError::Full | UpstreamError::Closed)
/// }
/// assert!(!is_undone(UpstreamError::Lost));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamError {
    /// As many requests or bytes wait as the [limits](crate::service::UpstreamLimits) allow.
    Full,
    /// The connection was lost after the request was written. The peer may have acted on it.
    Lost,
    /// There was no answer in `request_timeout`. If the request was written, the peer may have acted on
    /// it.
    TimedOut,
    /// The upstream was closed, or its loop has ended.
    Closed,
}

impl Error for UpstreamError {}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "too many requests wait for the upstream",
            Self::Lost => "the connection to the upstream was lost",
            Self::TimedOut => "the upstream has not answered in time",
            Self::Closed => "the upstream is closed",
        })
    }
}

/// Lets a protocol use `?` with [`Upstream::request`](crate::service::Upstream::request) and with what
/// a [`Reply`] has.
impl From<UpstreamError> for ProtocolError {
    fn from(error: UpstreamError) -> Self {
        Self::Other(error.into())
    }
}

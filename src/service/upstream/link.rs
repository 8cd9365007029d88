//! What the protocol of an upstream's connection has of it.

use std::fmt;
use std::sync::Arc;

use crate::service::upstream::Shared;
use crate::service::upstream::state::Contact;
use crate::session::Transport;

/// The part of an [`Upstream`](crate::service::Upstream) that the protocol of one of its connections
/// has: the requests to write, and where their answers go. It is passed to the function that makes the
/// protocol, which keeps it as long as the connection lasts: dropping it means that the connection is
/// lost, however that happened.
///
/// The protocol calls
/// - [`ready`](Self::ready) when the peer takes requests: in `connection_made`, or after a login;
/// - [`send`](Self::send) in `woken` and `resume_writing`, and after an answer;
/// - [`answer`](Self::answer) for each answer, in the order of the requests;
/// - [`finish`](Self::finish) in `shutdown_requested`, so that a server that shuts down still gets the
///   answers that its clients wait for;
/// - [`lost`](Self::lost) in `connection_lost`, if it may close the connection itself.
pub struct Link<A> {
    shared: Arc<Shared<A>>,
    number: u64,
    /// The connection is to be closed when nothing is left to do.
    ends: bool,
}

impl<A> Link<A> {
    pub(super) fn new(shared: Arc<Shared<A>>, number: u64) -> Self {
        Self {
            shared,
            number,
            ends: false,
        }
    }

    /// Notes that the connection can be used, and writes requests that wait. From now on the connection
    /// has no `idle_timeout` of its own, because the upstream says how long it is kept. The delays before
    /// further connections begin with the first one again.
    pub fn ready(&mut self, transport: &mut Transport<'_>) {
        let mut limits = transport.limits().clone();
        limits.idle_timeout = None;
        let set = transport.set_limits(Arc::new(limits));
        debug_assert!(
            set.is_ok(),
            "limits without a deadline are as valid as with it"
        );

        let contact = Contact {
            waker: transport.waker(),
            outbox: transport.outbox(),
        };
        let mut state = self.shared.state();
        state.set_ready(self.number, contact);
        drop(state);
        self.shared.loop_of.announce();
        self.send(transport);
    }

    /// Writes the requests that wait: as many as may be unanswered on this connection, and as its output
    /// has room for.
    pub fn send(&mut self, transport: &mut Transport<'_>) {
        while !transport.is_full() && !transport.is_closing() {
            let Some(data) = self.next_request() else {
                break;
            };
            transport.write_owned(data);
        }
        if self.ends && self.in_flight() == 0 {
            transport.close();
        }
    }

    /// Closes the connection as soon as it has written what waits, and everything is answered.
    pub fn finish(&mut self, transport: &mut Transport<'_>) {
        self.ends = true;
        self.send(transport);
    }

    /// Takes the request that has waited the longest, for a protocol that writes it in a way of its own.
    /// `None` if none waits, or if this connection may have no more unanswered ones.
    pub fn next_request(&mut self) -> Option<Vec<u8>> {
        self.shared.state().take(self.number)
    }

    /// Answers the request that was taken first, of those that are unanswered. Returns false if there is
    /// none: the peer has said something that it was not asked for, or has answered too late.
    pub fn answer(&mut self, answer: A) -> bool {
        let mut state = self.shared.state();
        let Some((told, is_news)) = state.answer(self.number, answer) else {
            return false;
        };
        drop(state);

        told.deliver();
        if is_news {
            self.shared.loop_of.announce();
        }
        true
    }

    /// Notes that the connection is lost, as dropping the link does. A protocol that has closed its
    /// connection, also by an error, is dropped only when the peer has closed too, or after
    /// `linger_timeout`. With this in `connection_lost` the upstream does not wait for that.
    pub fn lost(&mut self) {
        let told = self.shared.state().lose(self.number);
        told.deliver();
        self.shared.loop_of.announce();
    }

    /// Returns how many requests were taken and are not answered.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.state().in_flight_of(self.number)
    }
}

impl<A> Drop for Link<A> {
    fn drop(&mut self) {
        self.lost();
    }
}

impl<A> fmt::Debug for Link<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

//! Calls of a session that a script makes, in place of a driver's clock and wakers: the replay of a
//! recorded connection.

use std::sync::Arc;

use crate::error::Deadline;
use crate::session::tap::Tap;
use crate::session::{Context, Protocol, Session, Tick};

impl<P: Protocol> Session<P> {
    /// Shows a tap all that the protocol writes from now on.
    pub(crate) fn set_tap(&mut self, tap: Arc<dyn Tap>) {
        self.state.set_tap(tap);
    }

    /// Acts on one of the configured deadlines, as if it had passed.
    pub(crate) fn handle_deadline(&mut self, deadline: Deadline, context: &Context<'_>) {
        if !self.is_closing() {
            self.time_out(deadline, context);
        }
    }

    /// Returns the protocol's own deadline.
    pub(crate) fn own_deadline(&mut self, context: &Context<'_>) -> Option<Tick> {
        self.protocol_deadline(context)
    }

    /// Tells the protocol that its own deadline has passed, if it has.
    pub(crate) fn handle_own_timeout(&mut self, context: &Context<'_>) {
        let now = context.clock.tick();
        if self.own_deadline(context).is_some_and(|at| at <= now) {
            self.tell(context, P::handle_timeout);
        }
    }

    /// Tells the protocol that a waker was used, and takes no posts.
    pub(crate) fn handle_woken_alone(&mut self, context: &Context<'_>) {
        self.state.refill(context.config);
        self.tell(context, P::woken);
    }

    /// Drops what others have posted for the connection.
    pub(crate) fn discard_posts(&self) {
        while self
            .state
            .outbox()
            .is_some_and(|outbox| outbox.take(false).is_ok())
        {}
    }
}

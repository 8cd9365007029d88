//! The boundary to user code: a panic there affects only its own connection.

use std::time::Instant;

use crate::error::{CloseReason, Deadline, ProtocolError};
use crate::session::catch::catch;
use crate::session::ended::Ended;
use crate::session::protocol::Protocol;
use crate::session::state::{CLOSING, PANICKED, State};
use crate::session::transport::{Context, Transport};

/// A protocol whose errors and panics end its own connection and no other.
#[derive(Debug)]
pub(super) struct Caught<P>(pub(super) P);

impl<P: Protocol> Caught<P> {
    /// Calls the protocol, unless its connection is closing.
    #[inline]
    pub(super) fn call(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>) -> Result<(), ProtocolError>,
    ) {
        if state.flags.any(CLOSING) {
            return;
        }
        state.note_over(context.config);

        match catch(|| event(&mut self.0, &mut Transport::new(state, context))) {
            Some(Ok(())) => {}
            Some(Err(error)) => self.reject(state, context, error),
            None => state.fail(CloseReason::Panicked),
        }
    }

    /// Ends the connection for an error of the peer, after the protocol has had its last word.
    #[cold]
    pub(super) fn reject(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        error: ProtocolError,
    ) {
        let speaks = self.speaks(state, context, |protocol, transport| {
            protocol.input_rejected(&error, transport);
        });

        let reason = CloseReason::Protocol(error);
        if speaks {
            state.take_leave(reason, context.clock.tick());
        } else {
            state.fail(reason);
        }
    }

    /// Ends the connection because `deadline` has passed, if the protocol says something about it.
    /// Returns false if it does not.
    pub(super) fn take_leave(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        deadline: Deadline,
    ) -> bool {
        let speaks = self.speaks(state, context, |protocol, transport| {
            protocol.deadline_passed(deadline, transport);
        });
        if speaks {
            self.tell(state, context, P::write_end_mark);
            state.take_leave(CloseReason::TimedOut(deadline), context.clock.tick());
        }
        speaks
    }

    /// Returns whether the protocol writes anything in `event`, its last word.
    fn speaks(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>),
    ) -> bool {
        let before = state.output_behind();
        self.tell(state, context, event);
        state.output_behind() > before
    }

    /// Works like `call`, for events that cannot fail.
    #[inline]
    pub(super) fn tell(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>),
    ) {
        self.call(state, context, |protocol, transport| {
            event(protocol, transport);
            Ok(())
        });
    }

    /// Asks for the protocol's deadline. Callers must not ask if the connection is closing. This
    /// method does not check that, because one caller runs for every message and has checked it
    /// already.
    #[inline]
    pub(super) fn poll_timeout(&self, state: &mut State) -> Option<Instant> {
        catch(|| self.0.poll_timeout()).unwrap_or_else(|| {
            state.fail(CloseReason::Panicked);
            None
        })
    }

    /// Tells the protocol that the connection has ended. A panic no longer changes the reason.
    pub(super) fn lose(&mut self, state: &mut State, ended: &Ended<'_>) {
        if catch(|| self.0.connection_lost(ended)).is_none() {
            state.flags.set(PANICKED);
        }
    }
}

/// Shows data to a protocol and checks the count that it returns.
#[inline]
pub(crate) fn take<P: Protocol>(
    protocol: &mut P,
    data: &[u8],
    transport: &mut Transport<'_>,
) -> Result<usize, ProtocolError> {
    let count = protocol.data_received(data, transport)?;
    assert!(
        count <= data.len(),
        "data_received returned more than the length of its data"
    );
    Ok(count)
}

/// Works like `take`, by the method for datagrams if the peer is one of those.
pub(crate) fn take_either<P: Protocol>(
    protocol: &mut P,
    data: &[u8],
    transport: &mut Transport<'_>,
) -> Result<usize, ProtocolError> {
    if transport.peer().is_datagram() {
        take_datagram(protocol, data, transport)
    } else {
        take(protocol, data, transport)
    }
}

/// Works like `take`, for a datagram.
pub(crate) fn take_datagram<P: Protocol>(
    protocol: &mut P,
    data: &[u8],
    transport: &mut Transport<'_>,
) -> Result<usize, ProtocolError> {
    let count = protocol.datagram_received(data, transport)?;
    assert!(
        count <= data.len(),
        "datagram_received returned more than the length of its data"
    );
    Ok(count)
}

//! The boundary to user code: a panic there concerns one connection.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::error::{CloseReason, ProtocolError};
use crate::session::protocol::Protocol;
use crate::session::state::{CLOSING, PANICKED, State};
use crate::session::transport::{Context, Transport};

/// A protocol whose errors and panics end its own connection and nothing else.
#[derive(Debug)]
pub(super) struct Caught<P>(pub(super) P);

impl<P: Protocol> Caught<P> {
    /// Calls the protocol, unless its connection is closing.
    pub(super) fn call(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>) -> Result<(), ProtocolError>,
    ) {
        if state.flags.any(CLOSING) {
            return;
        }
        match catch(|| event(&mut self.0, &mut Transport { state, context })) {
            Some(Ok(())) => {}
            Some(Err(error)) => state.fail(CloseReason::Protocol(error)),
            None => state.fail(CloseReason::Panicked),
        }
    }

    /// The same for what cannot fail.
    pub(super) fn tell(
        &mut self,
        state: &mut State,
        context: &Context<'_>,
        event: fn(&mut P, &mut Transport<'_>),
    ) {
        self.call(state, context, |protocol, transport| {
            event(protocol, transport);
            Ok(())
        });
    }

    /// Asks for the protocol's deadline; not for one whose connection is closing, which a caller on the
    /// way of every message has looked at already.
    #[inline]
    pub(super) fn poll_timeout(&self, state: &mut State) -> Option<Instant> {
        catch(|| self.0.poll_timeout()).unwrap_or_else(|| {
            state.fail(CloseReason::Panicked);
            None
        })
    }

    /// Tells the end. A panic changes nothing about it any more.
    pub(super) fn lose(&mut self, state: &mut State, reason: &CloseReason) {
        if catch(|| self.0.connection_lost(reason)).is_none() {
            state.flags.set(PANICKED);
        }
    }
}

/// Runs user code; `None` if it panicked. The panic's payload is dropped with the same care.
#[inline]
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => Some(value),
        Err(payload) => {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
                mem::forget(payload);
            }
            None
        }
    }
}

/// Shows data to a protocol, and checks what it says it took.
#[inline]
pub(super) fn take<P: Protocol>(
    protocol: &mut P,
    data: &[u8],
    transport: &mut Transport<'_>,
) -> Result<usize, ProtocolError> {
    let count = protocol.data_received(data, transport)?;
    assert!(count <= data.len(), "a protocol took more than there is");
    Ok(count)
}

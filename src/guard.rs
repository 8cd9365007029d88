//! The boundary to user code: a panic there concerns one connection.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::error::{CloseReason, ProtocolError};
use crate::link::{CLOSING, Link, PANICKED};
use crate::protocol::Protocol;
use crate::transport::{Context, Transport};

/// A protocol whose errors and panics end its own connection and nothing else.
#[derive(Debug)]
pub(crate) struct Guarded<P>(pub(crate) P);

impl<P: Protocol> Guarded<P> {
    /// Calls the protocol, unless its connection is closing.
    pub(crate) fn call(
        &mut self,
        link: &mut Link,
        context: &Context<'_>,
        event: impl FnOnce(&mut P, &mut Transport<'_>) -> Result<(), ProtocolError>,
    ) {
        if link.flags.any(CLOSING) {
            return;
        }
        match guard(|| event(&mut self.0, &mut Transport { link, context })) {
            Some(Ok(())) => {}
            Some(Err(error)) => link.fail(CloseReason::Protocol(error)),
            None => link.fail(CloseReason::Panicked),
        }
    }

    /// The same for what cannot fail.
    pub(crate) fn tell(
        &mut self,
        link: &mut Link,
        context: &Context<'_>,
        event: fn(&mut P, &mut Transport<'_>),
    ) {
        self.call(link, context, |protocol, transport| {
            event(protocol, transport);
            Ok(())
        });
    }

    /// Asks for the protocol's deadline; not for one whose connection is closing, which a caller on the
    /// way of every message has looked at already.
    #[inline]
    pub(crate) fn poll_timeout(&self, link: &mut Link) -> Option<Instant> {
        guard(|| self.0.poll_timeout()).unwrap_or_else(|| {
            link.fail(CloseReason::Panicked);
            None
        })
    }

    /// Tells the end. A panic changes nothing about it any more.
    pub(crate) fn lose(&mut self, link: &mut Link, reason: &CloseReason) {
        if guard(|| self.0.connection_lost(reason)).is_none() {
            link.flags.set(PANICKED);
        }
    }
}

/// Runs user code; `None` if it panicked. The panic's payload is dropped with the same care.
#[inline]
pub(crate) fn guard<T>(call: impl FnOnce() -> T) -> Option<T> {
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
pub(crate) fn take<P: Protocol>(
    protocol: &mut P,
    data: &[u8],
    transport: &mut Transport<'_>,
) -> Result<usize, ProtocolError> {
    let count = protocol.data_received(data, transport)?;
    assert!(count <= data.len(), "a protocol took more than there is");
    Ok(count)
}

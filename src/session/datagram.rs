//! A session that is one datagram: it has no other turn, so everything happens in this one.

use crate::session::state::{AGAIN, BLOCKED, CLOSING, EOF, EOF_TOLD, PENDING};
use crate::session::{Context, Protocol, Session};

impl<P: Protocol> Session<P> {
    /// Shows the rest of a datagram, if there may be a message in it (`is_more`), and then its end.
    /// The protocol has up to `calls` calls that it asks for.
    pub(super) fn end_datagram(
        &mut self,
        mut rest: &[u8],
        mut is_more: bool,
        mut calls: usize,
        context: &Context<'_>,
    ) {
        loop {
            is_more |= self.call_now(&mut calls, context);
            if is_more && !rest.is_empty() {
                let taken = self.show(rest, context);
                rest = &rest[taken..];
                is_more = self.take_more();
                if is_more || self.state.flags.any(AGAIN) {
                    continue;
                }
            }

            self.state.flags.set(EOF | EOF_TOLD);
            self.protocol
                .call(&mut self.state, context, |protocol, transport| {
                    protocol.eof_received(rest, transport)
                });
            self.call_now(&mut calls, context);

            // A protocol that took the datagram over is yet to see the rest of it.
            if self.state.flags.any(EOF_TOLD | CLOSING) {
                return;
            }
            is_more = true;
        }
    }

    /// Returns whether the last show ended because the turn's calls were used up. No other turn shows
    /// the rest.
    pub(super) fn take_more(&mut self) -> bool {
        self.state.flags.take(PENDING) && !self.state.flags.any(BLOCKED)
    }

    /// Calls the protocol as often as it asks for that, and no more than `calls` times. Returns
    /// whether it was called.
    pub(super) fn call_now(&mut self, calls: &mut usize, context: &Context<'_>) -> bool {
        let before = *calls;
        while self.state.flags.take(AGAIN) && *calls > 0 {
            *calls -= 1;
            self.tell(context, P::woken);
        }
        *calls < before
    }
}

//! A session that goes on in another process, and one that comes from there.

use std::sync::Arc;

use crate::address::Talk;
use crate::config::Limits;
use crate::error::CloseReason;
use crate::session::catch::catch;
use crate::session::flags::Flags;
use crate::session::state::{
    ABORTED, AGAIN, CLOSING, DISMISSED, EOF, EOF_TOLD, EXPANDING, FAREWELL, FINISHED, FIRST, LOST,
    NESTED, OPENING, PENDING, QUEUED, RELIMITED, REPLACED, RETIME, SHUTDOWN, UNIT_ROOM, WANTED,
};
use crate::session::{Context, Protocol, Session, Transport};

/// The flags of a session that is more than a socket, bytes and what its protocol knows, or that ends.
const STAYS: Flags = CLOSING
    .or(ABORTED)
    .or(AGAIN)
    .or(DISMISSED)
    .or(EOF)
    .or(EOF_TOLD)
    .or(EXPANDING)
    .or(FAREWELL)
    .or(FINISHED)
    .or(LOST)
    .or(NESTED)
    .or(OPENING)
    .or(QUEUED)
    .or(RELIMITED)
    .or(REPLACED)
    .or(SHUTDOWN)
    .or(UNIT_ROOM)
    .or(WANTED);

impl<P: Protocol> Session<P> {
    /// Returns what another process needs to go on with this session, if that is possible. `limits` are
    /// those of its listener, if they are not those of the server. Nothing of this session may be used
    /// afterwards, and its protocol is not told of an end.
    #[cold]
    pub(crate) fn hand_over(
        &mut self,
        limits: Option<&Arc<Limits>>,
        context: &Context<'_>,
    ) -> Option<Talk> {
        if self.state.flags.any(STAYS) || !self.state.is_plain(limits) {
            return None;
        }
        let (protocol, state) = (&mut self.protocol.0, &mut self.state);
        let told = catch(|| protocol.hand_over(&Transport::new(state, context)));
        if told.is_none() {
            self.fail(CloseReason::Panicked);
        }

        let state = told.flatten()?;
        self.state.flags.set(LOST);
        let unread = self.unread.take();
        let output = self.state.output.take();
        Some(Talk {
            is_first: self.state.flags.any(FIRST),
            unread: unread.map_or_else(Vec::new, |unread| unread.as_slice().to_vec()),
            unsent: output.map_or_else(Vec::new, |output| output.as_slice().to_vec()),
            state,
        })
    }

    /// Goes on with what another process has handed over. The protocol is new, and not told that the
    /// connection was made. Ends the session if its protocol cannot go on.
    #[cold]
    pub(crate) fn take_over(&mut self, talk: &Talk, context: &Context<'_>) {
        self.state.flags.set(RETIME);
        if !talk.is_first {
            self.state.flags.clear(FIRST);
        }
        let (protocol, state) = (&mut self.protocol.0, &mut self.state);
        let transport = &mut Transport::new(state, context);
        // It was written before anything that the protocol may write now.
        transport.write(&talk.unsent);

        match catch(|| protocol.take_over(&talk.state, transport)) {
            Some(true) => {}
            Some(false) => self.fail(CloseReason::Refused),
            None => self.fail(CloseReason::Panicked),
        }
        if !talk.unread.is_empty() {
            self.keep(&talk.unread);
            self.state.flags.set(PENDING);
        }
    }
}

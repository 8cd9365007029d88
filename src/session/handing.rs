//! A session that goes on in another process, and one that comes from there.

use std::sync::Arc;

use crate::address::Talk;
use crate::config::Limits;
use crate::error::CloseReason;
use crate::session::catch::catch;
use crate::session::flags::Flags;
use crate::session::queue::Queue;
use crate::session::state::{
    ABORTED, AGAIN, CLOSING, DISMISSED, EOF, EOF_TOLD, EXPANDING, FAREWELL, FINISHED, FIRST, FULL,
    LOST, NESTED, OPENING, PENDING, RELIMITED, REPLACED, RETIME, SHUTDOWN, State, UNIT_ROOM,
    WANTED, WROTE,
};
use crate::session::{Context, Outbox, Protocol, Session, Transport};

/// The flags of a session that is more than a socket, bytes, posts and what its protocol knows, or that
/// ends.
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
    .or(RELIMITED)
    .or(REPLACED)
    .or(SHUTDOWN)
    .or(UNIT_ROOM);

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
        if self.state.flags.any(STAYS) || !self.state.is_movable(limits) {
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
        let posts = self.state.outbox().map_or_else(Vec::new, Outbox::drain);
        Some(Talk {
            is_first: self.state.flags.any(FIRST),
            is_full: self.state.flags.any(FULL),
            awaits_room: self.state.flags.any(WANTED),
            unread: unread.map_or_else(Vec::new, |unread| unread.as_slice().to_vec()),
            unsent: self.state.take_unsent(),
            state,
            posts: posts.iter().map(|post| Arc::clone(post.data())).collect(),
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
        // It was written before anything that the protocol may write now.
        self.state.owe(talk);
        let (protocol, state) = (&mut self.protocol.0, &mut self.state);
        let transport = &mut Transport::new(state, context);

        match catch(|| protocol.take_over(&talk.state, transport)) {
            Some(true) if self.state.post_again(&talk.posts) => {}
            Some(_) => self.fail(CloseReason::Refused),
            None => self.fail(CloseReason::Panicked),
        }
        if !talk.unread.is_empty() {
            self.keep(&talk.unread);
            self.state.flags.set(PENDING);
        }
    }
}

impl State {
    /// Returns whether there is nothing but bytes and posts: no source or end, no outbox that closes the
    /// connection, and no limits but those of the listener, which are `usual`.
    fn is_movable(&self, usual: Option<&Arc<Limits>>) -> bool {
        let ends = self.outbox().is_some_and(Outbox::is_closed);
        let is_made = self.queue().is_some_and(Queue::has_sources);
        !ends && !is_made && self.is_plain(usual)
    }

    /// Takes all output that was not sent.
    fn take_unsent(&mut self) -> Vec<u8> {
        let output = self.output.take();
        let mut unsent = output.map_or_else(Vec::new, |output| output.as_slice().to_vec());
        if let Some(queue) = self.queue() {
            queue.copy_to(&mut unsent);
        }
        self.drop_queue();
        unsent
    }

    /// Takes over output that another process has not sent. It was within the limits there.
    fn owe(&mut self, talk: &Talk) {
        if talk.unsent.is_empty() {
            return;
        }
        self.append(&talk.unsent);
        self.flags.set(WROTE);
        // A protocol that waited for room there is told of it here.
        let (full, wanted) = (FULL.when(talk.is_full), WANTED.when(talk.awaits_room));
        self.flags.set(full | wanted);
    }

    /// Posts what waited in the outbox of another process. Returns false if there is no outbox for it.
    fn post_again(&self, posts: &[Arc<[u8]>]) -> bool {
        let Some(outbox) = self.outbox() else {
            return posts.is_empty();
        };
        for post in posts {
            // One that finds no room would find none if it were posted now.
            let _ = outbox.post(Arc::clone(post));
        }
        true
    }
}

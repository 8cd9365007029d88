//! How a session takes what others have posted for its connection.

use crate::session::outbox::{Life, Outbox, Own, Post};
use crate::session::queue::{Bytes, Queue};
use crate::session::state::{CLOSING, RETIME, STALLED, State, WANTED};
use crate::session::{Context, Protocol, Session, Transport};

impl Transport<'_> {
    /// Returns a handle with which others, on any thread, have this connection send data. Further
    /// calls return the same one. The session of a single datagram ends at once, so its outbox takes
    /// nothing. In a session of a peer's datagrams, each post is sent as a datagram of its own.
    ///
    /// A connection with an outbox needs about 200 bytes more. See [`Outbox`].
    pub fn outbox(&mut self) -> Outbox {
        if let Some(outbox) = self.state.outbox() {
            return outbox.clone();
        }

        let most = self.limits().max_posted;
        let outbox = Outbox::new(&self.waker(), self.peer().clone(), most);
        if self.is_one_shot() {
            outbox.close();
        }
        self.state.extra().outbox = Some(Own(outbox.clone()));
        // The session outside a layer is to know of it.
        self.state.flags.set(RETIME);
        outbox
    }

    /// Sends a post like [`write`](Self::write). If it is longer than 4 KiB it is shared, not copied.
    /// It is on an account of its own, and does not count towards this connection's.
    #[inline]
    pub fn write_post(&mut self, post: &Post) {
        if self.copies(post.len()) {
            self.write(post);
        } else {
            self.write_bytes(Bytes::Posted(post.clone()));
        }
    }
}

impl State {
    #[inline]
    pub(super) fn outbox(&self) -> Option<&Outbox> {
        let extra = self.extra.as_ref()?;
        extra.outbox.as_ref().map(|own| &own.0)
    }

    /// Closes the outbox, and drops what waits in it. Returns how many bytes that was.
    pub(super) fn drop_posts(&mut self) -> usize {
        let outbox = self.extra.as_mut().and_then(|extra| extra.outbox.take());
        outbox.map_or(0, |own| own.0.end_all())
    }

    /// Shows the outbox of a session inside a layer to the one outside, which is asked for it.
    pub(super) fn show_outbox(&self, outer: &mut Self) {
        if outer.any_outbox().is_none() {
            outer.extra().shown = self.any_outbox().cloned();
        }
    }

    /// Returns the outbox, or that of the session inside a layer.
    fn any_outbox(&self) -> Option<&Outbox> {
        let shown = self.extra.as_ref().and_then(|extra| extra.shown.as_ref());
        self.outbox().or(shown)
    }

    /// Returns how many bytes of posts wait for the connection, and for the peer to take them.
    pub(super) fn posted(&self) -> usize {
        let pending = self.any_outbox().map_or(0, Outbox::pending);
        pending.saturating_add(self.queue().map_or(0, Queue::posted))
    }

    /// Ends a connection that is closing already, if its outbox says so.
    fn obey_abort(&mut self) {
        if let Some(reason) = self.any_outbox().and_then(Outbox::hard_end) {
            self.fail(reason);
        }
    }
}

impl<P: Protocol> Session<P> {
    /// Has the protocol send what was posted, as long as there is room for it.
    #[inline]
    pub(super) fn take_posts(&mut self, context: &Context<'_>) {
        if self.state.extra.is_some() {
            self.take_posts_of(context);
        }
    }

    /// Takes the post that waits, if it is the only one and the connection is to stay open.
    #[inline]
    pub(crate) fn take_sole_post(&self) -> Option<Post> {
        self.state.outbox()?.take_sole()
    }

    /// Has the protocol send a post that was taken.
    #[inline]
    pub(crate) fn handle_post(&mut self, post: &Post, context: &Context<'_>) {
        let posted = |protocol: &mut P, transport: &mut Transport<'_>| {
            protocol.posted(post, transport);
        };
        self.protocol.tell(&mut self.state, context, posted);
    }

    #[cold]
    fn take_posts_of(&mut self, context: &Context<'_>) {
        if self.state.flags.any(CLOSING) {
            return self.state.obey_abort();
        }
        let Some(outbox) = self.state.outbox().cloned() else {
            return;
        };

        while !self.state.flags.any(CLOSING) {
            // A peer that takes nothing now is owed what waits, and the rest is shared until then.
            let high_water = self.state.limits(context.config).high_water;
            let is_full = self.state.flags.any(STALLED) || self.state.waiting() >= high_water;
            match outbox.take(is_full) {
                Ok(post) => {
                    self.state.cut_datagram();
                    self.handle_post(&post, context);
                    self.state.cut_datagram();
                }
                Err(Life::Closing) => self.state.close(),
                Err(Life::Waiting) => return self.state.flags.set(WANTED),
                Err(life) => match life.hard_end() {
                    Some(reason) => self.state.fail(reason),
                    None => return,
                },
            }
        }
    }
}

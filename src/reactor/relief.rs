//! What a loop does at the end of a turn about `max_buffered`, which connections, sessions of datagrams and posts
//! share.

use crate::net::Net;
use crate::reactor::Reactor;
use crate::session::Factory;

impl<F: Factory, N: Net> Reactor<F, N> {
    /// Lets the wait end when as much is posted as still may be. Posts behind others wake no session.
    #[cold]
    pub(super) fn set_alarm(&mut self) {
        self.alarmed = self.effects.held_besides_posts();
        let most = self.env.crowded_at().saturating_sub(self.alarmed);
        self.env.mailbox.set_alarm(most);
        // It may have been posted just before.
        if self.env.mailbox.posted() > most {
            self.env.mailbox.ring();
        }
    }

    /// Ends connections and sessions of datagrams, if all together hold too much: first of those that hold
    /// more together.
    #[cold]
    pub(super) fn relieve(&mut self) {
        self.effects.is_crowded = false;
        let (admission, _) = self.lend();
        let (connections, sessions, mut hub) =
            (admission.connections, admission.sessions, admission.hub);
        if !hub.is_crowded() {
            return;
        }

        if sessions.owed() > connections.owed() {
            sessions.shed(&mut hub);
            connections.shed(&mut hub);
        } else {
            connections.shed(&mut hub);
            sessions.shed(&mut hub);
        }
    }
}

//! The short way for what others post to a connection that waits for nothing else: it is sent at once,
//! without a round of the connection.

use crate::net::Net;
use crate::reactor::connection::Connection;
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{ENGAGED, Next, STIRRED, WRITABLE};
use crate::session::{Context, Protocol};

/// What has become of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::reactor) enum Delivery {
    /// The protocol has got it, and what it made of it was sent as far as possible.
    Done(Next),
    /// The connection has something else to do as well.
    Busy,
    /// There is no post, or it is for a session inside a layer.
    Nothing,
}

impl<S, P: Protocol> Connection<S, P> {
    /// Sends a post, if it is the only one and the connection has nothing else to do.
    #[inline]
    pub(in crate::reactor) fn deliver<N: Net<Stream = S>>(
        &mut self,
        hub: &mut Hub<'_, N>,
        context: &Context<'_>,
    ) -> Delivery {
        let is_free = self.readiness.any(WRITABLE) && !self.readiness.any(ENGAGED);
        if !is_free || !self.session.is_quiet() {
            return Delivery::Busy;
        }
        let Some(post) = self.session.take_sole_post() else {
            return match self.session.posted() {
                0 => Delivery::Nothing,
                _ => Delivery::Busy,
            };
        };

        self.session.lend(&mut hub.effects.output);
        self.session.handle_post(&post, context);
        self.send(hub, context, None);
        let is_empty = self
            .session
            .reclaim_buffer(&mut hub.effects.output, context);

        if is_empty && !self.readiness.any(STIRRED) && self.session.rests() {
            return Delivery::Done(Next::Rest);
        }
        Delivery::Done(self.conclude_round(hub, context))
    }
}

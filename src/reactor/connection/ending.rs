//! How a connection ends: send what is left, tell the session, close our side, wait for the peer's.

use std::mem;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::address::Talk;
use crate::config::Limits;
use crate::error::CloseReason;
use crate::net::Net;
use crate::reactor::connection::{Aside, Connection};
use crate::reactor::hub::Hub;
use crate::reactor::readiness::{
    ABORT, AWAITED, CONNECTING, DRAINING, ENDED, ERROR, FINISHED, HOLDING, LINGERING, Next,
    READABLE, RETIME, WRITABLE,
};
use crate::reactor::token::NOBODY;
use crate::session::{Context, Linger, Protocol};

impl<S, P: Protocol> Connection<S, P> {
    /// Ends the session for `reason`, whatever state it is in. There is one attempt to send the end
    /// mark of a layer.
    #[cold]
    pub(in crate::reactor) fn end<N: Net<Stream = S>>(
        &mut self,
        reason: CloseReason,
        hub: &mut Hub<'_, N>,
    ) {
        self.release(hub);
        self.dismiss(reason, hub);
        self.lose(hub);
        self.readiness.set(ENDED);
    }

    /// Ends the session for `reason`, whatever state it is in, and sends nothing more.
    #[cold]
    pub(in crate::reactor) fn cut_off<N>(&mut self, reason: CloseReason, hub: &mut Hub<'_, N>) {
        self.release(hub);
        self.session.fail(reason);
        self.lose(hub);
        self.readiness.set(ENDED);
    }

    /// Dismisses the session, and makes the attempt to send its end mark.
    #[cold]
    pub(super) fn dismiss<N: Net<Stream = S>>(
        &mut self,
        reason: CloseReason,
        hub: &mut Hub<'_, N>,
    ) {
        let context = hub.context(NOBODY);
        self.session.dismiss(reason, &context);
        let mark = self.session.output();
        if mark.is_empty() || !self.readiness.any(WRITABLE) {
            return;
        }
        if let Ok(count) = hub.net.write(&mut self.stream, mark) {
            let written = &mut hub.effects.statistics.bytes_written;
            *written = written.wrapping_add(count as u64);
            self.session.output_sent(count, &context);
        }
    }

    /// Returns the socket to the network. A panic while dropping the protocol is caught.
    pub(in crate::reactor) fn dismantle<N: Net<Stream = S>>(mut self, hub: &mut Hub<'_, N>) {
        self.release(hub);
        let Self {
            session,
            aside,
            stream,
            readiness,
            ..
        } = self;
        if let Some(Aside::Attempts(attempts)) = aside.map(|aside| *aside) {
            attempts.close(hub.net);
        }

        hub.effects.outbound -= usize::from(session.peer().listener().is_none());
        hub.leave(session.peer());
        hub.drop_caught(session);
        hub.net.close(stream, readiness.any(ABORT));
    }

    /// Returns whether the connection is open, and nothing of its end has begun.
    pub(in crate::reactor) fn can_leave(&self) -> bool {
        let ends = AWAITED | CONNECTING | DRAINING | ENDED | ERROR | FINISHED | LINGERING;
        !self.readiness.any(ends) && self.session.peer().listener().is_some()
    }

    /// Returns what another process needs to go on with the session, if that is possible.
    pub(in crate::reactor) fn hand_over(
        &mut self,
        limits: Option<&Arc<Limits>>,
        context: &Context<'_>,
    ) -> Option<Talk> {
        self.session.hand_over(limits, context)
    }

    /// Takes the socket out of the network, and returns it with the number of its listener. A panic
    /// while dropping the protocol is caught.
    pub(in crate::reactor) fn detach<N: Net<Stream = S>>(
        mut self,
        hub: &mut Hub<'_, N>,
    ) -> (u16, Option<OwnedFd>) {
        self.release(hub);
        let Self {
            session, stream, ..
        } = self;
        // The number was one of these when the connection was accepted.
        let listener = session.peer().listener().unwrap_or_default();
        let listener = u16::try_from(listener).unwrap_or(u16::MAX);
        hub.leave(session.peer());
        hub.drop_caught(session);
        (listener, hub.net.detach(stream))
    }

    /// Closes the socket in a forked child process, while the session lives on in the parent.
    pub(in crate::reactor) fn abandon<N: Net<Stream = S>>(self, net: &mut N) {
        mem::forget(self.session);
        if let Some(Aside::Attempts(attempts)) = self.aside.map(|aside| *aside) {
            attempts.close(net);
        }
        net.close(self.stream, false);
    }

    /// Ends a closing session once everything is sent.
    #[cold]
    pub(super) fn finish<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) -> Next {
        if self.readiness.any(LINGERING | ENDED) {
            return self.linger(hub);
        }
        if !self.session.is_over() {
            return self.next_turn(hub);
        }

        self.lose(hub);
        if !self.session.lingers(&hub.env.config) || hub.net.finish(&mut self.stream).is_err() {
            return self.reap();
        }

        self.release(hub);
        let linger = Linger::new(hub.now(), self.session.limits(&hub.env.config));
        self.aside = Some(Box::new(Aside::Linger(linger)));
        self.readiness.set(LINGERING | RETIME);
        // What came before was read, or an event has announced it.
        if self.readiness.any(READABLE) {
            Next::Again
        } else {
            Next::Wait
        }
    }

    fn linger<N: Net<Stream = S>>(&mut self, hub: &mut Hub<'_, N>) -> Next {
        if self.readiness.any(ENDED) {
            return Next::Wait;
        }
        let Some(Aside::Linger(linger)) = self.aside.as_deref_mut() else {
            return Next::Wait;
        };

        let limits = self.session.limits(&hub.env.config);
        match linger.drive(&mut self.stream, &mut self.readiness, limits, hub) {
            Next::Reap => self.reap(),
            next => next,
        }
    }

    fn lose<N>(&mut self, hub: &mut Hub<'_, N>) {
        let is_marked = self.session.is_end_marked();
        hub.effects.live -= usize::from(!self.session.is_lost());
        if hub.lose(&mut self.session) && !is_marked {
            self.readiness.set(ABORT);
        }
    }

    /// Adds what the session holds to the total of all connections, and remembers how much that
    /// was, because the session may hold something else when it is subtracted. Returns true if the
    /// total is too much.
    pub(super) fn hold<N>(&mut self, hub: &mut Hub<'_, N>) -> bool {
        self.release(hub);
        let held = self.session.held().min(usize::MAX - hub.effects.held);
        if held == 0 {
            return false;
        }

        hub.effects.held += held;
        self.aside = Some(Box::new(Aside::Held(held)));
        self.readiness.set(HOLDING);
        hub.is_crowded()
    }

    /// Subtracts what `hold` added.
    pub(super) fn release<N>(&mut self, hub: &mut Hub<'_, N>) {
        if !self.readiness.take(HOLDING) {
            return;
        }
        if let Some(Aside::Held(held)) = self.aside.take().map(|aside| *aside) {
            hub.effects.held -= held;
        }
    }

    /// Returns how many bytes of the total are this connection's.
    pub(in crate::reactor) fn share(&self) -> usize {
        match self.aside.as_deref() {
            Some(Aside::Held(held)) => *held,
            _ => 0,
        }
    }

    fn reap(&mut self) -> Next {
        self.readiness.set(ENDED);
        Next::Reap
    }
}

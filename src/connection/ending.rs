//! How a connection ends: flushed, told, finished on our side, and the peer's end awaited.

use std::mem;

use crate::agenda::{ABORT, ENDED, HOLDING, LINGERING, Next, READABLE, RETIME};
use crate::connection::{Aside, Connection};
use crate::error::CloseReason;
use crate::linger::Linger;
use crate::net::Net;
use crate::protocol::Protocol;
use crate::turn::Turn;

impl<S, P: Protocol> Connection<S, P> {
    /// Ends the session for `reason`, whatever it was doing.
    #[cold]
    pub(crate) fn end<N>(&mut self, reason: CloseReason, turn: &mut Turn<'_, N>) {
        self.release(turn);
        self.session.fail(reason);
        self.lose(turn);
        self.agenda.set(ENDED);
    }

    /// Gives the socket back. The protocol is dropped with the same care as it is called.
    pub(crate) fn dismantle<N: Net<Stream = S>>(mut self, turn: &mut Turn<'_, N>) {
        self.release(turn);
        let Self {
            session,
            stream,
            agenda,
            ..
        } = self;
        turn.leave(session.peer());
        turn.drop_guarded(session);
        turn.net.close(stream, agenda.any(ABORT));
    }

    /// Closes the socket in a process that was forked off, while the session lives on in the parent.
    pub(crate) fn abandon<N: Net<Stream = S>>(self, net: &mut N) {
        mem::forget(self.session);
        net.close(self.stream, false);
    }

    /// The session is closing: ends the connection once everything is sent.
    #[cold]
    pub(super) fn finish<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>) -> Next {
        if self.agenda.any(LINGERING | ENDED) {
            return self.linger(turn);
        }
        if self.session.is_aborted() {
            self.lose(turn);
            return self.reap();
        }
        if !self.session.output().is_empty() {
            return self.next_turn(turn);
        }
        self.lose(turn);
        let lingers = turn.config.linger_timeout.is_some() && !self.session.is_eof();
        if !lingers || turn.net.finish(&mut self.stream).is_err() {
            return self.reap();
        }
        self.release(turn);
        let linger = Linger::new(turn.now(), turn.config);
        self.aside = Some(Box::new(Aside::Linger(linger)));
        self.agenda.set(LINGERING | READABLE | RETIME);
        Next::Again
    }

    fn linger<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>) -> Next {
        if self.agenda.any(ENDED) {
            return Next::Wait;
        }
        let Some(Aside::Linger(linger)) = self.aside.as_deref_mut() else {
            return Next::Wait;
        };
        match linger.drive(&mut self.stream, &mut self.agenda, turn) {
            Next::Reap => self.reap(),
            next => next,
        }
    }

    fn lose<N>(&mut self, turn: &mut Turn<'_, N>) {
        if turn.lose(&mut self.session) {
            self.agenda.set(ABORT);
        }
    }

    /// Adds what the session holds to what all hold, and keeps how much that was: the session may hold
    /// something else by the time it is subtracted. True if all hold too much.
    pub(super) fn hold<N>(&mut self, turn: &mut Turn<'_, N>) -> bool {
        self.release(turn);
        let held = self.session.held().min(usize::MAX - *turn.held);
        if held == 0 {
            return false;
        }

        *turn.held += held;
        self.aside = Some(Box::new(Aside::Held(held)));
        self.agenda.set(HOLDING);
        turn.is_crowded()
    }

    /// Subtracts what was added.
    pub(super) fn release<N>(&mut self, turn: &mut Turn<'_, N>) {
        if !self.agenda.take(HOLDING) {
            return;
        }
        if let Some(Aside::Held(held)) = self.aside.take().map(|aside| *aside) {
            *turn.held -= held;
        }
    }

    /// How many bytes of what all connections hold are this one's.
    pub(crate) fn share(&self) -> usize {
        match self.aside.as_deref() {
            Some(Aside::Held(held)) => *held,
            _ => 0,
        }
    }

    fn reap(&mut self) -> Next {
        self.agenda.set(ENDED);
        Next::Reap
    }
}

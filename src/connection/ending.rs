//! How a connection ends: flushed, told, finished on our side, and the peer's end awaited.

use std::io::ErrorKind;

use crate::agenda::{ABORT, ENDED, LINGERING, READABLE, RETIME};
use crate::connection::{Connection, Next};
use crate::error::CloseReason;
use crate::linger::Linger;
use crate::net::Net;
use crate::protocol::Protocol;
use crate::turn::Turn;

impl<S, P: Protocol> Connection<S, P> {
    /// Ends the session for `reason`, whatever it was doing.
    #[cold]
    pub(crate) fn end<N>(&mut self, reason: CloseReason, turn: &mut Turn<'_, N>) {
        self.session.fail(reason);
        self.lose(turn);
        self.agenda.set(ENDED);
    }

    /// Gives the socket back. The protocol is dropped with the same care as it is called.
    pub(crate) fn dismantle<N: Net<Stream = S>>(self, turn: &mut Turn<'_, N>) {
        let Self {
            session,
            stream,
            agenda,
            ..
        } = self;
        turn.drop_guarded(session);
        turn.net.close(stream, agenda.any(ABORT));
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
            return self.next_turn();
        }
        self.lose(turn);
        let lingers = turn.config.linger_timeout.is_some() && !self.session.is_eof();
        if !lingers || turn.net.finish(&mut self.stream).is_err() {
            return self.reap();
        }
        self.linger = Some(Box::new(Linger::new(turn.now(), turn.config)));
        self.agenda.set(LINGERING | READABLE | RETIME);
        self.linger(turn)
    }

    /// Throws away what the peer still sends, until it ends its side or has had its time.
    fn linger<N: Net<Stream = S>>(&mut self, turn: &mut Turn<'_, N>) -> Next {
        let Some(linger) = self.linger.as_mut().filter(|_| !self.agenda.any(ENDED)) else {
            return Next::Wait;
        };
        let now = turn.now();
        if linger.reads() && self.agenda.any(READABLE) {
            let room = &mut turn.input[..turn.read_size];
            match turn.net.read(&mut self.stream, room) {
                Ok(count) if count > 0 => {
                    linger.hear(count, now);
                    return Next::Again;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => return Next::Again,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.agenda.clear(READABLE),
                _ => return self.reap(),
            }
        }
        let unsent = turn.net.unsent(&mut self.stream);
        if linger.is_over(unsent, now, turn.config, turn.draining) {
            return self.reap();
        }
        self.agenda.set(RETIME);
        Next::Wait
    }

    fn lose<N>(&mut self, turn: &mut Turn<'_, N>) {
        if turn.lose(&mut self.session) {
            self.agenda.set(ABORT);
        }
    }

    fn reap(&mut self) -> Next {
        self.agenda.set(ENDED);
        Next::Reap
    }
}

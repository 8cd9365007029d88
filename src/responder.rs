//! One datagram socket on the loop: each datagram is a session, and its output the one reply.

use std::io::{self, ErrorKind};

use crate::address::{Address, Peer};
use crate::admission::build;
use crate::error::CloseReason;
use crate::net::Net;
use crate::protocol::{Factory, Protocol};
use crate::session::Session;
use crate::turn::Turn;

/// A datagram's session ends before anybody could wake it.
const NOBODY: usize = usize::MAX;

#[derive(Debug)]
pub(crate) struct Responder<D> {
    pub(crate) socket: D,
    pub(crate) address: Address,
    listener: u16,
    readable: bool,
}

impl<D> Responder<D> {
    pub(crate) fn new(socket: D, address: Address, listener: u16) -> Self {
        Self {
            socket,
            address,
            listener,
            readable: true,
        }
    }

    pub(crate) fn note_readable(&mut self) {
        self.readable = true;
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.readable
    }

    /// Answers datagrams until none waits or the turn's budget is spent. No failure concerns anything
    /// but the one datagram.
    pub(crate) fn drive<N, F>(&mut self, turn: &mut Turn<'_, N>, factory: &mut F)
    where
        N: Net<Datagram = D>,
        F: Factory,
    {
        for _ in 0..turn.config.datagrams_per_turn {
            match turn.net.receive(&mut self.socket, turn.input) {
                Ok((count, from)) => self.answer(count, from, turn, factory),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return;
                }
                // An earlier reply was refused on its way, or a signal came.
                Err(error) => log::debug!("{}: {error}", self.address),
            }
        }
    }

    fn answer<N, F>(&mut self, count: usize, from: Address, turn: &mut Turn<'_, N>, factory: &mut F)
    where
        N: Net<Datagram = D>,
        F: Factory,
    {
        turn.statistics.datagrams_received += 1;
        let peer = Peer::new(from, Some(self.listener));
        let Some(protocol) = build(factory, &peer, turn).flatten() else {
            turn.statistics.datagrams_dropped += 1;
            return;
        };
        let context = turn.context(NOBODY);
        let mut session = Session::new(protocol, peer, turn.now());
        session.lend(turn.output);
        session.handle_datagram(&turn.input[..count], &context);
        if session.has_replied() && !session.is_aborted() {
            self.reply(&session, turn);
        }
        session.output_sent(session.output().len(), &context);
        session.reclaim(turn.output, &context);
        end(session, turn);
    }

    fn reply<N, P>(&mut self, session: &Session<P>, turn: &mut Turn<'_, N>)
    where
        N: Net<Datagram = D>,
        P: Protocol,
    {
        let to = session.peer().address();
        let sent = loop {
            match turn.net.send(&mut self.socket, session.output(), to) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                sent => break sent,
            }
        };
        match sent {
            Ok(()) => turn.statistics.datagrams_sent += 1,
            Err(error) => drop_reply(&error, to, turn),
        }
    }
}

fn drop_reply<N>(error: &io::Error, to: &Address, turn: &mut Turn<'_, N>) {
    log::debug!("{to}: reply dropped: {error}");
    turn.statistics.datagrams_dropped += 1;
}

fn end<N, P: Protocol>(mut session: Session<P>, turn: &mut Turn<'_, N>) {
    if let Some(reason) = session.handle_lost() {
        turn.statistics.panics += u64::from(matches!(*reason, CloseReason::Panicked));
        turn.statistics.panics += u64::from(session.has_panicked_last());
        if reason.is_error() {
            turn.statistics.datagrams_failed += 1;
            turn.failures.push((session.peer().clone(), reason));
        }
    }
    turn.drop_guarded(session);
}

//! One datagram socket on the loop: each datagram is a session, and its output the one reply.

use std::io::{self, ErrorKind};
use std::time::Instant;

use crate::address::{Address, Peer};
use crate::admission::Admission;
use crate::buffer::Buffer;
use crate::clock::Clock;
use crate::config::Config;
use crate::error::CloseReason;
use crate::guard::guard;
use crate::mio::Datagram;
use crate::net::Net;
use crate::protocol::{Factory, Protocol};
use crate::session::Session;
use crate::statistics::Statistics;
use crate::transport::Context;
use crate::turn::Turn;
use crate::waker::Mailbox;

/// A datagram's session ends before anybody could wake it.
pub(crate) const NOBODY: usize = usize::MAX;

#[derive(Debug)]
pub(crate) struct Responder<D> {
    pub(crate) socket: D,
    pub(crate) address: Address,
    readable: bool,
}

impl<D> Responder<D> {
    pub(crate) fn new(socket: D, address: Address) -> Self {
        Self {
            socket,
            address,
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
    pub(crate) fn drive<F, N>(&mut self, admission: &mut Admission<'_, F, N>, number: u16)
    where
        F: Factory,
        N: Net<Datagram = D>,
    {
        for _ in 0..admission.turn.config.datagrams_per_turn {
            if admission.is_full() {
                return;
            }
            let Turn { net, input, .. } = &mut admission.turn;
            match net.receive(&mut self.socket, input) {
                Ok((count, from)) => {
                    admission.answer(&mut self.socket, count, Peer::new(from, Some(number)));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return;
                }
                // An earlier reply was refused on its way, or a signal came.
                Err(error) => log::debug!("{}: {error}", self.address),
            }
        }
    }
}

/// Answers the datagram that is in the first `count` bytes of the turn's input.
pub(crate) fn answer_here<N: Net, P: Protocol>(
    socket: &mut N::Datagram,
    count: usize,
    protocol: P,
    peer: Peer,
    turn: &mut Turn<'_, N>,
) {
    let context = turn.context(NOBODY);
    let Turn {
        net,
        input,
        output,
        statistics,
        failures,
        ..
    } = turn;
    let send = |reply: &[u8], to: &Address| net.send(socket, reply, to);
    failures.extend(answer(
        (protocol, peer),
        &input[..count],
        &context,
        statistics,
        output,
        send,
    ));
}

/// Answers one datagram, away from the loop.
pub(crate) fn answer_away<P: Protocol>(
    socket: &Datagram,
    data: &[u8],
    (protocol, peer): (P, Peer),
    config: &Config,
    statistics: &mut Statistics,
) -> Option<(Peer, Box<CloseReason>)> {
    let clock = Clock::new(Instant::now());
    let context = Context {
        clock: &clock,
        config,
        wakers: &Mailbox::silent(),
        id: NOBODY,
    };
    let send = |reply: &[u8], to: &Address| socket.send_to(reply, to);
    answer(
        (protocol, peer),
        data,
        &context,
        statistics,
        &mut None,
        send,
    )
}

/// Runs a datagram's session and sends its reply. Returns what an operator wants to hear of it.
pub(crate) fn answer<P: Protocol>(
    (protocol, peer): (P, Peer),
    data: &[u8],
    context: &Context<'_>,
    statistics: &mut Statistics,
    scratch: &mut Option<Box<Buffer>>,
    send: impl FnMut(&[u8], &Address) -> io::Result<()>,
) -> Option<(Peer, Box<CloseReason>)> {
    let mut session = Session::new(protocol, peer, context.clock.tick());
    session.lend(scratch);
    session.handle_datagram(data, context);
    if session.has_replied() && !session.is_aborted() {
        reply(&session, statistics, send);
    }
    session.output_sent(session.output().len(), context);
    session.reclaim(scratch, context);
    let reason = session.handle_lost()?;
    statistics.panics += u64::from(matches!(*reason, CloseReason::Panicked));
    statistics.panics += u64::from(session.has_panicked_last());
    statistics.datagrams_failed += u64::from(reason.is_error());
    let failure = reason.is_error().then(|| (session.peer().clone(), reason));
    statistics.panics += u64::from(guard(|| drop(session)).is_none());
    failure
}

fn reply<P: Protocol>(
    session: &Session<P>,
    statistics: &mut Statistics,
    mut send: impl FnMut(&[u8], &Address) -> io::Result<()>,
) {
    let to = session.peer().address();
    let sent = loop {
        match send(session.output(), to) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            sent => break sent,
        }
    };
    match sent {
        Ok(()) => statistics.datagrams_sent += 1,
        Err(error) => {
            log::debug!("{to}: reply dropped: {error}");
            statistics.datagrams_dropped += 1;
        }
    }
}

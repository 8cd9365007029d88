//! One datagram socket on the loop, whose datagrams are answered.

mod announce;
mod answer;
mod ends;
mod index;
mod outbound;
mod own;
mod peer_session;
mod reply_limit;
mod reports;
mod sessions;

pub(in crate::reactor) use self::announce::announce;
pub(crate) use self::answer::{answer_on_loop, answer_with};
pub(in crate::reactor) use self::reply_limit::ReplyLimit;
pub(in crate::reactor) use self::sessions::{DatagramSockets, Sessions};

use std::io;

use crate::LOG_TARGET;
use crate::address::{Address, Peer};
use crate::config::Config;
use crate::net::Net;
use crate::reactor::accept::Admission;
use crate::reactor::hub::Hub;
use crate::reactor::source::{Consequence, Source};
use crate::session::DATAGRAM_MOST;
use crate::session::Factory;

/// A datagram socket with its address and its readiness.
#[derive(Debug)]
pub(super) struct Responder<D> {
    pub(super) socket: D,
    pub(crate) address: Address,
    pub(super) source: Source,
    /// What becomes of a datagram.
    pub(super) kind: Kind,
    /// Whether the system may have reports of datagrams that did not arrive.
    has_reports: bool,
    /// Whether protocols are told the headers of packets.
    tells_packets: bool,
}

/// What becomes of the datagrams of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Each is a session of its own.
    OneShot,
    /// Those of one peer belong to one session.
    Sessions,
}

impl<D> Responder<D> {
    pub(super) fn new(socket: D, address: Address, config: &Config) -> Self {
        Self {
            socket,
            address,
            source: Source::new(),
            kind: match config.sessions {
                true => Kind::Sessions,
                false => Kind::OneShot,
            },
            has_reports: false,
            tells_packets: config.udp.packet_info,
        }
    }

    /// Notes that the system reports an error of the socket.
    pub(super) fn note_error(&mut self) {
        self.has_reports = self.kind == Kind::Sessions;
    }

    /// Answers datagrams until none waits or the turn's budget is spent.
    ///
    /// # Errors
    /// The socket itself has failed.
    pub(super) fn drive<F, N>(
        &mut self,
        admission: &mut Admission<'_, F, N>,
        number: u16,
    ) -> io::Result<()>
    where
        F: Factory,
        N: Net<Datagram = D>,
    {
        if self.has_reports {
            self.has_reports = admission.take_reports(&mut self.socket, number);
        }
        for _ in 0..admission.hub.env.config.datagrams_per_turn {
            if !self.source.is_ready() {
                return Ok(());
            }

            if admission.is_full() {
                if admission.hub.net.has_datagram(&mut self.socket) {
                    admission.warn_full(&self.address);
                }
                return Ok(());
            }

            let Hub { net, input, .. } = &mut admission.hub;
            match net.receive(&mut self.socket, &mut input[..=DATAGRAM_MOST]) {
                Ok((count, from)) => {
                    self.source.note_taken();
                    let peer = Peer::new(from, Some(number)).with_id(net.next_id());
                    if self.tells_packets {
                        let packet = net.packet_info(&mut self.socket);
                        admission.hub.env.packet.set(packet);
                    }
                    match self.kind {
                        Kind::OneShot => admission.answer(&mut self.socket, count, peer),
                        Kind::Sessions => admission.receive(&mut self.socket, count, peer),
                    }
                    if self.tells_packets {
                        admission.hub.env.packet.set(None);
                    }
                }
                Err(error) => self.handle_error(error, &mut admission.hub)?,
            }
        }
        Ok(())
    }

    fn handle_error<N: Net>(&mut self, error: io::Error, hub: &mut Hub<'_, N>) -> io::Result<()> {
        match self.source.note_error(&error, hub) {
            Consequence::Wait => {}
            // An earlier reply was rejected on its way, or a signal arrived.
            Consequence::Skip => log::debug!(target: LOG_TARGET, "{}: {error}", self.address),
            Consequence::Pause => {
                hub.warn(
                    "receive",
                    format_args!("{}: cannot receive for now: {error}", self.address),
                );
            }
            Consequence::Fail => return Err(error),
        }
        Ok(())
    }
}

//! One datagram socket on the loop.

use std::io::ErrorKind;

use crate::address::{Address, Peer};
use crate::admission::Admission;
use crate::net::Net;
use crate::protocol::Factory;
use crate::turn::Turn;

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

//! One datagram socket on the loop.

use std::io;

use crate::address::{Address, Peer};
use crate::admission::Admission;
use crate::intake::{Consequence, Intake};
use crate::journal::TARGET;
use crate::net::Net;
use crate::protocol::Factory;
use crate::turn::{DATAGRAM_MOST, Turn};

#[derive(Debug)]
pub(crate) struct Responder<D> {
    pub(crate) socket: D,
    pub(crate) address: Address,
    pub(crate) intake: Intake,
}

impl<D> Responder<D> {
    pub(crate) fn new(socket: D, address: Address) -> Self {
        Self {
            socket,
            address,
            intake: Intake::new(),
        }
    }

    /// Answers datagrams until none waits or the turn's budget is spent.
    ///
    /// # Errors
    /// The socket itself has failed.
    pub(crate) fn drive<F, N>(
        &mut self,
        admission: &mut Admission<'_, F, N>,
        number: u16,
    ) -> io::Result<()>
    where
        F: Factory,
        N: Net<Datagram = D>,
    {
        for _ in 0..admission.turn.config.datagrams_per_turn {
            if !self.intake.is_ready() {
                return Ok(());
            }
            if admission.is_full() {
                if admission.turn.net.has_datagram(&mut self.socket) {
                    admission.warn_full(&self.address);
                }
                return Ok(());
            }
            let Turn { net, input, .. } = &mut admission.turn;
            match net.receive(&mut self.socket, &mut input[..=DATAGRAM_MOST]) {
                Ok((count, from)) => {
                    self.intake.note_taken();
                    admission.answer(&mut self.socket, count, Peer::new(from, Some(number)));
                }
                Err(error) => self.handle_error(error, &mut admission.turn)?,
            }
        }
        Ok(())
    }

    fn handle_error<N: Net>(&mut self, error: io::Error, turn: &mut Turn<'_, N>) -> io::Result<()> {
        match self.intake.note_error(&error, turn) {
            Consequence::Wait => {}
            // An earlier reply was refused on its way, or a signal came.
            Consequence::Skip => log::debug!(target: TARGET, "{}: {error}", self.address),
            Consequence::Pause => {
                turn.warn(
                    "receive",
                    format_args!("{}: cannot receive for now: {error}", self.address),
                );
            }
            Consequence::Fail => return Err(error),
        }
        Ok(())
    }
}

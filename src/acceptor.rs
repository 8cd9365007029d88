//! One listener on the loop: takes connections in, and knows which failures of accept(2) concern
//! the connection, the system, or the listener itself.

use std::io;

use crate::address::{Address, Peer};
use crate::admission::Admission;
use crate::clock::Tick;
use crate::fault::{Consequence, consequence};
use crate::net::Net;
use crate::protocol::Factory;
use crate::turn::Turn;

#[derive(Debug)]
pub(crate) struct Acceptor<L> {
    pub(crate) listener: L,
    pub(crate) address: Address,
    readable: bool,
    paused_until: Option<Tick>,
}

impl<L> Acceptor<L> {
    pub(crate) fn new(listener: L, address: Address) -> Self {
        Self {
            listener,
            address,
            readable: true,
            paused_until: None,
        }
    }

    pub(crate) fn note_readable(&mut self) {
        self.readable = true;
    }

    /// Whether a connection may wait that can be accepted now.
    pub(crate) fn is_ready(&self) -> bool {
        self.readable && self.paused_until.is_none()
    }

    /// When a pause ends.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.paused_until
    }

    /// Ends a pause whose time has come. No event tells that descriptors are free again, so the
    /// acceptor stays readable all the while.
    pub(crate) fn expire(&mut self, now: Tick) {
        self.paused_until = self.paused_until.filter(|until| now < *until);
    }

    /// Takes connections in until none waits, accepting has to pause, or `most` were taken.
    ///
    /// # Errors
    /// The listener itself has failed.
    pub(crate) fn drive<F, N>(
        &mut self,
        admission: &mut Admission<'_, F, N>,
        number: u16,
        most: usize,
    ) -> io::Result<()>
    where
        F: Factory,
        N: Net<Listener = L>,
    {
        for _ in 0..most {
            if !self.is_ready() || admission.is_full() {
                return Ok(());
            }
            match admission.turn.net.accept(&mut self.listener) {
                Ok((stream, address)) => admission.admit(stream, Peer::new(address, Some(number))),
                Err(error) => self.handle_error(error, &mut admission.turn)?,
            }
        }
        Ok(())
    }

    fn handle_error<N>(&mut self, error: io::Error, turn: &mut Turn<'_, N>) -> io::Result<()> {
        match consequence(&error) {
            Consequence::Wait => self.readable = false,
            Consequence::Skip => turn.statistics.accept_aborted += 1,
            Consequence::Pause => {
                turn.statistics.accept_exhausted += 1;
                self.paused_until = Some(turn.now().after(turn.config.accept_pause));
                turn.warn(
                    "accept",
                    format_args!("{}: cannot accept for now: {error}", self.address),
                );
            }
            Consequence::Fail => return Err(error),
        }
        Ok(())
    }
}

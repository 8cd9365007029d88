//! One listener on the loop, from which connections are accepted. Who is refused is decided in
//! `admission`, and what an error means in `source`.

mod admission;
mod outbound;
mod peer_limit;

pub(in crate::reactor) use self::admission::Admission;
pub(in crate::reactor) use self::peer_limit::PeerLimit;

use std::io;

use crate::address::{Address, Peer};
use crate::net::Net;
use crate::reactor::hub::Hub;
use crate::reactor::source::{Consequence, Source};
use crate::session::Factory;
use crate::sys::Explained;

/// A listener with its address and its accept readiness.
#[derive(Debug)]
pub(super) struct Acceptor<L> {
    pub(super) listener: L,
    pub(crate) address: Address,
    pub(super) source: Source,
}

impl<L> Acceptor<L> {
    pub(super) fn new(listener: L, address: Address) -> Self {
        Self {
            listener,
            address,
            source: Source::new(),
        }
    }

    /// Accepts connections until none waits, accepting has to pause, or `most` were accepted.
    ///
    /// # Errors
    /// The listener itself has failed.
    pub(super) fn drive<F, N>(
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
            if !self.source.is_ready() {
                return Ok(());
            }

            if admission.is_full() {
                if admission.hub.net.has_connection(&mut self.listener) {
                    admission.warn_full(&self.address);
                }
                return Ok(());
            }

            match admission.hub.net.accept(&mut self.listener) {
                Ok((stream, address)) => {
                    self.source.note_taken();
                    let id = admission.hub.net.next_id();
                    admission.admit(stream, Peer::new(address, Some(number)).with_id(id));
                }
                Err(error) => self.handle_error(error, &mut admission.hub)?,
            }
        }
        Ok(())
    }

    /// Serves what other loops have accepted for this one, before the listener is closed.
    pub(super) fn take_handed<F, N>(&mut self, admission: &mut Admission<'_, F, N>, number: u16)
    where
        F: Factory,
        N: Net<Listener = L>,
    {
        while let Some((stream, address)) = admission.hub.net.accept_handed(&mut self.listener) {
            let id = admission.hub.net.next_id();
            admission.admit(stream, Peer::new(address, Some(number)).with_id(id));
        }
    }

    fn handle_error<N: Net>(&mut self, error: io::Error, hub: &mut Hub<'_, N>) -> io::Result<()> {
        match self.source.note_error(&error, hub) {
            Consequence::Wait => {}
            Consequence::Skip => hub.effects.statistics.accept_aborted += 1,
            Consequence::Pause => {
                hub.effects.statistics.accept_exhausted += 1;
                hub.warn(
                    "accept",
                    format_args!(
                        "{}: cannot accept for now: {}",
                        self.address,
                        Explained(&error)
                    ),
                );
            }
            Consequence::Fail => return Err(error),
        }
        Ok(())
    }
}

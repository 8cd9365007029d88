//! All listeners of a loop, for connections and for datagrams.

use std::io;

use crate::LOG_TARGET;
use crate::address::Address;
use crate::net::Net;
use crate::reactor::accept::{Acceptor, Admission};
use crate::reactor::datagram::{DatagramSockets, Kind, Responder};
use crate::reactor::model::FIRST_OF_MODEL;
use crate::reactor::source::Source;
use crate::session::{Factory, Tick};

/// The listeners of a loop, each at the place of its number, which is also its token. A number does
/// not change when another listener closes. Further sockets of some of them are behind.
pub(super) struct Listeners<N: Net> {
    all: Vec<Option<Listener<N>>>,
    /// The number of the first that is a further socket, and the listeners that those belong to.
    others: (usize, Vec<u16>),
    /// Whether one of them has work, and when the first pause ends: each turn asks for both.
    is_ready: bool,
    deadline: Option<Tick>,
}

impl<N: Net> Listeners<N> {
    pub(super) fn new() -> Self {
        Self {
            all: Vec::new(),
            others: (0, Vec::new()),
            is_ready: false,
            deadline: None,
        }
    }

    /// Returns the number of the next listener.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn next_number(&self) -> io::Result<u16> {
        number_below(FIRST_OF_MODEL, self.all.len())
    }

    pub(super) fn push(&mut self, listener: Listener<N>) {
        self.all.push(Some(listener));
        self.others.0 = self.all.len();
        self.review();
    }

    /// Adds a further socket of the listener with this number.
    pub(super) fn push_other(&mut self, listener: Listener<N>, number: usize) {
        self.all.push(Some(listener));
        // A place that is below a number which was given is below the limit.
        self.others
            .1
            .push(u16::try_from(number).unwrap_or(u16::MAX));
        self.review();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = &Address> {
        let own = self.all.iter().take(self.others.0);
        own.flatten().map(Listener::address)
    }

    pub(super) fn note_readable(&mut self, number: usize) {
        if let Some(Some(listener)) = self.all.get_mut(number) {
            listener.source_mut().note_readable();
        }
        self.review();
    }

    /// Notes that the system reports an error of a socket.
    #[cold]
    pub(super) fn note_error(&mut self, number: usize) {
        if let Some(Some(Listener::Responder(responder))) = self.all.get_mut(number) {
            responder.note_error();
        }
    }

    /// Marks every listener as readable, whatever the events said: one may still be on its way.
    pub(super) fn note_all_readable(&mut self) {
        self.all
            .iter_mut()
            .flatten()
            .for_each(|listener| listener.source_mut().note_readable());
        self.review();
    }

    /// Returns whether a listener has work that no event will announce.
    #[inline]
    pub(super) fn is_ready(&self) -> bool {
        self.is_ready
    }

    /// Returns when a listener's pause ends, if one is paused.
    #[inline]
    pub(super) fn deadline(&self) -> Option<Tick> {
        self.deadline
    }

    /// Ends the pauses that are over.
    #[inline]
    pub(super) fn expire(&mut self, now: Tick) {
        if self.deadline.is_some_and(|at| at <= now) {
            self.end_pauses(now);
        }
    }

    #[cold]
    fn end_pauses(&mut self, now: Tick) {
        self.all
            .iter_mut()
            .flatten()
            .for_each(|listener| listener.source_mut().expire(now));
        self.review();
    }

    /// Looks at all listeners again, after one of them has changed.
    fn review(&mut self) {
        let sources = || self.iter().map(Listener::source);
        let is_ready = sources().any(Source::is_ready);
        self.deadline = sources().filter_map(Source::deadline).min();
        self.is_ready = is_ready;
    }

    /// Serves what waits at each listener, up to `accepts` connections each. A listener whose
    /// socket fails is closed. Returns the error if that was the last one.
    #[cold]
    pub(super) fn drive<F: Factory>(
        &mut self,
        admission: &mut Admission<'_, F, N>,
        accepts: usize,
    ) -> Option<io::Error> {
        let mut last_error = None;
        let others = &self.others;

        for (number, place) in (0..=u16::MAX).zip(&mut self.all) {
            let Some(listener) = place
                .as_mut()
                .filter(|listener| listener.source().is_ready())
            else {
                continue;
            };

            if let Err(error) = listener.drive(admission, listener_of(number, others), accepts) {
                log::error!(target: LOG_TARGET, "{}: stopped listening: {error}", listener.address());
                if let Some(listener) = place.take() {
                    listener.close(admission.hub.net);
                }
                last_error = Some(error);
            }
        }

        self.review();
        last_error.filter(|_| self.is_empty())
    }

    /// Serves what other loops have accepted for this one. They give it nothing more.
    pub(super) fn take_handed<F: Factory>(&mut self, admission: &mut Admission<'_, F, N>) {
        let others = &self.others;
        for (number, place) in (0..=u16::MAX).zip(&mut self.all) {
            if let Some(Listener::Acceptor(acceptor)) = place {
                acceptor.take_handed(admission, listener_of(number, others));
            }
        }
    }

    /// Returns the number of the listener that the socket in this place belongs to.
    pub(super) fn number_of(&self, place: usize) -> usize {
        let place = u16::try_from(place).unwrap_or(u16::MAX);
        listener_of(place, &self.others).into()
    }

    /// Closes the listeners at the beginning of a shutdown. If sessions of datagrams are left
    /// (`has_sessions`), their sockets stay.
    pub(super) fn close_idle(&mut self, net: &mut N, has_sessions: bool) {
        for place in &mut self.all {
            let stays = |listener: &mut Listener<N>| has_sessions && listener.has_sessions();
            if let Some(listener) = place.take_if(|listener| !stays(listener)) {
                listener.close(net);
            }
        }
        self.review();
    }

    pub(super) fn close_all(&mut self, net: &mut N) {
        self.all
            .drain(..)
            .flatten()
            .for_each(|listener| listener.close(net));
        self.review();
    }

    fn iter(&self) -> impl Iterator<Item = &Listener<N>> {
        self.all.iter().flatten()
    }
}

impl<N: Net> DatagramSockets<N::Datagram> for Listeners<N> {
    fn datagram(&mut self, number: usize) -> Option<(&mut N::Datagram, bool)> {
        match self.all.get_mut(number) {
            Some(Some(Listener::Responder(responder))) => {
                let waits = responder.source.is_ready();
                Some((&mut responder.socket, waits))
            }
            _ => None,
        }
    }
}

/// A listener for connections or for datagrams.
pub(super) enum Listener<N: Net> {
    Acceptor(Acceptor<N::Listener>),
    Responder(Responder<N::Datagram>),
}

impl<N: Net> Listener<N> {
    pub(super) fn address(&self) -> &Address {
        match self {
            Self::Acceptor(acceptor) => &acceptor.address,
            Self::Responder(responder) => &responder.address,
        }
    }

    fn has_sessions(&self) -> bool {
        matches!(self, Self::Responder(responder) if responder.kind == Kind::Sessions)
    }

    fn source(&self) -> &Source {
        match self {
            Self::Acceptor(acceptor) => &acceptor.source,
            Self::Responder(responder) => &responder.source,
        }
    }

    fn source_mut(&mut self) -> &mut Source {
        match self {
            Self::Acceptor(acceptor) => &mut acceptor.source,
            Self::Responder(responder) => &mut responder.source,
        }
    }

    fn drive<F: Factory>(
        &mut self,
        admission: &mut Admission<'_, F, N>,
        number: u16,
        accepts: usize,
    ) -> io::Result<()> {
        match self {
            Self::Acceptor(acceptor) => acceptor.drive(admission, number, accepts),
            Self::Responder(responder) => responder.drive(admission, number),
        }
    }

    fn close(self, net: &mut N) {
        match self {
            Self::Acceptor(acceptor) => net.close_listener(acceptor.listener),
            Self::Responder(responder) => net.close_datagram(responder.socket),
        }
    }
}

fn listener_of(place: u16, (own, others): &(usize, Vec<u16>)) -> u16 {
    let other = usize::from(place).checked_sub(*own);
    other
        .and_then(|other| others.get(other))
        .map_or(place, |number| *number)
}

/// Converts `place` to a listener's number, which is also a token and so has to stay below those of
/// others.
fn number_below(end: usize, place: usize) -> io::Result<u16> {
    u16::try_from(place)
        .ok()
        .filter(|_| place < end)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "too many listeners"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With 32 bits, 16 bits of tokens are left for listeners, children and wakers.
    #[test]
    fn no_listener_has_the_token_of_something_else() {
        let first_of_model = 1 << 15;
        assert_eq!(number_below(first_of_model, 0).ok(), Some(0));
        assert_eq!(number_below(first_of_model, 32_767).ok(), Some(32_767));
        assert!(number_below(first_of_model, 32_768).is_err());
        // With 64 bits the type of a listener's number is the limit.
        assert_eq!(number_below(1 << 31, 65_535).ok(), Some(65_535));
        assert!(number_below(1 << 31, 65_536).is_err());
    }
}

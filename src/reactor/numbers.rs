//! The socket of each connection, for questions about it that few sessions ask.

use std::cell::RefCell;

use crate::address::{Address, Credentials};
use crate::net::Sockets;
use crate::reactor::token::{SLOT_MASK, is_of_session};

/// What a slot takes here.
#[cfg(test)]
pub(super) const NUMBER_BYTES: usize = size_of::<i32>();

/// The number by which the network knows the stream in each slot. A session has no access to its
/// own connection while it runs, and to lend it the number would cost something for every message.
pub(super) struct Numbers {
    sockets: Box<dyn Sockets>,
    /// By slot. A free slot keeps the number of its last stream, which no session asks for.
    numbers: RefCell<Vec<i32>>,
}

impl Numbers {
    pub(super) fn new(sockets: Box<dyn Sockets>) -> Self {
        Self {
            sockets,
            numbers: RefCell::default(),
        }
    }

    /// Notes the stream of a slot's new connection.
    pub(super) fn note(&self, slot: usize, number: i32) {
        let mut numbers = self.numbers.borrow_mut();
        if numbers.len() <= slot {
            numbers.resize(slot + 1, -1);
        }
        numbers[slot] = number;
    }

    /// Gives back what is kept for slots from `end` on, in which there are no connections.
    pub(super) fn shrink(&self, end: usize) {
        let mut numbers = self.numbers.borrow_mut();
        numbers.truncate(end);
        if numbers.len() < numbers.capacity() / 4 {
            numbers.shrink_to(2 * end);
        }
    }

    /// Returns the local address of the open connection with this token.
    pub(super) fn local_address(&self, token: usize) -> Option<Address> {
        self.sockets.local_address(self.number(token)?)
    }

    /// Returns the local address of the open stream that the network knows by this number.
    pub(super) fn of_number(&self, number: i32) -> Option<Address> {
        self.sockets.local_address(number)
    }

    /// Returns the credentials of the peer of the open connection with this token.
    pub(super) fn credentials(&self, token: usize) -> Option<Credentials> {
        self.sockets.credentials(self.number(token)?)
    }

    /// Returns `None` for the token of a datagram's session, which no slot has.
    fn number(&self, token: usize) -> Option<i32> {
        if is_of_session(token) {
            return None;
        }
        self.numbers.borrow().get(token & SLOT_MASK).copied()
    }
}

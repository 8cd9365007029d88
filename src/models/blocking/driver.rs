//! What the session of a blocking driver may ask about its socket.

use std::os::fd::AsRawFd;

use socket2::Socket;

use crate::address::{Address, Credentials};
use crate::models::self_pipe::SelfPipe;
use crate::net::{Sockets, SystemSockets};
use crate::session::Driver;
use crate::waker::{Waker, Wakers};

/// The one socket of a blocking driver, and what wakes its session.
pub(super) struct Served<'a> {
    pub(super) stream: &'a Socket,
    pub(super) self_pipe: SelfPipe,
}

impl Wakers for Served<'_> {
    fn waker(&self, id: usize) -> Waker {
        self.self_pipe.waker(id)
    }
}

impl Driver for Served<'_> {
    fn local_address(&self, _: usize) -> Option<Address> {
        SystemSockets.local_address(self.stream.as_raw_fd())
    }

    fn credentials(&self, _: usize) -> Option<Credentials> {
        SystemSockets.credentials(self.stream.as_raw_fd())
    }
}

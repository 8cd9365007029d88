//! Registrations with a poller that reports each change once (epoll, kqueue). They are made once
//! and last until the descriptor is closed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use ::mio::event::Event;
use ::mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::Mio;

/// Whether a registration has to be renewed after an event.
pub(super) const REARMS: bool = false;

#[derive(Debug)]
pub(super) struct Registrations;

#[expect(clippy::unused_self, reason = "pollers without memory have more to do")]
impl Registrations {
    pub(super) fn new() -> Self {
        Self
    }

    pub(super) fn add(
        &self,
        registry: &Registry,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let descriptor = descriptor.as_raw_fd();
        registry.register(&mut SourceFd(&descriptor), Token(token), interest)
    }

    pub(super) fn change(
        &self,
        registry: &Registry,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let descriptor = descriptor.as_raw_fd();
        registry.reregister(&mut SourceFd(&descriptor), Token(token), interest)
    }

    pub(super) fn keep_armed(&self, _: BorrowedFd<'_>) {}

    pub(super) fn look_often(&self, _: BorrowedFd<'_>) {}

    pub(super) fn rearm(&self, _: &Registry, _: BorrowedFd<'_>, _: Interest) {}

    pub(super) fn remove(&self, _: &Registry, _: BorrowedFd<'_>) {}

    pub(super) fn note(&self, _: &Event) {}

    pub(super) fn prepare(&self, _: &Registry, timeout: Option<Duration>) -> Option<Duration> {
        timeout
    }
}

impl AsFd for Mio {
    /// Returns a descriptor that is readable when [`Net::poll`](crate::net::Net::poll) has events.
    /// There is none on systems whose only poller is poll(2).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.poll.registry().as_fd()
    }
}

impl AsRawFd for Mio {
    /// Returns the number of the descriptor that [`AsFd`] lends.
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

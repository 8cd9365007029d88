//! What descriptors are watched for.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, BorrowedFd};

use mio::Interest;
use mio::unix::SourceFd;

use super::Mio;
use super::registrations::REARMS;
use crate::sys;

impl Mio {
    pub(super) fn watch(
        &self,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let registry = self.poll.registry();
        self.registrations
            .add(registry, descriptor, token, interest)
    }

    /// Watches a descriptor for other things than before.
    pub(super) fn change(
        &self,
        descriptor: BorrowedFd<'_>,
        token: usize,
        interest: Interest,
    ) -> io::Result<()> {
        let registry = self.poll.registry();
        self.registrations
            .change(registry, descriptor, token, interest)
    }

    /// Asks for the next event of a descriptor on which nothing more can be done now.
    pub(super) fn rearm(&self, descriptor: BorrowedFd<'_>, interest: Interest) {
        let registry = self.poll.registry();
        self.registrations.rearm(registry, descriptor, interest);
    }

    /// Rearms a descriptor if the outcome of a call shows that nothing more can be done.
    pub(super) fn rearm_after<T>(
        &self,
        descriptor: BorrowedFd<'_>,
        interest: Interest,
        outcome: &io::Result<T>,
        is_short: impl FnOnce(&T) -> bool,
    ) {
        let nothing_more = match outcome {
            Ok(done) => is_short(done),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        };

        if nothing_more {
            self.rearm(descriptor, interest);
        }
    }

    pub(super) fn forget(&self, descriptor: BorrowedFd<'_>) {
        self.registrations.remove(self.poll.registry(), descriptor);
    }

    /// Forgets a socket that another process may have too. While it is open there, closing it here does
    /// not end its registration. A forked child shares the poller of its parent, which goes on with it.
    pub(super) fn forget_shared(&self, descriptor: BorrowedFd<'_>) {
        self.forget(descriptor);
        if !REARMS && !sys::is_child() {
            // If this fails, nothing is registered.
            let _ = self
                .poll
                .registry()
                .deregister(&mut SourceFd(&descriptor.as_raw_fd()));
        }
    }
}

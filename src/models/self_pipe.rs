//! The self-pipe that wakes a thread while it waits for its one session.

use std::cell::{Cell, OnceCell};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use self::ring::Ring;
use crate::models::interrupt::{Descriptors, Taken};
use crate::waker::{Mailbox, Wake, Waker, Wakers};

/// Makes wakers for one session and holds the descriptor that its waits poll. Costs nothing until
/// the first waker is requested.
pub(super) struct SelfPipe {
    made: OnceCell<Made>,
    descriptors: Arc<Descriptors>,
    /// The error of the last waker that could not be made, until the session takes it.
    failure: Cell<Option<io::Error>>,
}

struct Made {
    mailbox: Arc<Mailbox>,
    ring: Arc<Ring>,
    _taken: Taken,
}

impl SelfPipe {
    /// Creates a self-pipe that will take its descriptor from `descriptors`.
    pub(super) fn new(descriptors: &Arc<Descriptors>) -> Self {
        Self {
            made: OnceCell::new(),
            descriptors: Arc::clone(descriptors),
            failure: Cell::new(None),
        }
    }

    /// Returns the descriptor that becomes readable on a wake, or `None` while no waker exists.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.made.get().map(|made| made.ring.descriptor())
    }

    /// Returns whether the session was woken since the last call.
    pub(super) fn take(&self) -> bool {
        let Some(made) = self.made.get() else {
            return false;
        };
        // Silence the ring before emptying the mailbox. A wake in between then only causes a
        // spurious wakeup. In the reverse order it would be lost.
        made.ring.silence();
        made.mailbox.take().count() > 0
    }

    /// Returns, once, why a waker could not be made. The session holds a waker that does nothing
    /// and cannot go on.
    pub(super) fn take_failure(&self) -> Option<io::Error> {
        self.failure.take()
    }

    fn make(&self) -> io::Result<&Made> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }

        let exhausted = || io::Error::from_raw_os_error(libc::EMFILE);
        let taken = self.descriptors.take().ok_or_else(exhausted)?;
        let ring = Arc::new(Ring::new()?);
        let mailbox = Mailbox::new(Box::new(Arc::clone(&ring)));

        let made = Made {
            mailbox,
            ring,
            _taken: taken,
        };
        Ok(self.made.get_or_init(|| made))
    }
}

impl Wakers for SelfPipe {
    /// Returns a waker for `id`. If no descriptor is left, the waker does nothing and the session
    /// ends with the failure.
    fn waker(&self, id: usize) -> Waker {
        match self.make() {
            Ok(made) => made.mailbox.waker(id),
            Err(error) => {
                let problem = format!("cannot create a waker: {error}");
                self.failure
                    .set(Some(io::Error::new(error.kind(), problem)));
                Mailbox::silent().waker(id)
            }
        }
    }
}

impl Wake for Arc<Ring> {
    fn wake(&self) {
        self.ring();
    }
}

/// An `eventfd`, which needs only one descriptor.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod ring {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::{AsFd, BorrowedFd};

    use crate::sys;

    pub(super) struct Ring(File);

    impl Ring {
        pub(super) fn new() -> io::Result<Self> {
            Ok(Self(sys::eventfd()?.into()))
        }

        pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        pub(super) fn ring(&self) {
            // If the counter is full, a wake is already pending.
            let _ = (&self.0).write(&1_u64.to_ne_bytes());
        }

        pub(super) fn silence(&self) {
            // It may not have been rung.
            let _ = (&self.0).read(&mut [0; 8]);
        }
    }
}

/// A pair of connected sockets, for systems without `eventfd`.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod ring {
    use std::io::{self, Read};
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::net::UnixStream;

    use crate::sys;

    pub(super) struct Ring {
        rung: UnixStream,
        heard: UnixStream,
    }

    impl Ring {
        pub(super) fn new() -> io::Result<Self> {
            let (rung, heard) = UnixStream::pair()?;
            rung.set_nonblocking(true)?;
            heard.set_nonblocking(true)?;
            Ok(Self { rung, heard })
        }

        pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
            self.heard.as_fd()
        }

        pub(super) fn ring(&self) {
            // If the stream is full, a wake is already pending.
            let _ = sys::send(&self.rung, &[0]);
        }

        pub(super) fn silence(&self) {
            // It may not have been rung.
            let _ = (&self.heard).read(&mut [0; 64]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bell_takes_one_descriptor_and_gives_it_back() {
        let descriptors = Arc::new(Descriptors::new(1));
        let self_pipe = SelfPipe::new(&descriptors);
        assert!(descriptors.has_room());
        self_pipe.waker(0).wake();
        assert!(!descriptors.has_room());
        assert!(self_pipe.take());
        assert!(!self_pipe.take());
        drop(self_pipe);
        assert!(descriptors.has_room());
    }

    #[test]
    fn without_a_descriptor_a_waker_does_nothing_and_the_session_hears_why() {
        let self_pipe = SelfPipe::new(&Arc::new(Descriptors::new(0)));
        self_pipe.waker(0).wake();
        assert!(!self_pipe.take());
        let error = self_pipe.take_failure().unwrap().to_string();
        assert!(error.starts_with("cannot create a waker: "), "{error}");
        assert!(self_pipe.take_failure().is_none());
    }
}

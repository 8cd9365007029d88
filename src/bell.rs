//! How the one session of a thread is woken while the thread waits.

use std::cell::OnceCell;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::system;
use crate::waker::{Mailbox, Wake, Waker, Wakers};

/// Makes wakers for one session, and is what its waits listen to. Costs nothing until the first
/// waker is asked for.
#[derive(Default)]
pub(crate) struct Bell {
    made: OnceCell<Made>,
}

struct Made {
    mailbox: Arc<Mailbox>,
    heard: UnixStream,
}

impl Bell {
    /// What becomes readable when somebody wakes the session; `None` as long as nobody can.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.made.get().map(|made| made.heard.as_fd())
    }

    /// Whether the session was woken since the last call.
    pub(crate) fn take(&self) -> bool {
        let Some(made) = self.made.get() else {
            return false;
        };
        // The bell is silenced before the mailbox is emptied: a wake in between rings for nothing,
        // and the other way round it would not be heard at all.
        let _ = (&made.heard).read(&mut [0; 8]);
        made.mailbox.take().count() > 0
    }

    fn make(&self) -> io::Result<&Made> {
        if let Some(made) = self.made.get() {
            return Ok(made);
        }
        let (rung, heard) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        heard.set_nonblocking(true)?;
        let mailbox = Mailbox::new(Box::new(Ring(rung)));
        Ok(self.made.get_or_init(|| Made { mailbox, heard }))
    }
}

impl Wakers for Bell {
    /// # Panics
    /// When the system has no descriptor left, which ends this one connection.
    fn waker(&self, id: usize) -> Waker {
        let made = self.make().expect("two descriptors for a waker");
        made.mailbox.waker(id)
    }
}

struct Ring(UnixStream);

impl Wake for Ring {
    fn wake(&self) {
        // A full bell has been rung already, and nobody can hear one whose listener is gone.
        let _ = system::send(&self.0, &[0]);
    }
}

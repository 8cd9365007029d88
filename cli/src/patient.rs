//! Blocking standard input and output for threads that may wait, even where another process has
//! made the shared descriptor non-blocking.

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;

/// An unbuffered file whose reads and writes block whatever its flags say. The flags themselves
/// stay as they are, because they also apply to the other process.
#[derive(Debug)]
pub(crate) struct Patient(File);

impl Patient {
    /// Duplicates the descriptor `of`.
    ///
    /// # Errors
    /// Fails if the system has no descriptor left.
    pub(crate) fn new(of: impl AsFd) -> io::Result<Self> {
        Ok(Self(of.as_fd().try_clone_to_owned()?.into()))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.0.is_terminal()
    }

    fn retry<T>(
        &mut self,
        flags: PollFlags,
        mut attempt: impl FnMut(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let mut descriptors = [PollFd::new(&self.0, flags)];
                    retry_on_intr(|| poll(&mut descriptors, None))?;
                }
                outcome => return outcome,
            }
        }
    }
}

impl AsFd for Patient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<File> for Patient {
    fn from(file: File) -> Self {
        Self(file)
    }
}

impl Read for Patient {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.retry(PollFlags::IN, |file| file.read(room))
    }
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.retry(PollFlags::OUT, |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

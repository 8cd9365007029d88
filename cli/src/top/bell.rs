//! A bell, which wakes `top` while it waits for keys.

use std::ffi::c_int;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use signal_hook::low_level::pipe;

/// One end of a pipe, at which is rung.
#[derive(Debug)]
pub(super) struct Bell(UnixStream);

/// The other end, which becomes readable with that.
#[derive(Debug)]
pub(super) struct Ear(UnixStream);

/// Makes a bell.
///
/// # Errors
/// Fails if the system refuses.
pub(super) fn bell() -> io::Result<(Bell, Ear)> {
    let (ringing, hearing) = UnixStream::pair()?;
    ringing.set_nonblocking(true)?;
    hearing.set_nonblocking(true)?;
    Ok((Bell(ringing), Ear(hearing)))
}

impl Bell {
    pub(super) fn ring(&self) {
        // A pipe without room is readable already.
        let _ = (&self.0).write(&[0]);
    }

    /// Makes a signal ring, whichever thread it finds.
    ///
    /// # Errors
    /// Fails if the system refuses.
    pub(super) fn ring_at(&self, signal: c_int) -> io::Result<()> {
        pipe::register(signal, self.0.try_clone()?).map(drop)
    }
}

impl Ear {
    /// Forgets what has rung until now.
    pub(super) fn clear(&self) {
        while let Ok(1..) = (&self.0).read(&mut [0; 64]) {}
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! Reading a terminal that another job may have in the foreground.

use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::getpgrp;
use rustix::termios::tcgetpgrp;

/// How often to check whether the terminal is ours again.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Reads a terminal, and waits while this process is in the background. A server ignores the signal
/// that would stop it then, so the system refuses the read instead. Stopping would also hold up its
/// clients.
#[derive(Debug)]
pub(crate) struct Foreground<R>(pub(crate) R);

impl<R: Read + AsFd> Read for Foreground<R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(room) {
                Err(error) if is_refused(&error) && self.is_in_background() => {
                    thread::sleep(LOOK_AGAIN);
                }
                outcome => return outcome,
            }
        }
    }
}

impl<R: AsFd> Foreground<R> {
    /// Returns whether another job has the terminal. A terminal that has hung up belongs to no job.
    fn is_in_background(&self) -> bool {
        let theirs = tcgetpgrp(&self.0).is_ok_and(|job| job != getpgrp());
        theirs && self.0.as_fd().is_terminal()
    }
}

fn is_refused(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::IO.raw_os_error())
}

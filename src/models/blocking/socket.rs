//! The blocking driver's stream on the operating system: a socket, a self-pipe and the shutdown handle.

use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::address::{Address, Credentials};
use crate::models::blocking::stream::BlockingStream;
use crate::models::interrupt::Interrupt;
use crate::models::self_pipe::SelfPipe;
use crate::net::{Sockets, SystemSockets};
use crate::session::Driver;
use crate::shutdown::ShutdownHandle;
use crate::sys;
use crate::waker::{Waker, Wakers};

/// The one socket of a blocking driver, and what ends its waits.
pub(crate) struct BlockingSocket<'a> {
    socket: &'a Socket,
    self_pipe: SelfPipe,
    handle: &'a ShutdownHandle,
    interrupt: &'a Interrupt,
}

impl<'a> BlockingSocket<'a> {
    pub(crate) fn new(
        socket: &'a Socket,
        handle: &'a ShutdownHandle,
        interrupt: &'a Interrupt,
    ) -> Self {
        Self {
            socket,
            self_pipe: SelfPipe::new(&interrupt.descriptors),
            handle,
            interrupt,
        }
    }
}

impl Wakers for BlockingSocket<'_> {
    fn waker(&self, id: usize) -> Waker {
        self.self_pipe.waker(id)
    }
}

impl Driver for BlockingSocket<'_> {
    fn local_address(&self, _: usize) -> Option<Address> {
        SystemSockets.local_address(self.socket.as_raw_fd())
    }

    fn credentials(&self, _: usize) -> Option<Credentials> {
        SystemSockets.credentials(self.socket.as_raw_fd())
    }
}

impl BlockingStream for BlockingSocket<'_> {
    fn now(&mut self) -> Instant {
        Instant::now()
    }

    fn sleep(&mut self, duration: Duration) {
        self.interrupt.while_waiting(|| thread::sleep(duration));
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = self.socket;
        self.interrupt.while_waiting(|| socket.read(buffer))
    }

    fn read_at_once(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::receive_at_once(self.socket, buffer)
    }

    fn send(&mut self, data: &[u8]) -> io::Result<usize> {
        sys::send_at_once(self.socket, data)
    }

    fn wait(
        &mut self,
        events: Option<libc::c_short>,
        timeout: Option<Duration>,
    ) -> io::Result<libc::c_short> {
        let handle = (!self.interrupt.is_told()).then(|| self.handle.as_fd());
        let stream = events.map(|_| self.socket.as_fd());
        let mut waits = [
            sys::wait_for(self.self_pipe.descriptor(), libc::POLLIN),
            sys::wait_for(handle, libc::POLLIN),
            sys::wait_for(stream, events.unwrap_or(0)),
        ];
        self.interrupt
            .while_waiting(|| sys::poll(&mut waits, timeout))?;

        if waits[1].revents != 0 {
            sys::note_interrupted();
        }
        Ok(waits[2].revents)
    }

    fn has_input(&mut self) -> bool {
        sys::has_input(self.socket.as_fd())
    }

    fn take_error(&mut self) -> Option<io::Error> {
        self.socket.take_error().unwrap_or_else(Some)
    }

    fn unsent(&mut self) -> usize {
        sys::unsent(self.socket.as_fd())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown(Shutdown::Write)
    }

    fn reset(&mut self) {
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    fn has_waker(&self) -> bool {
        self.self_pipe.descriptor().is_some()
    }

    fn take_woken(&mut self) -> bool {
        self.self_pipe.take()
    }

    fn take_waker_failure(&mut self) -> Option<io::Error> {
        self.self_pipe.take_failure()
    }

    /// A child process does not share the parent's memory, so it asks the system, but only after a
    /// signal.
    fn hears_shutdown(&mut self) -> bool {
        self.handle.requests() > 0 || (sys::take_interrupted() && self.handle.is_rung())
    }

    fn is_shutdown(&mut self) -> bool {
        self.handle.is_rung()
    }

    fn requests(&mut self) -> usize {
        self.handle.requests()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Where it would wait, this test would never end.
    #[test]
    fn a_read_at_once_does_not_wait() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let (ours, handle) = (Socket::from(ours), ShutdownHandle::new().unwrap());
        let interrupt = Interrupt::default();
        let mut socket = BlockingSocket::new(&ours, &handle, &interrupt);
        let mut room = [0; 8];

        let error = socket.read_at_once(&mut room).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);

        peer.write_all(b"hello").unwrap();
        assert_eq!(socket.read_at_once(&mut room).unwrap(), 5);
        assert_eq!(&room[..5], b"hello");

        drop(peer);
        assert_eq!(socket.read_at_once(&mut room).unwrap(), 0);
    }
}

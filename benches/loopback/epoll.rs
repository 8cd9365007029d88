//! A loop as it would be written in C, straight on epoll: the least that an echo server can do. It
//! has one read buffer, keeps what a socket does not take, and has no limits, no deadlines and no
//! generations; a descriptor is its own index.
#![expect(
    unsafe_code,
    reason = "a loop in C has nothing between it and the system"
)]

use std::io::{self, ErrorKind};
use std::mem;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

const READ_BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1_024;
const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const GONE: u32 = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as u32;
const EDGE: u32 = libc::EPOLLET as u32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// One read per event, and interest changed while output waits.
    Level,
    /// Read until a short read, and never registered again.
    Edge,
}

/// Output that a socket did not take; empty, and without memory, for nearly all.
type Waiting = Vec<Vec<u8>>;

pub(crate) fn serve(listener: &TcpListener, trigger: Trigger) -> io::Result<()> {
    let mut server = Epoll::new(trigger)?;
    let listener = listener.as_raw_fd();
    control(server.epoll, libc::EPOLL_CTL_ADD, listener, IN)?;
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        let count = wait(server.epoll, &mut events)?;
        for event in &events[..count] {
            let (fd, flags) = (event.u64 as RawFd, event.events);
            if fd == listener {
                server.accept_all(listener)?;
            } else if !server.serve(fd, flags).unwrap_or(false) {
                server.waiting[fd as usize] = Vec::new();
                close(fd);
            }
        }
    }
}

struct Epoll {
    epoll: RawFd,
    trigger: Trigger,
    waiting: Waiting,
    buffer: Box<[u8]>,
}

impl Epoll {
    fn new(trigger: Trigger) -> io::Result<Self> {
        Ok(Self {
            epoll: create()?,
            trigger,
            waiting: Waiting::new(),
            buffer: vec![0; READ_BUFFER].into(),
        })
    }

    fn accept_all(&mut self, listener: RawFd) -> io::Result<()> {
        loop {
            let fd = match accept(listener) {
                Ok(fd) => fd,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            if self.waiting.len() <= fd as usize {
                self.waiting.resize_with(fd as usize + 1, Vec::new);
            }
            let interest = match self.trigger {
                Trigger::Level => IN,
                Trigger::Edge => IN | OUT | libc::EPOLLRDHUP as u32 | EDGE,
            };
            control(self.epoll, libc::EPOLL_CTL_ADD, fd, interest)?;
        }
    }

    /// Moves what can be moved. False at the end of the stream.
    fn serve(&mut self, fd: RawFd, flags: u32) -> io::Result<bool> {
        let waits = !self.waiting[fd as usize].is_empty();
        if waits && (flags & OUT == 0 || !self.flush(fd)?) {
            return Ok(flags & libc::EPOLLERR as u32 == 0);
        }
        loop {
            let count = match read(fd, &mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            let sent = write_some(fd, &self.buffer[..count])?;
            if sent < count {
                self.waiting[fd as usize].extend_from_slice(&self.buffer[sent..count]);
                self.watch(fd, OUT)?;
                return Ok(true);
            }
            let drained = count < self.buffer.len() && flags & GONE == 0;
            if self.trigger == Trigger::Level || drained {
                return Ok(true);
            }
        }
    }

    /// Writes what waits. True when nothing does any more.
    fn flush(&mut self, fd: RawFd) -> io::Result<bool> {
        let waiting = &mut self.waiting[fd as usize];
        let sent = write_some(fd, waiting)?;
        waiting.drain(..sent);
        if !waiting.is_empty() {
            return Ok(false);
        }
        mem::take(waiting);
        self.watch(fd, IN)?;
        Ok(true)
    }

    fn watch(&self, fd: RawFd, interest: u32) -> io::Result<()> {
        match self.trigger {
            Trigger::Level => control(self.epoll, libc::EPOLL_CTL_MOD, fd, interest),
            Trigger::Edge => Ok(()),
        }
    }
}

/// How much the socket took now.
fn write_some(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    match write(fd, data) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

fn create() -> io::Result<RawFd> {
    // SAFETY: takes a number and gives a number.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    checked(fd as isize).map(|fd| fd as RawFd)
}

fn control(epoll: RawFd, operation: i32, fd: RawFd, events: u32) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events,
        u64: fd as u64,
    };
    // SAFETY: `event` lives during the call, which is all that the system needs.
    let done = unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) };
    checked(done as isize).map(drop)
}

fn wait(epoll: RawFd, events: &mut [libc::epoll_event; EVENTS]) -> io::Result<usize> {
    // SAFETY: there is room for as many events as the call is told.
    let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), EVENTS as i32, -1) };
    match checked(count as isize) {
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        outcome => outcome,
    }
}

fn accept(listener: RawFd) -> io::Result<RawFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: without room for an address the system writes none.
    let fd = unsafe { libc::accept4(listener, ptr::null_mut(), ptr::null_mut(), flags) };
    checked(fd as isize).map(|fd| fd as RawFd)
}

fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer can be written over its whole length.
    checked(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
}

fn write(fd: RawFd, data: &[u8]) -> io::Result<usize> {
    // SAFETY: the data can be read over its whole length.
    checked(unsafe { libc::send(fd, data.as_ptr().cast(), data.len(), libc::MSG_NOSIGNAL) })
}

fn close(fd: RawFd) {
    // SAFETY: the descriptor is a connection's, and nothing uses it after this.
    unsafe { libc::close(fd) };
}

fn checked(outcome: isize) -> io::Result<usize> {
    usize::try_from(outcome).map_err(|_| io::Error::last_os_error())
}

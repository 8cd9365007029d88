//! The part of a network that a table needs.
#![cfg(test)]

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::net::{Event, Net};
use crate::shutdown::ShutdownHandle;
use crate::waker::Wake;

/// Sockets represented by numbers, each with a byte or the end of the stream to read.
#[derive(Default)]
pub(super) struct Sockets {
    pub(super) readable: HashSet<usize>,
    pub(super) ended: HashSet<usize>,
    pub(super) closed: HashSet<usize>,
}

impl Net for Sockets {
    type Stream = usize;
    type Listener = ();
    type Datagram = ();

    fn read(&mut self, stream: &mut usize, buffer: &mut [u8]) -> io::Result<usize> {
        if self.readable.remove(stream) {
            buffer[0] = 1;
            return Ok(1);
        }
        match self.ended.remove(stream) {
            true => Ok(0),
            false => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn close(&mut self, stream: usize, _: bool) {
        assert!(self.closed.insert(stream), "closed twice");
    }

    fn unsent(&mut self, _: &mut usize) -> usize {
        0
    }

    fn finish(&mut self, _: &mut usize) -> io::Result<()> {
        Ok(())
    }

    fn error(&mut self, _: &mut usize) -> Option<io::Error> {
        None
    }

    fn now(&mut self) -> Instant {
        unreachable!("a table has no clock")
    }

    fn poll(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        unreachable!("a table does not wait")
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        unreachable!("a table does not wait")
    }

    fn watch_shutdown(&mut self, _: &ShutdownHandle, _: usize) -> io::Result<()> {
        unreachable!("a table does not wait")
    }

    fn listen(&mut self, _: &Address, _: &Config, _: usize) -> io::Result<((), Address)> {
        unreachable!("a table does not listen")
    }

    fn accept(&mut self, (): &mut ()) -> io::Result<(usize, Address)> {
        unreachable!("a table does not listen")
    }

    fn close_listener(&mut self, (): ()) {}

    fn connect(&mut self, _: &Address, _: &Config) -> io::Result<usize> {
        unreachable!("a table does not connect")
    }

    fn connected(&mut self, _: &mut usize) -> io::Result<()> {
        Ok(())
    }

    fn register(&mut self, _: &mut usize, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &mut usize, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }

    fn bind(&mut self, _: &Address, _: &Config, _: usize) -> io::Result<((), Address)> {
        unreachable!("a table has no datagrams")
    }

    fn receive(&mut self, (): &mut (), _: &mut [u8]) -> io::Result<(usize, Address)> {
        unreachable!("a table has no datagrams")
    }

    fn send(&mut self, (): &mut (), _: &[u8], _: &Address) -> io::Result<()> {
        unreachable!("a table has no datagrams")
    }

    fn close_datagram(&mut self, (): ()) {}
}

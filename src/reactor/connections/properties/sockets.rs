//! The part of a network that a table needs.
#![cfg(test)]

use std::collections::HashSet;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use crate::net::{Event, Net};
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

    fn now(&mut self) -> Instant {
        unreachable!("a table has no clock")
    }

    fn poll(&mut self, _: &mut Vec<Event>, _: Option<Duration>) -> io::Result<()> {
        unreachable!("a table does not wait")
    }

    fn waker(&mut self, _: usize) -> io::Result<Box<dyn Wake>> {
        unreachable!("a table does not wait")
    }

    fn register(&mut self, _: &mut usize, _: usize) -> io::Result<()> {
        Ok(())
    }

    fn write(&mut self, _: &mut usize, data: &[u8]) -> io::Result<usize> {
        Ok(data.len())
    }
}

//! A loop as it would be written in C, straight on epoll: the least that fan-out can cost. The members'
//! sockets are in a vector, and a message that a socket does not take is dropped; what it took in part
//! is kept.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, Event, EventData, EventFlags};

use crate::message::{GREETING, first};

const READ_BUFFER: usize = 64 * 1024;
const EVENTS: usize = 1_024;
const LISTENER: u64 = u64::MAX;

struct Epoll {
    epoll: OwnedFd,
    /// At the places that their events name.
    members: Vec<Option<TcpStream>>,
    /// What they have said of a message, and what they are still to be sent of one; without memory for
    /// nearly all.
    unread: Vec<Vec<u8>>,
    unsent: Vec<Vec<u8>>,
    buffer: Box<[u8]>,
}

pub(crate) fn serve(listener: &TcpListener) -> io::Result<()> {
    let mut server = Epoll {
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
        members: Vec::new(),
        unread: Vec::new(),
        unsent: Vec::new(),
        buffer: vec![0; READ_BUFFER].into(),
    };
    let data = EventData::new_u64(LISTENER);
    epoll::add(&server.epoll, listener, data, EventFlags::IN)?;

    let mut events: Vec<Event> = Vec::with_capacity(EVENTS);
    loop {
        epoll::wait(&server.epoll, spare_capacity(&mut events), None)?;
        for event in events.drain(..) {
            let (data, flags) = (event.data, event.flags);
            if data.u64() == LISTENER {
                server.accept_all(listener)?;
            } else if !server.serve(place(data.u64()), flags).unwrap_or(false) {
                server.members[place(data.u64())] = None;
            }
        }
    }
}

fn place(data: u64) -> usize {
    usize::try_from(data).unwrap_or(usize::MAX)
}

impl Epoll {
    fn accept_all(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.write_all(GREETING)?;

            let data = EventData::new_u64(self.members.len() as u64);
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&self.epoll, &stream, data, flags)?;
            self.members.push(Some(stream));
            self.unread.push(Vec::new());
            self.unsent.push(Vec::new());
        }
    }

    /// Moves what can be moved. Returns false at the end of the stream.
    fn serve(&mut self, place: usize, flags: EventFlags) -> io::Result<bool> {
        let Some(stream) = &mut self.members[place] else {
            return Ok(true);
        };
        if flags.contains(EventFlags::OUT) && !self.unsent[place].is_empty() {
            let unsent = &mut self.unsent[place];
            let count = write_some(stream, unsent)?;
            unsent.drain(..count);
        }

        while flags.contains(EventFlags::IN) {
            let Some(mut stream) = self.members[place].as_ref() else {
                return Ok(true);
            };
            let count = match stream.read(&mut self.buffer) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            };
            self.unread[place].extend_from_slice(&self.buffer[..count]);
            self.publish_from(place);
            if count < self.buffer.len() {
                return Ok(true);
            }
        }
        Ok(true)
    }

    fn publish_from(&mut self, place: usize) {
        while let Some(message) = first(&self.unread[place]) {
            for (member, unsent) in self.members.iter_mut().zip(&mut self.unsent) {
                let Some(stream) = member else {
                    continue;
                };
                if !unsent.is_empty() {
                    continue;
                }
                let sent = write_some(stream, message).unwrap_or(message.len());
                if sent > 0 && sent < message.len() {
                    unsent.extend_from_slice(&message[sent..]);
                }
            }
            let length = message.len();
            self.unread[place].drain(..length);
        }
    }
}

/// Returns how much the socket took now.
fn write_some(stream: &mut TcpStream, data: &[u8]) -> io::Result<usize> {
    match stream.write(data) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        outcome => outcome,
    }
}

use std::time::{Duration, Instant};

use crate::error::ProtocolError;
use crate::framing::{FrameProtocol, FrameTransport, Lines};
use crate::session::{Protocol, Transport};

/// Sends `Welcome!`, answers `NAME` with `Hello,NAME` after a delay, and closes on `exit`.
///
/// The delay is a timeout of the session, so other connections do not wait. No more input is read
/// until the reply is sent. As a [`Protocol`], it takes each piece of input that arrives as one
/// name, without a trailing newline. As a [`FrameProtocol`], for example over
/// [`Lines`](crate::framing::Lines), it takes each frame as one name. A datagram is answered at
/// once and without `Welcome!`.
///
/// ```
/// use serveloop::{protocols::Hello, testing::MemorySession};
/// use std::time::Duration;
///
/// let second = Duration::from_secs(1);
/// let mut session = MemorySession::new(Hello::new(second));
/// session.receive(b"Ann");
/// assert_eq!(session.sent(), b"Welcome!");
/// session.advance(second);
/// assert_eq!(session.sent(), b"Hello,Ann");
/// ```
#[derive(Debug)]
pub struct Hello {
    delay: Duration,
    reply: Option<(Instant, Vec<u8>)>,
    finishing: bool,
}

/// How to answer a name.
enum Answer {
    Now(Vec<u8>),
    Later,
    Exit,
}

impl Hello {
    /// Creates a protocol that answers each name after `delay`, or at once if it is zero.
    #[must_use]
    pub fn new(delay: Duration) -> Self {
        Self {
            delay,
            reply: None,
            finishing: false,
        }
    }

    fn hear(&mut self, name: &[u8], transport: &mut Transport<'_>) -> Answer {
        if name == b"exit" {
            return Answer::Exit;
        }

        let reply = [b"Hello,", name].concat();
        if self.delay.is_zero() || transport.peer().is_datagram() {
            return Answer::Now(reply);
        }

        // If no `Instant` can express the moment, the reply never becomes due.
        self.reply = transport
            .now()
            .checked_add(self.delay)
            .map(|at| (at, reply));
        let kept = self.reply.as_ref().map_or(0, |(_, reply)| reply.len());
        transport.charge(kept);
        transport.pause_reading();
        Answer::Later
    }

    /// Returns the reply that is due, and resumes reading for the next name.
    fn reply(&mut self, transport: &mut Transport<'_>) -> Vec<u8> {
        transport.resume_reading();
        transport.charge(0);
        self.reply
            .take()
            .map(|(_, reply)| reply)
            .unwrap_or_default()
    }

    fn finish(&mut self, transport: &mut Transport<'_>) {
        self.finishing = true;
        if self.reply.is_none() {
            transport.close();
        }
    }
}

impl Protocol for Hello {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        if !transport.peer().is_datagram() {
            transport.write(b"Welcome!");
        }
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        let name = data.strip_suffix(b"\n").unwrap_or(data);
        match self.hear(name.strip_suffix(b"\r").unwrap_or(name), transport) {
            Answer::Now(reply) => transport.write(&reply),
            Answer::Later => {}
            Answer::Exit => transport.close(),
        }
        Ok(data.len())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.reply.as_ref().map(|(at, _)| *at)
    }

    fn handle_timeout(&mut self, transport: &mut Transport<'_>) {
        let reply = self.reply(transport);
        transport.write(&reply);
        if self.finishing {
            transport.close();
        }
    }

    fn shutdown_requested(&mut self, transport: &mut Transport<'_>) {
        self.finish(transport);
    }

    /// Returns nothing if no reply waits, and otherwise how long it has to, and the reply.
    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        let Some((at, reply)) = &self.reply else {
            return Some(Vec::new());
        };
        let left = at.saturating_duration_since(transport.now()).as_micros();
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        Some([&left.to_be_bytes(), &reply[..]].concat())
    }

    fn take_over(&mut self, state: &[u8], transport: &mut Transport<'_>) -> bool {
        if state.is_empty() {
            return true;
        }
        let Some((left, reply)) = state.split_first_chunk() else {
            return false;
        };
        let left = Duration::from_micros(u64::from_be_bytes(*left));
        self.reply = transport
            .now()
            .checked_add(left)
            .map(|at| (at, reply.to_vec()));
        transport.charge(reply.len());
        transport.pause_reading();
        true
    }
}

impl FrameProtocol for Hello {
    type Framing = Lines;

    fn connection_made(
        &mut self,
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        if frames.transport().peer().is_datagram() {
            return Ok(());
        }
        frames.send(b"Welcome!")
    }

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        match self.hear(frame, frames.transport()) {
            Answer::Now(reply) => frames.send(&reply),
            Answer::Later => Ok(()),
            Answer::Exit => {
                frames.transport().close();
                Ok(())
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Protocol::poll_timeout(self)
    }

    fn handle_timeout(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        let reply = self.reply(frames.transport());
        let sent = frames.send(&reply);
        if self.finishing || sent.is_err() {
            frames.transport().close();
        }
    }

    fn shutdown_requested(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        self.finish(frames.transport());
    }

    fn hand_over(&mut self, transport: &Transport<'_>) -> Option<Vec<u8>> {
        Protocol::hand_over(self, transport)
    }

    fn take_over(&mut self, state: &[u8], frames: &mut FrameTransport<'_, Lines>) -> bool {
        Protocol::take_over(self, state, frames.transport())
    }
}

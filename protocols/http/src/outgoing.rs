//! A response that is being sent, no faster than the client takes it.

use std::io::Write;
use std::task::Poll;

use serveloop::Transport;

use crate::LOG_TARGET;
use crate::response::{Body, Framed};

/// The longest body that is sent together with its head, in one write.
const TOGETHER_MOST: usize = 4 * 1024;

/// What is left of a response.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The head, or what frames a chunk, and how much of it was sent.
    pending: Vec<u8>,
    sent: usize,
    body: Body,
    /// How many bytes of a complete body were sent.
    at: usize,
    framing: Progress,
}

#[derive(Debug)]
enum Progress {
    /// How many bytes are left, if that is known.
    Plain(Option<u64>),
    /// How many bytes of the present chunk are left.
    Chunked(usize),
    /// Only what is pending.
    Last,
}

/// What comes of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    All,
    /// The rest has to wait for the client, or for the source.
    Part,
    /// The body cannot be completed.
    Failed,
}

impl Outgoing {
    pub(crate) fn new(mut head: Vec<u8>, body: Body, framed: Framed) -> Self {
        let framing = match (&body, framed) {
            (Body::Stream(..), Framed::Chunked) => Progress::Chunked(0),
            (Body::Stream(..), Framed::Plain(left)) => Progress::Plain(left),
            _ => Progress::Last,
        };

        let mut at = 0;
        if body.bytes().len() <= TOGETHER_MOST {
            head.extend_from_slice(body.bytes());
            at = body.bytes().len();
        }
        Self {
            pending: head,
            sent: 0,
            body,
            at,
            framing,
        }
    }

    /// Returns how many bytes of memory wait here.
    pub(crate) fn held(&self) -> usize {
        self.pending.capacity() + self.body.held()
    }

    /// Sends what fits.
    pub(crate) fn send(&mut self, transport: &mut Transport<'_>) -> Sent {
        loop {
            if !send_from(&self.pending, &mut self.sent, transport) {
                return Sent::Part;
            }
            if let Progress::Last = self.framing {
                return match send_from(self.body.bytes(), &mut self.at, transport) {
                    true => Sent::All,
                    false => Sent::Part,
                };
            }
            if let Some(outcome) = self.send_stream(transport) {
                return outcome;
            }
        }
    }

    /// Sends a piece of what the source has. Returns `None` if there may be more.
    fn send_stream(&mut self, transport: &mut Transport<'_>) -> Option<Sent> {
        let Body::Stream(source, _) = &mut self.body else {
            return Some(Sent::All);
        };
        if let Progress::Plain(Some(0)) = self.framing {
            return Some(Sent::All);
        }
        let data = match source.fill() {
            Poll::Pending => return Some(Sent::Part),
            Poll::Ready(Ok(data)) => data,
            Poll::Ready(Err(error)) => {
                let peer = transport.peer();
                log::warn!(target: LOG_TARGET, "{peer}: the body of a response cannot be read: {error}");
                return Some(Sent::Failed);
            }
        };

        let (ready, most) = (data.len(), self.framing.next(data.len()));
        let count = transport.write_some(&data[..most]);
        source.consume(count);
        self.note(ready, count)
            .or((count < most).then_some(Sent::Part))
    }

    /// Notes that `count` bytes of content were sent, when `ready` were there. Returns what comes of
    /// it if that is clear.
    fn note(&mut self, ready: usize, count: usize) -> Option<Sent> {
        match &mut self.framing {
            Progress::Plain(None) if ready == 0 => return Some(Sent::All),
            Progress::Plain(Some(_)) if ready == 0 => return Some(Sent::Failed),
            Progress::Plain(left) => {
                *left = left.map(|left| left - count as u64);
            }
            Progress::Chunked(0) if ready == 0 => {
                self.framing = Progress::Last;
                self.frame(b"0\r\n\r\n");
            }
            Progress::Chunked(left @ 0) => {
                *left = ready;
                let line = format!("{ready:x}\r\n");
                self.frame(line.as_bytes());
            }
            // The source breaks its promise to show the same bytes again.
            Progress::Chunked(_) if ready == 0 => return Some(Sent::Failed),
            Progress::Chunked(left) => {
                *left -= count;
                if *left == 0 {
                    self.frame(b"\r\n");
                }
            }
            Progress::Last => {}
        }
        None
    }

    fn frame(&mut self, text: &[u8]) {
        self.pending.clear();
        self.sent = 0;
        // Writing to memory does not fail.
        let _ = self.pending.write_all(text);
    }
}

impl Progress {
    /// Returns how many of `ready` bytes may be sent now.
    fn next(&self, ready: usize) -> usize {
        match self {
            Self::Plain(Some(left)) => usize::try_from(*left).map_or(ready, |left| left.min(ready)),
            Self::Plain(None) => ready,
            Self::Chunked(left) => ready.min(*left),
            Self::Last => 0,
        }
    }
}

/// Sends what is left of `bytes` after the first `at`. Returns whether that was all.
fn send_from(bytes: &[u8], at: &mut usize, transport: &mut Transport<'_>) -> bool {
    if *at < bytes.len() {
        *at += transport.write_some(&bytes[*at..]);
    }
    *at == bytes.len()
}

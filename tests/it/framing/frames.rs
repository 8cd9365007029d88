//! A frame protocol hears of everything that a protocol hears of.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, Lines};
use serveloop::service::{Outbox, Post};
use serveloop::testing::MemorySession;
use serveloop::{Address, ProtocolError, Waker};

use crate::support::millis;
use crate::support::probe::Log;

/// Says what it was called with, in frames; a deadline it leaves to the default.
#[derive(Default)]
struct Herald {
    alarm: Option<Instant>,
    waker: Arc<OnceLock<Waker>>,
}

impl FrameProtocol for Herald {
    type Framing = Lines;

    fn connection_made(
        &mut self,
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        let _ = self.waker.set(frames.transport().waker());
        self.alarm = Some(frames.transport().now() + millis(10));
        frames.send(b"made")
    }

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        frames.send(frame)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.alarm
    }

    fn woken(&mut self, frames: &mut FrameTransport<'_, Lines>) {
        frames.transport().write(b"woken\n");
    }
}

#[test]
fn a_wake_and_a_deadline_reach_the_frame_protocol() {
    let herald = Herald::default();
    let waker = Arc::clone(&herald.waker);
    let mut session = MemorySession::new(Framed::new(Lines::new(80), herald));
    session.receive(b"half a ");
    waker.get().unwrap().wake();
    session.run();
    session.receive(b"line\n");
    assert_eq!(session.sent(), b"made\nwoken\nhalf a line\n");
    session.advance(millis(9));
    assert!(session.reason().is_none());
    session.advance(millis(1));
    assert_eq!(session.reason().unwrap().to_string(), "closed");
}

/// The defaults of what a frame protocol leaves out.
struct Quiet;

impl FrameProtocol for Quiet {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        _: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        frames.transport().waker().wake();
        Ok(())
    }
}

#[test]
fn a_wake_changes_nothing_by_default() {
    let mut session = MemorySession::new(Framed::new(Lines::new(80), Quiet));
    session.receive(b"wake yourself\n");
    session.run();
    assert!(session.reason().is_none());
    assert_eq!(session.sent(), b"");
}

#[test]
fn names_are_resolved_and_what_is_no_address_is_named() {
    let resolved = |text: &str| {
        let found = Address::resolve(text).map_err(|error| error.to_string())?;
        Ok::<_, String>(found.iter().map(Address::to_string).collect::<Vec<_>>())
    };
    for text in ["tcp://127.0.0.1:80", "udp://[::1]:53", "unix:///tmp/socket"] {
        assert_eq!(resolved(text), Ok(vec![text.to_owned()]));
    }
    for scheme in ["tcp", "udp"] {
        let found = resolved(&format!("{scheme}://localhost:80")).unwrap();
        let loopback = ["127.0.0.1", "[::1]"].map(|host| format!("{scheme}://{host}:80"));
        assert!(!found.is_empty());
        assert!(found.iter().all(|it| loopback.contains(it)), "{found:?}");
    }
    for text in ["tcp://localhost", "tcp://:80", "udp://localhost:65536"] {
        let error = resolved(text).unwrap_err();
        assert!(error.contains("expected HOST:PORT"), "{error}");
        assert!(error.contains(text), "{error}");
    }
    for text in ["localhost:80", "http://localhost:80"] {
        let error = resolved(text).unwrap_err();
        assert!(error.contains(text), "{error}");
    }
}

/// Pauses until its answer is posted.
struct Postponed(Arc<OnceLock<Outbox>>, Log);

impl FrameProtocol for Postponed {
    type Framing = Lines;

    fn frame_received(
        &mut self,
        line: &[u8],
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        self.1.push(line.escape_ascii().to_string());
        let _ = self.0.set(frames.transport().outbox());
        frames.transport().pause_reading();
        Ok(())
    }

    fn posted(&mut self, post: &Post, frames: &mut FrameTransport<'_, Lines>) {
        let _ = frames.send_post(post);
        frames.transport().resume_reading();
    }

    fn eof_received(
        &mut self,
        frames: &mut FrameTransport<'_, Lines>,
    ) -> Result<(), ProtocolError> {
        self.1.push("eof");
        frames.transport().close();
        Ok(())
    }
}

#[test]
fn a_pause_that_a_post_ends_is_followed_by_the_end_of_the_stream() {
    for input in [&b"ask\n"[..], b"ask"] {
        let (outbox, log) = (Arc::default(), Log::default());
        let framing = Lines::new(100).accept_unterminated();
        let postponed = Postponed(Arc::clone(&outbox), log.clone());
        let mut session = MemorySession::new(Framed::new(framing, postponed));
        session.receive(input);
        session.receive_eof();
        outbox.get().unwrap().post(&b"answer"[..]).unwrap();
        session.run();
        assert_eq!(session.sent(), b"answer\n");
        assert_eq!(log.entries(), ["ask", "eof"]);
        assert!(session.reason().is_some());
    }
}

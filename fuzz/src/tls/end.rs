//! One end of a TLS connection in memory.

use std::cell::{Ref, RefCell};
use std::mem;
use std::rc::Rc;

use serveloop::layer::Layered;
use serveloop::layer::tls::{Tls, TlsError, TlsInfo, rustls};
use serveloop::testing::MemorySession;
use serveloop::{
    CloseReason, Config, Ended, Limits, Peer, Protocol, ProtocolError, Transport, Waker,
};

use super::way::records;

/// What either end says when it can.
const SAID: &[u8] = b"the only plain text, which nobody can read or change on its way";

/// More memory than a connection may keep: a handshake message with the records that it is in, and
/// the buffers of a unit.
const HELD_MOST: usize = 384 * 1024;

/// The types of records that may hold an alert: one in plain text or in TLS 1.2, and any in TLS 1.3.
const ALERTS: [u8; 2] = [21, 23];

type Inside = fn(&Peer, &TlsInfo) -> Option<Talker>;

/// An end, and what its protocol was told.
pub(super) struct End {
    session: MemorySession<Layered<Tls, Inside, Talker>>,
    talk: Rc<RefCell<Talk>>,
    /// What it has sent and was not taken yet.
    out: Vec<u8>,
    wire_ended: bool,
}

#[derive(Default)]
struct Talk {
    said: bool,
    heard: Vec<u8>,
    told_end: bool,
    finishes: bool,
    waker: Option<Waker>,
    lost: u32,
}

impl End {
    pub(super) fn new(tls: Tls, listener: Option<u16>) -> Self {
        let talk = Rc::<RefCell<Talk>>::default();
        let layered = Layered::around(tls, Talker(Rc::clone(&talk)));
        let config = Config {
            limits: Limits {
                first_message_timeout: None,
                message_timeout: None,
                idle_timeout: None,
                write_timeout: None,
                handshake_timeout: None,
                ..Limits::default()
            },
            ..Config::default()
        };
        let address = "tcp://127.0.0.1:443".parse().expect("an address");
        let peer = Peer::new(address, listener);
        Self {
            session: MemorySession::with_peer(layered, config, peer),
            talk,
            out: Vec::new(),
            wire_ended: false,
        }
    }

    /// Takes what it has sent.
    pub(super) fn sent(&mut self) -> Vec<u8> {
        self.out.extend(self.session.sent());
        mem::take(&mut self.out)
    }

    pub(super) fn hear(&mut self, piece: &[u8]) {
        self.out.extend(self.session.sent());
        let was_open = self.session.reason().is_none();
        self.session.receive(piece);
        let sent = self.session.sent();

        let held = self.session.held();
        assert!(held <= HELD_MOST, "{held} bytes are kept");
        match self.session.reason() {
            Some(reason) if was_open => is_clear(reason, &sent),
            Some(_) => assert_eq!(sent, b"", "after the end"),
            None => {}
        }
        self.out.extend(sent);
    }

    /// Ends the wire. Returns whether that was new to it.
    pub(super) fn hear_end(&mut self) -> bool {
        let is_new = !mem::replace(&mut self.wire_ended, true);
        if is_new {
            self.session.receive_eof();
        }
        is_new
    }

    /// Ends its side of the stream. Returns whether that was new to it.
    pub(super) fn finish(&mut self) -> bool {
        let waker = {
            let mut talk = self.talk.borrow_mut();
            if mem::replace(&mut talk.finishes, true) {
                return false;
            }
            talk.waker.clone()
        };
        if let Some(waker) = waker {
            waker.wake();
            self.session.run();
        }
        true
    }

    pub(super) fn heard(&self) -> Ref<'_, Vec<u8>> {
        Ref::map(self.talk.borrow(), |talk| &talk.heard)
    }

    pub(super) fn said(&self) -> &'static [u8] {
        if self.talk.borrow().said { SAID } else { b"" }
    }

    pub(super) fn was_told_end(&self) -> bool {
        self.talk.borrow().told_end
    }

    /// How it has ended, without what depends on the pieces in which its input came.
    pub(super) fn outcome(&self) -> String {
        let reason = self.session.reason();
        let reason = reason.map_or("open".to_owned(), ToString::to_string);
        reason.splitn(3, ':').take(2).collect()
    }

    /// What it was told is what the other end has said, and an end only if that was all.
    pub(super) fn has_heard(&self, other: &Self) {
        let heard = self.heard();
        assert!(other.said().starts_with(&heard), "{:?}", heard);
        if self.was_told_end() {
            assert!(other.talk.borrow().finishes, "an end that was not sent");
            assert_eq!(*heard, other.said(), "an end before everything");
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let lost = self.talk.borrow().lost;
        let has_ended = self.session.reason().is_some();
        if !std::thread::panicking() {
            assert_eq!(lost, u32::from(has_ended), "ends that were told");
        }
    }
}

/// An end has a reason of one line. If the peer has broken a rule, an alert is the last that was sent.
fn is_clear(reason: &CloseReason, sent: &[u8]) {
    let text = reason.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    let error = match reason {
        CloseReason::Closed | CloseReason::PeerClosed | CloseReason::Truncated => return,
        CloseReason::Protocol(ProtocolError::Other(error)) => error.downcast_ref::<TlsError>(),
        _ => panic!("{text}"),
    };

    let error = error.and_then(TlsError::rustls);
    let error = error.unwrap_or_else(|| panic!("{text}: rustls found nothing"));
    if owes_alert(error) {
        let last = records(sent).last().map(|record| record[0]);
        assert!(
            last.is_some_and(|kind| ALERTS.contains(&kind)),
            "{text}: the last record is {last:?}"
        );
    }
}

/// Whether the peer has to get an alert. For some violations within handshake messages, and for a few
/// of the order of records, rustls sends none.
fn owes_alert(error: &rustls::Error) -> bool {
    use rustls::{Error, InvalidMessage};

    matches!(
        error,
        Error::DecryptError
            | Error::PeerSentOversizedRecord
            | Error::InappropriateMessage { .. }
            | Error::InappropriateHandshakeMessage { .. }
            | Error::InvalidCertificate(_)
            | Error::NoCertificatesPresented
            | Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                    | InvalidMessage::InvalidEmptyPayload
                    | InvalidMessage::MessageTooLarge
                    | InvalidMessage::UnknownProtocolVersion
            )
    )
}

/// Says its text as soon as it can, and ends when it is told to.
struct Talker(Rc<RefCell<Talk>>);

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let mut talk = self.0.borrow_mut();
        talk.said = true;
        talk.waker = Some(transport.waker());
        transport.write(SAID);
        Ok(())
    }

    fn data_received(
        &mut self,
        data: &[u8],
        _: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        self.0.borrow_mut().heard.extend_from_slice(data);
        Ok(data.len())
    }

    fn eof_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<(), ProtocolError> {
        self.0.borrow_mut().told_end = true;
        Ok(())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        transport.finish();
    }

    fn connection_lost(&mut self, _: &Ended<'_>) {
        self.0.borrow_mut().lost += 1;
    }
}

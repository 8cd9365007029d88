//! The client's end of a simulated connection through a layer: a session in memory.

use std::cell::RefCell;
use std::rc::Rc;

use crate::address::{Address, Peer};
use crate::config::{Config, Limits};
use crate::error::{CloseReason, ProtocolError};
use crate::layer::{Layer, Layered};
use crate::session::{Ended, Protocol, Transport};
use crate::testing::MemorySession;
use crate::waker::Waker;

/// The client's end, whatever its layer is. What it has for the wire grows with what it is told
/// here.
pub(super) trait FarEnd {
    /// Returns the state of the client.
    fn client(&self) -> &RefCell<Client>;

    /// Lets the client act.
    fn run(&mut self);

    /// Passes on bytes that came from the wire, or its end if there are none.
    fn hear(&mut self, wire: &[u8]);

    /// Takes the bytes that are to be sent on the wire.
    fn take_output(&mut self) -> Vec<u8>;
}

/// A client behind its end of a layer, as its protocol knows it.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Plain bytes that are to be said, and whether the end mark is.
    says: Vec<u8>,
    finishes: bool,
    /// Plain bytes that were heard and not looked at.
    pub(super) heard: Vec<u8>,
    /// Whether plain bytes can be said.
    pub(super) is_open: bool,
    /// Whether the stream has ended without the server's end mark.
    pub(super) is_cut: bool,
    /// Why the layer refused what the server sent, which must not happen.
    pub(super) refusal: Option<String>,
    waker: Option<Waker>,
}

/// The client's end of one connection, and the bytes that have come there on the wire.
pub(super) struct Far {
    end: Box<dyn FarEnd>,
    /// What the server has written, from the first byte that the client has not taken.
    pub(super) written: Vec<u8>,
}

impl Far {
    pub(super) fn new(end: Box<dyn FarEnd>) -> Self {
        let written = Vec::new();
        Self { end, written }
    }

    pub(super) fn is_open(&self) -> bool {
        self.end.client().borrow().is_open
    }

    /// Says plain bytes.
    pub(super) fn say(&mut self, plain: &[u8]) {
        self.end.client().borrow_mut().says.extend_from_slice(plain);
        self.end.run();
    }

    /// Says the end mark.
    pub(super) fn finish(&mut self) {
        self.end.client().borrow_mut().finishes = true;
        self.end.run();
    }

    /// Takes the next `count` bytes that the server has written, or the end of the stream if there
    /// are none.
    pub(super) fn hear(&mut self, count: usize) {
        let taken: Vec<u8> = self.written.drain(..count).collect();
        self.end.hear(&taken);
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        self.end.take_output()
    }

    /// Returns the state of the client.
    pub(super) fn client(&self) -> &RefCell<Client> {
        self.end.client()
    }
}

impl std::fmt::Debug for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Far")
            .field("client", self.client())
            .finish_non_exhaustive()
    }
}

type Inside<L> = Layered<L, fn(&Peer, &<L as Layer>::Info) -> Option<Talker>, Talker>;

/// An end with a layer.
pub(super) struct LayeredEnd<L: Layer> {
    session: MemorySession<Inside<L>>,
    client: Rc<RefCell<Client>>,
}

impl<L: Layer> LayeredEnd<L> {
    pub(super) fn new(layer: L, server: Address) -> Self {
        let client = Rc::<RefCell<Client>>::default();
        let talker = Talker(Rc::clone(&client));
        // The network decides how long everything takes.
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

        let layered = Layered::around(layer, talker);
        let peer = Peer::new(server, None);
        Self {
            session: MemorySession::with_peer(layered, config, peer),
            client,
        }
    }
}

impl<L: Layer> FarEnd for LayeredEnd<L> {
    fn client(&self) -> &RefCell<Client> {
        &self.client
    }

    fn run(&mut self) {
        if let Some(waker) = &self.client.borrow().waker {
            waker.wake();
        }
        self.session.run();
    }

    fn hear(&mut self, wire: &[u8]) {
        if wire.is_empty() {
            self.session.receive_eof();
        } else {
            self.session.receive(wire);
        }
    }

    fn take_output(&mut self) -> Vec<u8> {
        self.session.sent()
    }
}

/// The protocol inside the client's end.
struct Talker(Rc<RefCell<Client>>);

impl Protocol for Talker {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
        let mut client = self.0.borrow_mut();
        client.is_open = true;
        client.waker = Some(transport.waker());
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

    /// The client still says what it has to say.
    fn eof_received(&mut self, _: &[u8], _: &mut Transport<'_>) -> Result<(), ProtocolError> {
        Ok(())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let mut client = self.0.borrow_mut();
        transport.write(&std::mem::take(&mut client.says));
        if client.finishes {
            transport.finish();
        }
    }

    fn connection_lost(&mut self, ended: &Ended<'_>) {
        let mut client = self.0.borrow_mut();
        match ended.reason() {
            CloseReason::Closed | CloseReason::PeerClosed => {}
            CloseReason::Truncated => client.is_cut = true,
            reason => client.refusal = Some(reason.to_string()),
        }
    }
}

//! Framings that change between messages, on the protocol's word.

use serveloop::framing::{
    Decoder, Encoder, Frame, FrameProtocol, FrameTransport, Framed, LengthPrefix, Lines,
};
use serveloop::testing::{Exchange, MemorySession, Simulation, SplitChecker};
use serveloop::{Peer, ProtocolError, Result};

/// Lines, or messages behind their length.
#[derive(Clone)]
enum Either {
    Lines(Lines),
    Lengths(LengthPrefix),
}

impl Decoder for Either {
    type Message<'a> = &'a [u8];

    fn decode<'a>(&'a mut self, data: &'a [u8]) -> Result<Option<Frame<&'a [u8]>>, ProtocolError> {
        match self {
            Self::Lines(lines) => lines.decode(data),
            Self::Lengths(lengths) => lengths.decode(data),
        }
    }
}

impl Encoder for Either {
    fn encode(&self, payload: &[u8], write: impl FnMut(&[u8])) -> Result {
        match self {
            Self::Lines(lines) => lines.encode(payload, write),
            Self::Lengths(lengths) => lengths.encode(payload, write),
        }
    }
}

fn lines() -> Either {
    Either::Lines(Lines::new(80))
}

fn lengths() -> Either {
    Either::Lengths(LengthPrefix::u8(80))
}

/// Echoes. Changes to lengths after "lengths", and back after "lines", also when it is woken.
struct Changing {
    next: Option<Either>,
    is_late: bool,
}

impl Changing {
    fn build() -> Framed<Self> {
        let (next, is_late) = (None, false);
        Framed::new(lines(), Self { next, is_late })
    }
}

impl FrameProtocol for Changing {
    type Framing = Either;

    fn frame_received(&mut self, message: &[u8], to: &mut FrameTransport<'_, Either>) -> Result {
        match message {
            b"lengths" => self.next = Some(lengths()),
            b"lines" => self.next = Some(lines()),
            b"later" => self.is_late = true,
            b"replies" => *to.encoder_mut() = lengths(),
            _ => {}
        }
        to.send(message)
    }

    fn woken(&mut self, to: &mut FrameTransport<'_, Either>) {
        to.transport().write(b"woken ");
        self.next = self.is_late.then(lengths);
    }

    fn next_framing(&mut self) -> Option<Either> {
        self.next.take()
    }
}

#[test]
fn what_follows_a_change_is_cut_by_the_new_framing() {
    let sent: [&[u8]; 4] = [
        b"one\nlengths\n",
        b"\x03two\x05lines",
        b"three\n",
        b"four\n",
    ];
    let expected = b"one\nlengths\n\x03two\x05linesthree\nfour\n";
    let mut session = MemorySession::new(Changing::build());
    session.receive(&sent.concat());
    assert_eq!(session.sent(), expected);
    SplitChecker::new(Changing::build).check(&sent);

    let run = Exchange::new(sent.concat(), expected);
    Simulation::new(|| |_: &Peer| Some(Changing::build()))
        .client(run)
        .run(0..200);
}

#[test]
fn an_encoder_changes_at_once() {
    let mut session = MemorySession::new(Changing::build());
    session.receive(b"one\nreplies\ntwo\n");
    assert_eq!(session.sent(), b"one\n\x07replies\x03two");
}

/// The bytes that were incomplete as a line are a whole message by the new framing, without new input.
#[test]
fn a_change_between_messages_shows_the_unread_bytes_again() {
    let waker = std::rc::Rc::new(std::cell::RefCell::new(None));
    struct Waking(
        Changing,
        std::rc::Rc<std::cell::RefCell<Option<serveloop::Waker>>>,
    );
    impl FrameProtocol for Waking {
        type Framing = Either;

        fn connection_made(&mut self, to: &mut FrameTransport<'_, Either>) -> Result {
            *self.1.borrow_mut() = Some(to.transport().waker());
            Ok(())
        }

        fn frame_received(&mut self, it: &[u8], to: &mut FrameTransport<'_, Either>) -> Result {
            self.0.frame_received(it, to)
        }

        fn woken(&mut self, to: &mut FrameTransport<'_, Either>) {
            self.0.woken(to);
        }

        fn next_framing(&mut self) -> Option<Either> {
            self.0.next_framing()
        }
    }

    let (next, is_late) = (None, false);
    let waking = Waking(Changing { next, is_late }, std::rc::Rc::clone(&waker));
    let mut session = MemorySession::new(Framed::new(lines(), waking));
    session.receive(b"later\n\x03two");
    assert_eq!(session.sent(), b"later\n");
    waker.borrow().as_ref().expect("it was made").wake();
    session.run();
    assert_eq!(session.sent(), b"woken \x03two");
}

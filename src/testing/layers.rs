//! Layers for tests: one that changes nothing, and one that changes everything.

use crate::error::ProtocolError;
use crate::layer::{Layer, Received, Wire, WireEnd};

/// A layer that passes all bytes unchanged, to measure what a layer costs.
///
/// ```
/// use serveloop::layer::Layered;
/// use serveloop::protocols::Echo;
/// use serveloop::testing::{Identity, MemorySession};
///
/// let mut session = MemorySession::new(Layered::around(Identity, Echo));
/// session.receive(b"hello");
/// assert_eq!(session.sent(), b"hello");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

impl Layer for Identity {
    type Info = ();
    const PASSES_OUTPUT: bool = true;

    fn opened(&mut self) -> Option<()> {
        Some(())
    }

    #[inline]
    fn received<'a>(
        &mut self,
        data: &'a [u8],
        _: &mut Wire<'_>,
    ) -> Result<Received<'a>, ProtocolError> {
        Ok(Received::taken(data.len()).with_plain(data))
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        wire.write(plain);
        Ok(())
    }
}

/// The length of a unit's header: a mark and the length of the rest.
const HEADER: usize = 5;

const MARK: u8 = 0xA5;

/// The most bytes of one unit without its header.
const UNIT_MOST: usize = 16 * 1024;

/// How many plain bytes there are between two marks of the output.
const MARKED: usize = 8;

/// A layer that scrambles all bytes with a key.
///
/// It protects nothing. It finds what an [`Identity`] hides: a byte that goes around the layer, is
/// transformed twice, or is shown before its unit is complete. Run a protocol's tests through it
/// to see that the protocol works inside a layer, and a driver's to see that the driver does.
///
/// A client sends units with a header ([`seal`](Self::seal)). What it receives depends only on the
/// bytes and their positions, not on how the server cut them, so that tests can say in advance
/// what has to arrive ([`expect`](Self::expect)).
///
/// ```
/// use serveloop::layer::Layered;
/// use serveloop::protocols::Echo;
/// use serveloop::testing::{MemorySession, Scrambled};
///
/// let scrambled = Scrambled::new(7);
/// let mut session = MemorySession::new(Layered::around(scrambled, Echo));
/// session.receive(&scrambled.seal(b"hello"));
/// assert_eq!(session.sent(), scrambled.expect(b"hello"));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scrambled {
    key: u8,
    /// How many plain bytes were sent.
    sent: usize,
    has_end_mark: bool,
    ended: bool,
}

impl Scrambled {
    /// Creates a layer whose bytes are combined with `key` and their position by XOR.
    #[must_use]
    pub fn new(key: u8) -> Self {
        Self {
            key,
            sent: 0,
            has_end_mark: false,
            ended: false,
        }
    }

    /// Makes each side end its stream with a mark. A client that ends without it has been
    /// [cut off](crate::CloseReason::Truncated).
    #[must_use]
    pub fn with_end_mark(mut self) -> Self {
        self.has_end_mark = true;
        self
    }

    /// Returns what a client sends for `plain`: units of at most 16 KiB, each with a header.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        plain
            .chunks(UNIT_MOST)
            .flat_map(|part| self.unit(part))
            .collect()
    }

    /// Returns the mark with which a client ends its stream, and the server too.
    #[must_use]
    pub fn end_mark(&self) -> Vec<u8> {
        self.unit(&[])
    }

    /// Returns what a client receives if `plain` is the beginning of what the server sends.
    #[must_use]
    pub fn expect(&self, plain: &[u8]) -> Vec<u8> {
        self.output(plain, 0)
    }

    fn unit(&self, part: &[u8]) -> Vec<u8> {
        let length = u32::try_from(part.len()).expect("a unit is short");
        let header = [&[MARK][..], &length.to_be_bytes()].concat();
        header.into_iter().chain(self.scramble(part, 0)).collect()
    }

    /// Returns `plain` as output, of which the first byte is number `from`.
    fn output(&self, plain: &[u8], from: usize) -> Vec<u8> {
        let mut wire = Vec::with_capacity(plain.len() + plain.len() / MARKED + 1);
        for (byte, place) in self.scramble(plain, from).zip(from..) {
            if place % MARKED == 0 {
                wire.push(MARK);
            }
            wire.push(byte);
        }
        wire
    }

    fn scramble(&self, part: &[u8], from: usize) -> impl Iterator<Item = u8> {
        let places = part.iter().zip(from..);
        places.map(|(byte, place)| byte ^ self.key ^ (place % 251) as u8)
    }

    /// Returns the length of the complete unit at the front, if there is one.
    fn length(data: &[u8]) -> Result<Option<usize>, ProtocolError> {
        if data.first().is_some_and(|first| *first != MARK) {
            return Err(ProtocolError::malformed("a unit begins with its mark"));
        }
        let Some(header) = data.get(1..HEADER) else {
            return Ok(None);
        };

        let length = u32::from_be_bytes(header.try_into().expect("four bytes")) as usize;
        if length > UNIT_MOST {
            return Err(ProtocolError::TooLong {
                length: length as u64,
                limit: UNIT_MOST,
            });
        }
        Ok((data.len() >= HEADER + length).then_some(length))
    }
}

impl Layer for Scrambled {
    type Info = ();

    fn opened(&mut self) -> Option<()> {
        Some(())
    }

    fn received<'a>(
        &mut self,
        data: &'a [u8],
        _: &mut Wire<'_>,
    ) -> Result<Received<'a>, ProtocolError> {
        // An empty datagram is an empty message, and not an incomplete unit.
        if data.is_empty() {
            return Ok(Received::incomplete().with_plain(&[][..]));
        }
        let Some(length) = Self::length(data)? else {
            return Ok(Received::incomplete());
        };

        let taken = Received::taken(HEADER + length);
        if length == 0 && self.has_end_mark {
            self.ended = true;
            return Ok(taken.with_end());
        }
        let part = &data[HEADER..HEADER + length];
        Ok(taken.with_plain(self.scramble(part, 0).collect::<Vec<u8>>()))
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        wire.write(&self.output(plain, self.sent));
        self.sent += plain.len();
        Ok(())
    }

    fn end(&mut self, wire: &mut Wire<'_>) {
        if self.has_end_mark {
            wire.write(&self.end_mark());
        }
    }

    fn wire_ended(&mut self) -> WireEnd {
        if self.has_end_mark && !self.ended {
            WireEnd::Truncated
        } else {
            WireEnd::Clean
        }
    }
}

//! Layers for tests: one that changes nothing, and one that changes everything.

use crate::error::ProtocolError;
use crate::layer::{Layer, Received, Wire, WireEnd};

/// A layer that passes all bytes unchanged, to measure what a layer costs.
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

/// A layer that cuts its output into units with a header and scrambles their bytes with a key.
///
/// It protects nothing. It finds what an [`Identity`] hides: a byte that goes around the layer, is
/// transformed twice, or is shown before its unit is complete. Run a protocol's tests through it
/// to see that the protocol works inside a layer, and a driver's to see that the driver does.
///
/// ```
/// use serveloop::layer::Layered;
/// use serveloop::protocols::Echo;
/// use serveloop::testing::{MemorySession, Scrambled};
/// use serveloop::Peer;
///
/// let layered = Layered::new(Scrambled::new(7), |_: &Peer, (): &()| Some(Echo));
/// let mut session = MemorySession::new(layered);
/// session.receive(&Scrambled::new(7).seal(b"hello"));
/// assert_eq!(Scrambled::new(7).unseal(&session.sent()), b"hello");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scrambled {
    key: u8,
    ends: bool,
    ended: bool,
}

impl Scrambled {
    /// Creates a layer whose bytes are combined with `key` and their position by XOR.
    #[must_use]
    pub fn new(key: u8) -> Self {
        Self {
            key,
            ends: false,
            ended: false,
        }
    }

    /// Makes the layer end its stream with a mark, and miss the mark if the peer does not send it.
    #[must_use]
    pub fn with_end_mark(mut self) -> Self {
        self.ends = true;
        self
    }

    /// Returns the units in which `plain` goes over the wire.
    #[must_use]
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        plain
            .chunks(UNIT_MOST)
            .flat_map(|part| self.unit(part))
            .collect()
    }

    /// Returns the mark with which a stream ends on the wire.
    #[must_use]
    pub fn end_mark(&self) -> Vec<u8> {
        self.unit(&[])
    }

    /// Returns the plain bytes of all complete units in `wire`.
    ///
    /// # Panics
    /// Panics if the bytes are not those of such a layer with the same key.
    #[must_use]
    pub fn unseal(&self, wire: &[u8]) -> Vec<u8> {
        let (mut rest, mut plain) = (wire, Vec::new());
        while let Some(length) = self.length(rest).expect("sealed bytes") {
            plain.extend(self.scramble(&rest[HEADER..HEADER + length]));
            rest = &rest[HEADER + length..];
        }
        plain
    }

    fn unit(&self, part: &[u8]) -> Vec<u8> {
        let length = u32::try_from(part.len()).expect("a unit is short");
        let header = [&[MARK][..], &length.to_be_bytes()].concat();
        header.into_iter().chain(self.scramble(part)).collect()
    }

    fn scramble(&self, part: &[u8]) -> impl Iterator<Item = u8> {
        let keys = (self.key..=u8::MAX).chain(0..self.key).cycle();
        part.iter().zip(keys).map(|(byte, key)| byte ^ key)
    }

    /// Returns the length of the complete unit at the front, if there is one.
    fn length(&self, data: &[u8]) -> Result<Option<usize>, ProtocolError> {
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
        // An empty datagram is an empty message, and no incomplete unit.
        if data.is_empty() {
            return Ok(Received::default().with_plain(&[][..]));
        }
        let Some(length) = self.length(data)? else {
            return Ok(Received::incomplete());
        };

        let taken = Received::taken(HEADER + length);
        if length == 0 && self.ends {
            self.ended = true;
            return Ok(taken.with_end());
        }
        let part = &data[HEADER..HEADER + length];
        Ok(taken.with_plain(self.scramble(part).collect::<Vec<u8>>()))
    }

    fn send(&mut self, plain: &[u8], wire: &mut Wire<'_>) -> Result<(), ProtocolError> {
        wire.write(&self.seal(plain));
        Ok(())
    }

    fn end(&mut self, wire: &mut Wire<'_>) {
        if self.ends {
            wire.write(&self.end_mark());
        }
    }

    fn wire_ended(&mut self) -> WireEnd {
        if self.ends && !self.ended {
            WireEnd::Truncated
        } else {
            WireEnd::Clean
        }
    }
}

//! Compression of messages: permessage-deflate (RFC 7692), without memory from one message to the next.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// The name of the extension.
const NAME: &str = "permessage-deflate";

/// What ends the compressed data of each message, and is not sent.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Shorter messages are not compressed, since they would hardly become shorter.
const COMPRESSED_LEAST: usize = 64;

/// How much room for compressed output is made at a time.
const STEP: usize = 4 << 10;

/// How much is decompressed at a time: the window of a decompressor, so that it keeps no output back when it
/// finds something broken behind it.
const PIECE_BYTES: usize = 32 << 10;

/// About how many bytes of memory the decompressor of a message takes.
const INFLATE_HELD: usize = 48 << 10;

thread_local! {
    /// One for all connections of the thread, since it takes 300 KiB and forgets each message.
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    /// What is decompressed at a time.
    static PIECE: RefCell<Vec<u8>> = RefCell::new(vec![0; PIECE_BYTES]);
}

/// What was agreed on with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deflate {
    /// How far back in a message the client can look, as a power of two.
    window_bits: u8,
    /// Whether the client asked for that.
    is_asked: bool,
}

impl Deflate {
    /// What is agreed on with a client that asks for no shorter window.
    pub(crate) const WIDEST: Self = Self {
        window_bits: 15,
        is_asked: false,
    };

    /// Chooses from a client's offers, the elements of Sec-WebSocket-Extensions. Returns `None` if it offers
    /// nothing that can be agreed on.
    pub(crate) fn choose<'a>(offers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut offers = offers.filter_map(Self::accept);
        offers.next()
    }

    /// Accepts an offer, unless one of its parameters is unknown, repeated or has a wrong value.
    fn accept(offer: &str) -> Option<Self> {
        let mut parts = offer.split(';').map(|part| part.trim_matches([' ', '\t']));
        if !parts.next()?.eq_ignore_ascii_case(NAME) {
            return None;
        }

        let mut agreed = Self::WIDEST;
        let mut seen = Vec::new();
        for part in parts {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (part, None),
            };
            let (name, value) = (name.trim_end(), value.map(str::trim_start));
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
            match (name, value) {
                ("server_no_context_takeover" | "client_no_context_takeover", None) => {}
                ("client_max_window_bits", None) => {}
                ("client_max_window_bits", Some(value)) => {
                    bits(value)?;
                }
                ("server_max_window_bits", Some(value)) => {
                    agreed.window_bits = bits(value)?;
                    agreed.is_asked = true;
                }
                _ => return None,
            }
        }
        Some(agreed)
    }

    /// Returns the value of the field that tells the client what was agreed on.
    pub(crate) fn response(self) -> String {
        let bits = match self.is_asked {
            true => format!("; server_max_window_bits={}", self.window_bits),
            false => String::new(),
        };
        format!("{NAME}; server_no_context_takeover; client_no_context_takeover{bits}")
    }

    /// Returns whether the client can read everything that [`WIDEST`](Self::WIDEST) compresses.
    pub(crate) fn reads_widest(self) -> bool {
        self.window_bits == Self::WIDEST.window_bits
    }

    /// Returns a message in compressed form, or `None` if it is to be sent as it is: if it is short, does
    /// not become shorter, or is longer than the client can look back.
    pub(crate) fn compress(self, message: &[u8]) -> Option<Vec<u8>> {
        // With the longest window, the compressor does not look back further.
        let is_seen = self.reads_widest() || message.len() <= 1 << self.window_bits;
        if message.len() < COMPRESSED_LEAST || !is_seen {
            return None;
        }
        let compressed = COMPRESSOR.with_borrow_mut(|compressor| deflated(compressor, message))?;
        (compressed.len() < message.len()).then_some(compressed)
    }
}

/// Returns the number of bits of a window, in quotes or not.
fn bits(value: &str) -> Option<u8> {
    let inside = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'));
    let digits = inside.unwrap_or(value);
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let bits = digits.parse().ok().filter(|_| is_number);
    bits.filter(|bits| (8..=15).contains(bits))
}

/// Compresses a message, and leaves out the tail.
fn deflated(compressor: &mut Compress, message: &[u8]) -> Option<Vec<u8>> {
    compressor.reset();
    let mut output = Vec::with_capacity(message.len() / 2 + STEP);
    loop {
        let taken = usize::try_from(compressor.total_in()).ok()?;
        let rest = message.get(taken..)?;
        let status = compressor.compress_vec(rest, &mut output, FlushCompress::Sync);
        status.ok()?;
        // With room left, everything is flushed.
        if output.len() < output.capacity() {
            break;
        }
        output.reserve(STEP);
    }

    let end = output.len().checked_sub(TAIL.len())?;
    if output[end..] != TAIL {
        return None;
    }
    output.truncate(end);
    Some(output)
}

/// Compressed data is no compressed data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

/// The decompressor of the message that is arriving.
pub(crate) struct Inflate(Decompress);

impl Inflate {
    pub(crate) fn new() -> Self {
        Self(Decompress::new(false))
    }

    /// Returns about how many bytes of memory this takes.
    pub(crate) fn held() -> usize {
        INFLATE_HELD
    }

    /// Appends what compressed data says to `output`, until that has more than `limit` bytes.
    pub(crate) fn push(
        &mut self,
        mut data: &[u8],
        output: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), Broken> {
        PIECE.with_borrow_mut(|piece| {
            loop {
                let (read, written) = (self.0.total_in(), self.0.total_out());
                let status = self.0.decompress(data, piece, FlushDecompress::Sync);
                // Both are within the lengths of slices.
                let taken = (self.0.total_in() - read) as usize;
                let made = (self.0.total_out() - written) as usize;
                data = &data[taken..];
                output.extend_from_slice(&piece[..made]);
                if output.len() > limit {
                    return Ok(());
                }

                if status.map_err(|_| Broken)? == Status::StreamEnd {
                    // A last block may be followed by others (RFC 7692, section 7.2.3.5).
                    self.0.reset(false);
                }
                let is_stuck = taken == 0 && made == 0;
                if data.is_empty() && made < piece.len() || is_stuck {
                    return Ok(());
                }
            }
        })
    }

    /// Appends what is left, after all data of the message.
    pub(crate) fn finish(&mut self, output: &mut Vec<u8>, limit: usize) -> Result<(), Broken> {
        self.push(&TAIL, output, limit)
    }
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inflated(pieces: &[&[u8]], limit: usize) -> Result<Vec<u8>, Broken> {
        let (mut inflate, mut output) = (Inflate::new(), Vec::new());
        for piece in pieces {
            inflate.push(piece, &mut output, limit)?;
        }
        inflate.finish(&mut output, limit)?;
        Ok(output)
    }

    #[test]
    fn the_examples_of_the_rfc() {
        for bytes in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            // Without compression.
            &[0, 5, 0, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0],
            // With a last block.
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            // In two blocks.
            &[
                0xf2, 0x48, 0x05, 0, 0, 0, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0,
            ],
        ] {
            let bytewise: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(inflated(&[bytes], 5).unwrap(), b"Hello");
            assert_eq!(inflated(&bytewise, 5).unwrap(), b"Hello");
            assert!(inflated(&[bytes], 4).unwrap().len() > 4);
        }
    }

    #[test]
    fn what_is_compressed_is_read_back() {
        let deflate = Deflate::choose([NAME].into_iter()).unwrap();
        assert_eq!(deflate.compress(b"too short"), None);
        for length in [64, 1_000, 4_096, 100_000, 1_000_000] {
            let message: Vec<u8> = (0..length).map(|at: u32| (at / 7 % 23) as u8).collect();
            let compressed = deflate.compress(&message).expect("it becomes shorter");
            assert!(compressed.len() < message.len());
            let pieces: Vec<_> = compressed.chunks(100).collect();
            assert!(inflated(&pieces, message.len()).unwrap() == message);
        }
    }

    #[test]
    fn a_bomb_is_no_longer_than_allowed() {
        let deflate = Deflate::choose([NAME].into_iter()).unwrap();
        let compressed = deflate.compress(&vec![0; 50_000_000]).expect("shorter");
        let (mut inflate, mut output) = (Inflate::new(), Vec::new());
        inflate.push(&compressed, &mut output, 1_000).unwrap();
        assert!((1_001..=1_000 + PIECE_BYTES).contains(&output.len()));
    }

    #[test]
    fn which_offers_are_accepted() {
        let accepted = |offers: &str| {
            let chosen = Deflate::choose(offers.split(',').map(str::trim));
            chosen.map(Deflate::response)
        };
        let usual = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        for offers in [
            "permessage-deflate",
            "PERMESSAGE-DEFLATE;client_max_window_bits",
            "permessage-deflate; client_max_window_bits=\"9\"; server_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate",
            "permessage-deflate; unknown, permessage-deflate",
            "permessage-deflate; server_max_window_bits=7, permessage-deflate",
        ] {
            assert_eq!(accepted(offers).as_deref(), Some(usual), "{offers}");
        }
        let short = format!("{usual}; server_max_window_bits=9");
        let offer = "permessage-deflate; server_max_window_bits=9";
        assert_eq!(accepted(offer), Some(short));
        for offer in [
            "",
            "deflate",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=08",
            "permessage-deflate; client_max_window_bits=+9",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate;",
        ] {
            assert_eq!(accepted(offer), None, "{offer}");
        }
    }

    #[test]
    fn a_window_is_kept_by_sending_less_compressed() {
        let offer = "permessage-deflate; server_max_window_bits=9";
        let deflate = Deflate::choose([offer].into_iter()).unwrap();
        assert!(deflate.compress(&[b'x'; 512]).is_some());
        assert_eq!(deflate.compress(&[b'x'; 513]), None);
    }
}

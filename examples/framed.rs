//! A custom protocol over frames, and tests for it that need no network.
//!
//! Each message is a length of four bytes, big-endian, followed by that many bytes. The reply is
//! the sum of the bytes as a decimal number, framed the same way. Run `cargo run --example framed`,
//! then `printf '\0\0\0\2\1\2' | nc -N 127.0.0.1 9999 | xxd`. Run its tests with
//! `cargo test --example framed`.

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::{Config, ProtocolError, Server};

struct Sum;

impl FrameProtocol for Sum {
    type Framing = LengthPrefix;

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) -> Result<(), ProtocolError> {
        let sum: u64 = frame.iter().map(|byte| u64::from(*byte)).sum();
        frames.send(sum.to_string().as_bytes())
    }

    fn input_rejected(
        &mut self,
        error: &ProtocolError,
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) {
        let _ = frames.send(error.to_string().as_bytes());
    }
}

fn build() -> Framed<Sum> {
    Framed::new(LengthPrefix::u32(64 * 1024), Sum)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::init();
    let at = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "tcp://127.0.0.1:9999".to_owned());
    let server = Server::bind(&[at.parse()?], Config::default())?;
    println!("listening on {}", server.addresses()[0]);
    server.serve_forever(|_| Some(build()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serveloop::CloseReason;
    use serveloop::testing::{MemorySession, SplitChecker};

    #[test]
    fn answers_each_frame_however_the_stream_is_cut() {
        SplitChecker::new(build).check(&[b"\0\0\0\x02\x01\x02", b"\0\0\0\0", b"\0\0\0\x01\xff"]);
    }

    #[test]
    fn a_frame_that_is_too_long_gets_a_reply_and_ends_the_connection() {
        let mut session = MemorySession::new(build());
        session.receive(&u32::MAX.to_be_bytes());
        assert!(session.sent().ends_with(b"at most 65536 allowed"));
        assert!(matches!(
            session.reason(),
            Some(CloseReason::Protocol(ProtocolError::TooLong { .. }))
        ));
    }
}

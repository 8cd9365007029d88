//! One session in memory.

use serveloop::testing::{MemorySession, SplitChecker};
use serveloop::{CloseReason, Protocol, Result, Transport};

use crate::support::seconds;

/// Does what the byte says.
struct Ending;

impl Protocol for Ending {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        transport.write(b"bye");
        match data[0] {
            b'c' => transport.close(),
            b'f' => transport.finish(),
            b'a' => transport.abort(),
            b'e' => return Err("no such word".into()),
            _ => {}
        }
        Ok(1)
    }
}

#[test]
fn a_session_that_has_ended_in_order_is_finished() {
    let ended = |byte: u8| {
        let mut session = MemorySession::new(Ending);
        session.receive(&[byte]);
        session
    };
    for (byte, is_finished) in [
        (b'c', true),
        (b'f', true),
        (b'a', false),
        (b'e', true),
        (b'-', false),
    ] {
        assert_eq!(ended(byte).is_finished(), is_finished, "{}", byte as char);
    }

    // Not before the peer has taken everything.
    let mut slow = MemorySession::new(Ending);
    slow.stop_taking();
    slow.receive(b"c");
    slow.take(2);
    assert!(!slow.is_finished());
    slow.take(1);
    assert!(slow.is_finished());

    let mut ended = MemorySession::new(Ending);
    ended.receive_eof();
    assert!(ended.is_finished());
    let mut failed = MemorySession::new(Ending);
    failed.fail(CloseReason::Io(std::io::ErrorKind::ConnectionReset.into()));
    assert!(!failed.is_finished());
    let mut idle = MemorySession::new(Ending);
    idle.receive(b"-");
    idle.advance(seconds(60));
    assert!(idle.is_finished());
}

#[test]
fn a_protocol_may_tell_the_number_of_its_connection() {
    struct Numbered;

    impl Protocol for Numbered {
        fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
            let id = transport.id().to_string();
            data.iter().for_each(|_| transport.write(id.as_bytes()));
            Ok(data.len())
        }
    }

    SplitChecker::new(|| Numbered).check(&[b"a", b"b"]);
}

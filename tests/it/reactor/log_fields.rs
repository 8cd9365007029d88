//! What peers put into log lines: each field is one line, readable, and short.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use serveloop::protocols::Echo;
use serveloop::{Address, CloseReason, Peer, ProtocolError};

use crate::support::probe::Log;
use crate::support::{PATIENCE, Scratch, Serving, timeless};

const NASTY: &str = "a\r\nb\x1b[2Jc\u{202e}d\u{2066}e\0f\x7fg\u{85}h\\i\u{200b}j";
const TAMED: &str = r"a\r\nb\u{1b}[2Jc\u{202e}d\u{2066}e\0f\u{7f}g\u{85}h\\i\u{200b}j";

/// 1 MiB of what takes the most room.
fn huge() -> String {
    "\u{202e}".repeat(1 << 20)
}

#[test]
fn what_a_peer_calls_itself_is_tamed() {
    let named = |name: &[u8]| {
        let path = PathBuf::from(OsStr::from_bytes(name));
        Peer::new(Address::Unixgram(path), Some(0)).to_string()
    };
    assert_eq!(named(NASTY.as_bytes()), format!("unixgram://{TAMED}"));
    assert_eq!(named(b"a\xffb\xc3"), r"unixgram://a\xffb\xc3");
    let cut = named(huge().as_bytes());
    assert!(cut.ends_with(r"\u{202e}..."), "{cut}");
    assert!(
        (240..=256 + "unixgram://".len()).contains(&cut.len()),
        "{cut}"
    );
    // What can be bound and is readable is shown whole.
    let long = "x".repeat(107);
    assert_eq!(named(long.as_bytes()), format!("unixgram://{long}"));
}

#[test]
fn what_a_protocol_quotes_is_tamed() {
    let huge = huge();
    for (text, tamed) in [(NASTY, Some(TAMED)), (&huge, None)] {
        let errors = [
            ProtocolError::malformed(text.to_owned()),
            ProtocolError::other(text.to_owned()),
        ];
        let reasons = errors.map(CloseReason::Protocol);
        for reason in reasons
            .into_iter()
            .chain([CloseReason::Process(text.to_owned())])
        {
            let shown = reason.to_string();
            assert!(tamed.is_none_or(|tamed| shown.ends_with(tamed)), "{shown}");
            assert!(shown.len() <= 256 + "protocol error: malformed: ".len());
            assert!(shown.chars().all(|c| c.is_ascii_graphic() || c == ' '));
        }
    }
}

#[test]
fn a_sender_with_a_nasty_name_is_answered() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unixgram", "socket");
    let log = Log::default();
    let shared = log.clone();
    let serving = Serving::at(&[&uri], timeless(), move |peer: &Peer| {
        shared.push(peer.to_string());
        Some(Echo)
    });
    let nasty = scratch.path("n\n\x1b\u{202e}");
    let socket = UnixDatagram::bind(&nasty).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"hello", scratch.path("socket")).unwrap();
    assert_eq!(socket.recv(&mut [0; 9]).unwrap(), 5);
    serving.end();
    assert!(log.entries()[0].ends_with(r"/n\n\u{1b}\u{202e}"), "{log:?}");
}

//! Datagrams that no client of QUIC sends.

use serveloop::testing::MemorySession;
use serveloop::{Address, Config, Peer};
use serveloop_quic_echo::{EchoServer, Settings};

use crate::support::server;

fn echo() -> EchoServer {
    server(&Settings::default())
}

/// Returns the datagrams that answer one, and checks that the session ends in order with it.
fn answers(datagram: &[u8]) -> Vec<Vec<u8>> {
    let mut session = MemorySession::datagrams(echo().session());
    session.receive_datagram(datagram);
    let reason = session.reason().expect("it has no connection");
    assert!(!reason.is_error(), "{reason}");
    session.take_datagrams()
}

#[test]
fn noise_is_not_answered_and_keeps_no_session() {
    let mut rng = fastrand::Rng::with_seed(1);
    assert!(answers(b"").is_empty());
    assert!(answers(b"GET / HTTP/1.1\r\n\r\n").is_empty());
    for _ in 0..2_000 {
        let mut noise = vec![0; rng.usize(1..1_500)];
        rng.fill(&mut noise);
        // Whatever it is taken for, the answer is no longer than the question.
        let answered: usize = answers(&noise).iter().map(Vec::len).sum();
        assert!(answered <= noise.len(), "{answered} for {}", noise.len());
    }
}

#[test]
fn an_unknown_version_is_told_the_known_ones() {
    let mut datagram = vec![0; 1_200];
    datagram[..6].copy_from_slice(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a, 8]);
    datagram[14] = 8;
    let answers = answers(&datagram);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][1..5], [0; 4], "no Version Negotiation packet");
    let mut versions = answers[0][5 + 9 + 9..].chunks(4);
    assert!(versions.any(|version| version == [0, 0, 0, 1]));

    // It is for packets that could begin a connection, so that it amplifies nothing.
    assert!(self::answers(&datagram[..100]).is_empty());
}

#[test]
fn a_stream_is_refused() {
    let session = MemorySession::new(echo().session());
    assert_eq!(
        session.reason().unwrap().to_string(),
        "protocol error: malformed: QUIC needs UDP"
    );

    let address: Address = "unixgram:///tmp/x".parse().unwrap();
    let peer = Peer::new(address, Some(0));
    let session = MemorySession::with_peer(echo().session(), Config::default(), peer);
    assert_eq!(
        session.reason().unwrap().to_string(),
        "protocol error: malformed: QUIC needs UDP"
    );
}

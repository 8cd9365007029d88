//! A read that brings less than it could: on some sockets more waits behind it all the same.
#![cfg(target_os = "linux")]

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serveloop::protocols::{Discard, Echo};
use serveloop::{Address, Peer, Reactor};
use socket2::{MsgHdr, SockRef};

use crate::support::model_server::{Model, ModelServer};
use crate::support::{PATIENCE, Scratch, timeless};

/// Sends `data` and passes a descriptor along.
fn send_with_descriptor(stream: &UnixStream, data: &[u8], passed: RawFd) -> io::Result<usize> {
    let word = size_of::<usize>();
    let header = word + 2 * size_of::<libc::c_int>();
    let mut control = (header + size_of::<RawFd>()).to_ne_bytes().to_vec();
    for number in [libc::SOL_SOCKET, libc::SCM_RIGHTS, passed] {
        control.extend(number.to_ne_bytes());
    }
    control.resize(control.len().next_multiple_of(word), 0);
    let buffers = [io::IoSlice::new(data)];
    let message = MsgHdr::new().with_buffers(&buffers).with_control(&control);
    SockRef::from(stream).sendmsg(&message, 0)
}

/// The loop is turned by hand, so that all is queued before it looks: one event tells of everything.
#[test]
fn what_waits_behind_a_passed_descriptor_is_read_without_another_event() {
    let scratch = Scratch::new();
    let at = Address::Unix(scratch.path("socket"));
    // Nothing is written, since room for output would be an event too.
    let mut reactor = Reactor::new(|_: &Peer| Some(Discard), timeless()).unwrap();
    reactor.listen(&at).unwrap();
    let mut stream = UnixStream::connect(scratch.path("socket")).unwrap();
    let passed = io::stderr();
    while reactor.statistics().accepted == 0 {
        reactor.turn(Some(PATIENCE)).unwrap();
    }
    for round in 1..=20 {
        for piece in ["one ", "two ", "three ", "four"] {
            send_with_descriptor(&stream, piece.as_bytes(), passed.as_raw_fd()).unwrap();
        }
        stream.write_all(b", all").unwrap();
        let begin = Instant::now();
        let expected = 23 * round;
        while reactor.statistics().bytes_read < expected {
            let read = reactor.statistics().bytes_read;
            assert!(begin.elapsed() < PATIENCE, "{read} of {expected} bytes");
            reactor.turn(Some(Duration::from_millis(20))).unwrap();
        }
    }
    // And an idle connection costs no turns afterwards.
    let before = reactor.statistics().turns;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(100) {
        reactor.turn(Some(Duration::from_millis(50))).unwrap();
    }
    let turns = reactor.statistics().turns - before;
    assert!(turns < 10, "{turns} turns of an idle loop");
}

#[test]
fn passed_descriptors_stop_nothing_in_any_model() {
    for model in Model::ALL {
        let scratch = Scratch::new();
        let path = scratch.path("socket");
        let at = format!("unix://{}", path.display());
        let server = ModelServer::new(model, &[&at], timeless(), |_: &Peer| Some(Echo));
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let passed = io::stderr();
        for _ in 0..50 {
            send_with_descriptor(&stream, b"part", passed.as_raw_fd()).unwrap();
            stream.write_all(b" and rest").unwrap();
            let mut got = [0; 13];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(&got, b"part and rest", "{model:?}");
        }
        drop(stream);
        server.end();
    }
}

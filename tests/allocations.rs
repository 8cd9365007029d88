//! What costs memory and what does not. A binary of its own, since it brings its own allocator, which
//! counts what each thread asks for.
#![expect(
    clippy::unwrap_used,
    reason = "what cannot be unwrapped is a failure of the test"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serveloop::framing::{FrameProtocol, FrameTransport, Framed, LengthPrefix};
use serveloop::layer::proxy::{Header, tlv};
use serveloop::protocols::Echo;
use serveloop::testing::MemorySession;
use serveloop::{Config, Limits, Peer, ProtocolError, Reactor};

/// The system's allocator, and how often and for how much it was asked.
struct Counting;

thread_local! {
    static ASKED: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(bytes: usize) {
    let (calls, all) = ASKED.get();
    ASKED.set((calls + 1, all + bytes));
}

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from the system's allocator, with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: `at` came from the system's allocator, with this layout.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How many allocations `work` makes, and of how many bytes in all.
fn cost(work: impl FnOnce()) -> (usize, usize) {
    let before = ASKED.get();
    work();
    let after = ASKED.get();
    (after.0 - before.0, after.1 - before.1)
}

/// Echoes frames.
struct EchoFrames;

impl FrameProtocol for EchoFrames {
    type Framing = LengthPrefix;

    fn frame_received(
        &mut self,
        frame: &[u8],
        frames: &mut FrameTransport<'_, LengthPrefix>,
    ) -> Result<(), ProtocolError> {
        frames.send(frame)
    }
}

/// A message and its echo, over a real socket, with client and loop on this one thread.
fn round_trip<F: serveloop::Factory>(
    reactor: &mut Reactor<F>,
    stream: &mut TcpStream,
    message: &[u8],
) {
    stream.write_all(message).unwrap();
    let written = reactor.statistics().bytes_written + message.len() as u64;
    while reactor.statistics().bytes_written < written {
        reactor.turn(Some(Duration::from_secs(10))).unwrap();
    }
    let mut reply = [0; 512];
    stream.read_exact(&mut reply[..message.len()]).unwrap();
    assert_eq!(reply[..message.len()], *message);
}

fn an_echoed_message_costs_no_allocation<F: serveloop::Factory>(factory: F) {
    let mut reactor = Reactor::new(factory, Config::default()).unwrap();
    let at = "tcp://127.0.0.1:0".parse().unwrap();
    let address = reactor.listen(&at).unwrap().socket_addr().unwrap();
    let mut streams: Vec<_> = (0..3)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    let message = [&[0, 0, 0, 96][..], &[b'm'; 96]].concat();
    let mut rounds = |count: usize| {
        for number in 0..count {
            round_trip(&mut reactor, &mut streams[number % 3], &message);
        }
    };
    rounds(20);
    let (calls, _) = cost(|| rounds(1_000));
    assert_eq!(calls, 0, "allocations in 1,000 round trips");
}

/// What a header announces is believed only as far as it arrives.
#[test]
fn an_announced_length_costs_nothing() {
    const MOST: usize = 512 << 20;
    let config = Config {
        limits: Limits {
            max_frame: MOST,
            ..Limits::default()
        },
        ..Config::default()
    };
    let protocol = Framed::new(LengthPrefix::u32(MOST), EchoFrames);
    let mut session = MemorySession::with_config(protocol, config);
    let header = u32::try_from(MOST).unwrap().to_be_bytes();
    let (_, bytes) = cost(|| {
        session.receive(&header);
        session.receive(b"the beginning");
    });
    assert!(bytes < 4 << 10, "{bytes} bytes for 17 that arrived");
    // Not even piece by piece does memory run ahead of what arrived, by more than one growth.
    let piece = [0; 1_000];
    let (_, bytes) = cost(|| (0..100).for_each(|_| session.receive(&piece)));
    assert!(bytes < 1 << 20, "{bytes} bytes for 100,000 that arrived");
    assert!(session.reason().is_none());
}

#[test]
fn allocations_are_counted() {
    let (calls, bytes) = cost(|| drop(std::hint::black_box(vec![1_u8; 99])));
    assert_eq!((calls, bytes), (1, 99));
}

#[test]
fn an_echoed_piece_costs_no_allocation() {
    an_echoed_message_costs_no_allocation(|_: &Peer| Some(Echo));
}

#[test]
fn an_echoed_frame_costs_no_allocation() {
    an_echoed_message_costs_no_allocation(|_: &Peer| {
        Some(Framed::new(LengthPrefix::u32(1 << 20), EchoFrames))
    });
}

/// A header is read where it arrived. Only the paths of Unix sockets are copied.
#[test]
fn a_proxy_header_costs_no_allocation_but_for_paths() {
    let client = |uri: &str| Header::proxied(uri.parse().unwrap(), uri.parse().unwrap()).unwrap();
    let mut line = Vec::new();
    client("tcp://192.0.2.7:1").encode_v1(&mut line).unwrap();
    let (mut ip, mut unix) = (Vec::new(), Vec::new());
    client("tcp://[2001:db8::7]:1")
        .with_tlv(tlv::AUTHORITY, b"example.com")
        .and_then(Header::with_checksum)
        .unwrap()
        .encode_v2(&mut ip);
    client("unix:///run/client").encode_v2(&mut unix);

    for (data, expected) in [(&line, 0), (&ip, 0), (&unix, 2)] {
        let (calls, _) = cost(|| {
            for cut in [1, 10, 20, data.len()] {
                let parsed = Header::parse(&data[..cut]).unwrap();
                assert_eq!(parsed.is_some(), cut == data.len());
            }
        });
        assert_eq!(calls, expected);
    }
}

//! Bytes through real sockets: of every kind, in every size, at every speed.

use std::io::{Read, Write};
use std::net::{Shutdown, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::thread;

use serveloop::protocols::Echo;
use serveloop::{Address, Config, Limits, Peer, Protocol, ProtocolError, Transport};
use socket2::{Domain, Socket, Type};

use crate::support::{
    PATIENCE, Scratch, Serving, client, echoes, expect, noise, read_to_end, unix_client,
};

/// Echoes behind the number of the listener that the peer came in by.
struct Numbered(u8);

impl Protocol for Numbered {
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(&[self.0]);
        transport.write(data);
        Ok(data.len())
    }
}

#[test]
fn one_loop_serves_every_kind_of_socket_each_with_its_own_protocol() {
    let scratch = Scratch::new();
    let addresses = [
        "tcp://127.0.0.1:0",
        "tcp://[::1]:0",
        &scratch.uri("unix", "stream"),
        "udp://127.0.0.1:0",
        "udp://[::1]:0",
        &scratch.uri("unixgram", "datagram"),
        "tcp://127.0.0.1:0",
    ];
    let serving = Serving::at(&addresses, Config::default(), |peer: &Peer| {
        let protocol: Box<dyn Protocol> = match u8::try_from(peer.listener()?).ok()? {
            0 => Box::new(Echo),
            number => Box::new(Numbered(b'0' + number)),
        };
        Some(protocol)
    });
    let at = |number: usize| &serving.addresses[number];
    let mut streams = [client(at(0)), client(at(1)), client(at(6))];
    for (stream, reply) in streams
        .iter_mut()
        .zip([&b"hello"[..], b"1hello", b"6hello"])
    {
        stream.write_all(b"hello").unwrap();
        expect(stream, reply);
    }
    let mut unix = unix_client(&scratch.path("stream"));
    unix.write_all(b"hello").unwrap();
    expect(&mut unix, b"2hello");
    for (number, local, reply) in [(3, "127.0.0.1:0", b"3hello"), (4, "[::1]:0", b"4hello")] {
        let socket = UdpSocket::bind(local).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = at(number).socket_addr().unwrap();
        socket.send_to(b"hello", to).unwrap();
        let mut buffer = [0; 99];
        assert_eq!(socket.recv_from(&mut buffer).unwrap(), (6, to));
        assert_eq!(&buffer[..6], reply);
    }
    let socket = UnixDatagram::bind(scratch.path("client")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(b"hello", scratch.path("datagram")).unwrap();
    let mut buffer = [0; 99];
    assert_eq!(socket.recv(&mut buffer).unwrap(), 6);
    assert_eq!(&buffer[..6], b"5hello");
    drop((streams, unix));
    let statistics = serving.end();
    assert_eq!((statistics.accepted, statistics.datagrams_sent), (4, 3));
}

/// Sends `total` bytes in pieces, ends the stream, and expects it all back, then the end.
fn echoes_all<S: Read + Write + Send>(
    (mut sender, mut receiver): (S, S),
    total: usize,
    piece: usize,
    finish: impl FnOnce(&S) + Send,
) {
    // A length that no buffer's size divides, so that every block lies differently.
    let block = noise(piece.min(total) + 7);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut left = total;
            for chunk in std::iter::repeat_with(|| block.chunks(piece)).flatten() {
                let chunk = &chunk[..chunk.len().min(left)];
                sender.write_all(chunk).unwrap();
                left -= chunk.len();
                if left == 0 {
                    break;
                }
            }
            finish(&sender);
        });
        let mut buffer = vec![0; 64 * 1024];
        let mut position = 0;
        loop {
            let count = receiver.read(&mut buffer).unwrap();
            if count == 0 {
                break;
            }
            let mut got = &buffer[..count];
            while !got.is_empty() {
                let at = position % block.len();
                let run = got.len().min(block.len() - at);
                assert!(got[..run] == block[at..at + run], "at {position}");
                position += run;
                got = &got[run..];
            }
        }
        assert_eq!(position, total);
    });
}

fn echoes_over_tcp(config: Config, total: usize, piece: usize) {
    let serving = Serving::tcp(config, |_: &Peer| Some(Echo));
    let stream = serving.client();
    let both = (stream.try_clone().unwrap(), stream);
    echoes_all(both, total, piece, |stream| {
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let statistics = serving.end();
    assert_eq!(statistics.closed_by_peer, 1);
    let moved = (statistics.bytes_read, statistics.bytes_written);
    assert_eq!(moved, (total as u64, total as u64));
}

#[test]
fn large_pieces_come_back_whole_after_a_half_close() {
    echoes_over_tcp(Config::default(), 64 << 20, 1 << 20);
}

#[test]
fn single_bytes_come_back_whole() {
    echoes_over_tcp(Config::default(), 256 << 10, 1);
}

#[test]
fn tiny_budgets_change_nothing() {
    let config = Config {
        read_per_turn: 13,
        write_per_turn: 7,
        messages_per_turn: 1,
        limits: Limits {
            high_water: 20,
            low_water: 3,
            max_output: 1_000,
            ..Limits::default()
        },
        ..Config::default()
    };
    echoes_over_tcp(config, 100_000, 4_096);
}

/// The smallest buffers that the system has, on both sides: every write is short.
fn smallest() -> Config {
    Config {
        send_buffer: Some(1),
        receive_buffer: Some(1),
        ..Config::default()
    }
}

#[test]
fn the_smallest_unix_buffers_lose_nothing() {
    let scratch = Scratch::new();
    let serving = Serving::at(&[&scratch.uri("unix", "echo")], smallest(), |_: &Peer| {
        Some(Echo)
    });
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(1).unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let path = socket2::SockAddr::unix(scratch.path("echo")).unwrap();
    socket.connect(&path).unwrap();
    let both = (socket.try_clone().unwrap(), socket);
    echoes_all(both, 16 << 20, 1 << 20, |socket| {
        socket.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(serving.end().closed_by_peer, 1);
}

/// TCP with the smallest receive buffers too would wait for the system's window probes, for seconds
/// at a time, in which no byte moves.
#[test]
fn the_smallest_tcp_send_buffers_lose_nothing() {
    const WINDOW: usize = 16 << 10;
    let config = Config {
        receive_buffer: Some(WINDOW),
        ..smallest()
    };
    let serving = Serving::tcp(config, |_: &Peer| Some(Echo));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_send_buffer_size(1).unwrap();
    socket.set_recv_buffer_size(WINDOW).unwrap();
    let at = serving.addresses[0].socket_addr().unwrap();
    socket.connect(&at.into()).unwrap();
    let both = (socket.try_clone().unwrap(), socket);
    echoes_all(both, 16 << 20, 1 << 20, |socket| {
        socket.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(serving.end().closed_by_peer, 1);
}

/// Answers the end of the stream with more than any buffer holds.
struct Report {
    left: usize,
}

impl Report {
    const LENGTH: usize = 8 << 20;

    fn produce(&mut self, transport: &mut Transport<'_>) {
        while self.left > 0 && !transport.is_full() {
            let piece = self.left.min(10_000);
            transport.write(&vec![b'.'; piece]);
            self.left -= piece;
        }
        if self.left == 0 {
            transport.close();
        }
    }
}

impl Protocol for Report {
    fn data_received(
        &mut self,
        data: &[u8],
        _: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        Ok(data.len())
    }

    fn eof_received(
        &mut self,
        _: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<(), ProtocolError> {
        self.produce(transport);
        Ok(())
    }

    fn resume_writing(&mut self, transport: &mut Transport<'_>) {
        self.produce(transport);
    }
}

#[test]
fn a_slow_reader_gets_the_whole_reply_to_its_half_close() {
    let serving = Serving::tcp(Config::default(), |_: &Peer| {
        Some(Report {
            left: Report::LENGTH,
        })
    });
    let mut stream = serving.client();
    stream.write_all(b"report").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    // The server's buffers are full before the first byte is read.
    serving.wait(|statistics| statistics.bytes_written > 100_000);
    let mut total = 0;
    let mut buffer = [0; 2_000];
    loop {
        let count = stream.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        assert!(buffer[..count].iter().all(|byte| *byte == b'.'));
        total += count;
    }
    assert_eq!(total, Report::LENGTH);
    assert_eq!(serving.end().closed_by_peer, 1);
}

#[test]
fn a_thousand_connections_mind_their_own_bytes() {
    const ALL: usize = 1_000;
    let serving = Serving::tcp(Config::default(), |_: &Peer| Some(Echo));
    let mut streams: Vec<_> = (0..ALL).map(|_| serving.client()).collect();
    let bytes = noise(ALL + 3_000);
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&bytes[number..number + 9]).unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        expect(stream, &bytes[number..number + 9]);
    }
    for round in 0..50 {
        let active = streams.iter_mut().enumerate().skip(round % 7).step_by(50);
        for (number, stream) in active {
            echoes(stream, &bytes[number + round..number + round + 2_000]);
        }
    }
    drop(streams);
    let statistics = serving.wait(|statistics| statistics.closed() == ALL as u64);
    assert_eq!(statistics.closed_by_peer, ALL as u64);
    assert_eq!(serving.end().stale_events, 0);
}

#[test]
fn what_a_protocol_says_first_needs_no_input() {
    struct Greeter;
    impl Protocol for Greeter {
        fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result<(), ProtocolError> {
            transport.write(b"good bye");
            transport.close();
            Ok(())
        }

        fn data_received(
            &mut self,
            data: &[u8],
            _: &mut Transport<'_>,
        ) -> Result<usize, ProtocolError> {
            Ok(data.len())
        }
    }
    let serving = Serving::tcp(Config::default(), |_: &Peer| Some(Greeter));
    for _ in 0..50 {
        assert_eq!(read_to_end(&mut serving.client()), b"good bye");
    }
    assert_eq!(serving.end().closed_by_protocol, 50);
}

#[test]
fn peers_say_where_they_are() {
    let scratch = Scratch::new();
    let (sender, peers) = std::sync::mpsc::channel();
    let serving = Serving::at(
        &["tcp://127.0.0.1:0", &scratch.uri("unix", "echo")],
        Config::default(),
        move |peer: &Peer| {
            sender.send(peer.clone()).ok()?;
            Some(Echo)
        },
    );
    let stream = serving.client();
    let expected = Peer::new(Address::Tcp(stream.local_addr().unwrap()), Some(0));
    assert_eq!(peers.recv_timeout(PATIENCE).unwrap(), expected);
    let _unix = unix_client(&scratch.path("echo"));
    let unnamed = Peer::new(Address::Unix("".into()), Some(1));
    assert_eq!(peers.recv_timeout(PATIENCE).unwrap(), unnamed);
    drop(stream);
}

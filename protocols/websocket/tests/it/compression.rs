//! Compressed messages, from both sides.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serveloop::service::Lagging;
use serveloop::testing::{MemorySession, SplitChecker};
use serveloop::{Factory, Limits, Peer, Protocol, Result};
use serveloop_websocket::{
    Accept, Echo, Message, MessageGroup, MessageProtocol, MessageTransport, Request, Settings,
    websocket_with,
};

use crate::support::{
    BINARY, CLOSE, LAST, MORE, PING, QUIET, TEXT, answer, closed, farewell, frame, plain,
};

const COMPRESSED: u8 = 0x40;

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

fn server() -> impl Protocol {
    server_of(Echo)
}

fn server_of(handler: impl MessageProtocol + Clone + Send + 'static) -> impl Protocol {
    let settings = Settings {
        compression: serveloop_websocket::Compression::Deflate,
        ..QUIET
    };
    let mut factory = websocket_with(settings, move |_: &Request<'_>| {
        Ok(Accept::new(handler.clone()))
    });
    let peer = Peer::new("tcp://192.0.2.1:4711".parse().expect("an address"), Some(0));
    factory.build_protocol(&peer).expect("a protocol")
}

fn deflated(message: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(message.len() + 100);
    let mut compress = Compress::new(Compression::best(), false);
    let status = compress.compress_vec(message, &mut output, FlushCompress::Sync);
    status.expect("room");
    assert!(output.ends_with(&[0, 0, 0xff, 0xff]));
    output.truncate(output.len() - 4);
    output
}

/// The content of the short compressed frame in front, and what comes after it.
#[track_caller]
fn inflated(sent: &[u8]) -> (Vec<u8>, &[u8]) {
    assert_eq!(sent[0], TEXT | COMPRESSED, "{sent:x?}");
    let (compressed, rest) = sent[2..].split_at(usize::from(sent[1]));
    let mut output = Vec::with_capacity(1_000);
    let input = [compressed, &[0, 0, 0xff, 0xff]].concat();
    let mut inflate = Decompress::new(false);
    let status = inflate.decompress_vec(&input, &mut output, FlushDecompress::Sync);
    status.expect("compressed data");
    (output, rest)
}

/// What a server sends after its response to a request for compression, to a client that sends `frames`.
#[track_caller]
fn told(frames: &[Vec<u8>]) -> Vec<u8> {
    let head = format!("{REQUEST}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    let input = [head.as_bytes(), &frames.concat()].concat();
    let (sent, _) = answer(server, &input);
    let end = sent
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .expect("a response")
        + 4;
    let response = String::from_utf8_lossy(&sent[..end]);
    let agreed = "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                  client_no_context_takeover\r\n";
    assert!(response.contains(agreed), "{response}");
    sent[end..].to_vec()
}

#[test]
fn messages_are_read_in_any_pieces() {
    let long = "0123456789".repeat(20);
    let whole = deflated(long.as_bytes());
    let (one, other) = whole.split_at(5);
    let frames = [
        frame(TEXT | COMPRESSED, deflated(b"Hello")),
        frame(TEXT, "as it is"),
        frame((TEXT | COMPRESSED) & MORE, one),
        frame(PING, ""),
        frame(LAST, other),
        frame(BINARY | COMPRESSED, deflated(b"")),
        frame(CLOSE, farewell(1000, "")),
    ];
    let sent = told(&frames);
    let start = [
        plain(TEXT, "Hello"),
        plain(TEXT, "as it is"),
        plain(0x8a, ""),
    ];
    let rest = sent
        .strip_prefix(&start.concat()[..])
        .expect("short ones as they are");

    // The long one comes back in compressed form.
    let (output, rest) = inflated(rest);
    assert_eq!(output, long.as_bytes());
    assert_eq!(rest, [plain(BINARY, ""), closed(1000, "")].concat());

    let head = format!("{REQUEST}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    let input = [head.as_bytes(), &frames.concat()].concat();
    SplitChecker::new(server).stream().check(&[&input]);
}

#[test]
fn violations_have_their_codes() {
    for (frames, code) in [
        // The bit belongs to the first frame of a message.
        (
            vec![frame(TEXT & MORE, "a"), frame(LAST | COMPRESSED, "a")],
            1002,
        ),
        (vec![frame(PING | COMPRESSED, "")], 1002),
        (vec![frame(TEXT | 0x20, "")], 1002),
        (vec![frame(BINARY | COMPRESSED, b"\xff\xff\xff")], 1007),
        (vec![frame(TEXT | COMPRESSED, deflated(b"\xff"))], 1007),
        // Within a fragment, after which nothing comes.
        (
            vec![frame((TEXT | COMPRESSED) & MORE, deflated(b"a\xed\xa0"))],
            1007,
        ),
    ] {
        let sent = told(&frames);
        assert_eq!(sent[0], CLOSE, "{sent:x?}");
        assert_eq!(sent[2..4], u16::to_be_bytes(code), "{sent:x?}");
    }
}

/// The limit is for what a message becomes, and nothing beyond it is kept.
#[test]
fn a_bomb_does_not_go_off() {
    let limit = Limits::default().max_frame;
    let bomb = frame(BINARY | COMPRESSED, deflated(&vec![0; 50 * limit]));
    assert!(bomb.len() < 100_000);
    let head = format!("{REQUEST}Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    for size in [1_000, 100_000] {
        let mut session = MemorySession::new(server());
        session.receive(head.as_bytes());
        let mut most = 0;
        for piece in bomb.chunks(size) {
            session.receive(piece);
            most = most.max(session.held());
        }
        let told = closed(
            1009,
            "message too long: 1048577 bytes, at most 1048576 allowed",
        );
        assert!(session.sent().ends_with(&told));
        assert!(most < 3 * limit, "{most}");
    }
}

#[test]
fn only_who_offers_it_is_sent_compressed_messages() {
    let long = "0123456789".repeat(20);
    for offer in [
        "",
        "Sec-WebSocket-Extensions: permessage-deflate; unknown\r\n",
    ] {
        let head = format!("{REQUEST}{offer}\r\n");
        let input = [head.as_bytes(), &frame(TEXT, &long)].concat();
        let (sent, _) = answer(server, &input);
        assert!(sent.ends_with(&plain(TEXT, &long)));

        let input = [head.as_bytes(), &frame(TEXT | COMPRESSED, "x")].concat();
        let (sent, _) = answer(server, &input);
        let problem = "malformed: a reserved bit of a frame is set";
        assert!(sent.ends_with(&closed(1002, problem)));
    }
}

/// Publishes what it is sent, or posts it to its own client.
#[derive(Clone)]
struct Member(MessageGroup);

impl MessageProtocol for Member {
    fn opened(&mut self, client: &mut MessageTransport<'_>) -> Result {
        assert!(self.0.join("all", client));
        Ok(())
    }

    fn message_received(
        &mut self,
        message: Message<'_>,
        client: &mut MessageTransport<'_>,
    ) -> Result {
        match message {
            Message::Text("leave") => assert!(self.0.leave("all", client.id())),
            Message::Text(text) => {
                self.0.publish_to_others("all", client.id(), text);
            }
            Message::Binary(bytes) => {
                let text = std::str::from_utf8(bytes).expect("a text");
                client.outbox().post(text).expect("room");
            }
        }
        Ok(())
    }
}

/// It is compressed for those who can read it, and sent as it is to the others.
#[test]
fn what_others_have_for_a_client_is_compressed() {
    let group = MessageGroup::new(Lagging::DropOldest);
    let open = |offer: &str| {
        let mut session = MemorySession::new(server_of(Member(group.clone())));
        session.receive(format!("{REQUEST}{offer}\r\n").as_bytes());
        assert!(session.sent().ends_with(b"\r\n\r\n"));
        session
    };
    let offer = "Sec-WebSocket-Extensions: permessage-deflate";
    let mut publisher = open("");
    let mut plain_one = open("");
    let mut wide = open(&format!("{offer}; client_max_window_bits\r\n"));
    let mut short = open(&format!("{offer}; server_max_window_bits=9\r\n"));
    assert_eq!(group.members("all"), 4);

    let long = "0123456789".repeat(20);
    publisher.receive(&frame(TEXT, "hello"));
    publisher.receive(&frame(TEXT, &long));
    for session in [&mut plain_one, &mut wide, &mut short] {
        session.run();
    }
    let expected = [plain(TEXT, "hello"), plain(TEXT, &long)].concat();
    assert_eq!(plain_one.sent(), expected);
    assert_eq!(short.sent(), expected);
    let sent = wide.sent();
    let rest = sent
        .strip_prefix(&plain(TEXT, "hello")[..])
        .expect("as it is");
    assert_eq!(inflated(rest), (long.clone().into_bytes(), &[][..]));
    let published = group.publish("all", "counted");
    assert_eq!((published.sent, published.lagging), (4, 0));

    // An outbox knows its client.
    for session in [&mut wide, &mut short] {
        session.run();
        session.sent();
        session.receive(&frame(BINARY, &long));
        session.run();
        let sent = session.sent();
        assert_eq!(inflated(&sent), (long.clone().into_bytes(), &[][..]));
    }

    wide.receive(&frame(TEXT, "leave"));
    assert_eq!(group.members("all"), 3);
}

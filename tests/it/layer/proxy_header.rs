//! The PROXY protocol: the specification's headers, wrong ones, and headers compared with other parsers.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use serveloop::layer::proxy::{
    Command, DEFAULT_LIMIT, Header, LIMIT_MOST, ProxyError, Version, tlv,
};
use serveloop::{Address, ProtocolError};
use serveloop_fuzz::proxy_header::{self, DIFFERENCES, Oracle};

use crate::support::outside;
use crate::support::{Scratch, cases};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A binary header with this byte of command, byte of family, and block.
fn binary(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

/// The block of a client at 192.0.2.7:4711 that connected to 198.51.100.1:443, and these TLVs.
fn v4(tlvs: &[u8]) -> Vec<u8> {
    let block = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
    [&block, tlvs].concat()
}

/// Parses a whole header, after which data of the client follows.
fn parsed(data: &[u8]) -> Header<'static> {
    let stream = [data, b"hello"].concat();
    let (header, length) = Header::parse(&stream).unwrap().expect("a whole header");
    assert_eq!(length, data.len());
    for cut in 0..data.len() {
        assert_eq!(
            Header::parse(&data[..cut]),
            Ok(None),
            "the first {cut} bytes"
        );
    }
    header.into_owned()
}

fn error(data: &[u8]) -> ProxyError {
    match Header::parse(data) {
        Err(error) => error,
        other => panic!("{}: {other:?}", data.escape_ascii()),
    }
}

fn uri(address: Option<&Address>) -> String {
    address.map_or_else(|| "none".to_owned(), Address::to_string)
}

#[test]
fn every_line_of_the_specification_is_read() {
    let longest = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let v6 = format!("PROXY TCP6 {longest} {longest} 65535 65535\r\n");
    let worst = format!("PROXY UNKNOWN {longest} {longest} 65535 65535\r\n");
    for (line, length, source, destination) in [
        (
            "PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
            56,
            "tcp://255.255.255.255:65535",
            "tcp://255.255.255.255:65535",
        ),
        (
            &*v6,
            104,
            "tcp://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
            "tcp://[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535",
        ),
        ("PROXY UNKNOWN\r\n", 15, "none", "none"),
        (&*worst, 107, "none", "none"),
        (
            "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            47,
            "tcp://192.168.0.1:56324",
            "tcp://192.168.0.11:443",
        ),
    ] {
        assert_eq!(line.len(), length);
        let header = parsed(line.as_bytes());
        assert_eq!(
            (header.version(), header.command()),
            (Version::V1, Command::Proxy)
        );
        assert_eq!(uri(header.source()), source);
        assert_eq!(uri(header.destination()), destination);
        assert_eq!(header.tlvs().count(), 0);
    }

    let request = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n\
                    GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n";
    let (_, length) = Header::parse(request).unwrap().unwrap();
    assert!(request[length..].starts_with(b"GET / "));
}

#[test]
fn other_lines_that_are_right() {
    for (line, source, destination) in [
        (
            "PROXY TCP4 0.0.0.0 1.2.3.4 0 1\r\n",
            "tcp://0.0.0.0:0",
            "tcp://1.2.3.4:1",
        ),
        (
            "PROXY TCP6 :: ::1 10 20\r\n",
            "tcp://[::]:10",
            "tcp://[::1]:20",
        ),
        (
            "PROXY TCP6 2001:DB8::A 2001:0db8:0:0:0:0:0:b 10 20\r\n",
            "tcp://[2001:db8::a]:10",
            "tcp://[2001:db8::b]:20",
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:c000:0208 10 20\r\n",
            "tcp://[::ffff:192.0.2.7]:10",
            "tcp://[::ffff:192.0.2.8]:20",
        ),
        ("PROXY UNKNOWN \r\n", "none", "none"),
        (
            "PROXY UNKNOWN  whatever \t\0 \u{e9} a b c d e f\r\n",
            "none",
            "none",
        ),
        ("PROXY UNKNOWN PROXY TCP4\r\n", "none", "none"),
    ] {
        let header = parsed(line.as_bytes());
        assert_eq!(uri(header.source()), source, "{line}");
        assert_eq!(uri(header.destination()), destination, "{line}");
    }
    let header = parsed(b"PROXY UNKNOWN \xff\xfe\r\n");
    assert_eq!(header.source(), None);
}

const WORD: &str = "expected TCP4, TCP6 or UNKNOWN and one space";
const BYTES: &str = "expected IP addresses and ports";
const SOURCE: &str = "expected a source address of the stated family";
const DESTINATION: &str = "expected a destination address of the stated family";
const SOURCE_PORT: &str = "expected a source port, 0 to 65535 without leading zeros,";
const DESTINATION_PORT: &str = "expected a destination port, 0 to 65535 without leading zeros,";
const NO_LF: &str = "CR without LF";
const NO_CR: &str = "LF without CR";

/// Lines, what is wrong with each, and where.
const WRONG_LINES: &[(&str, &str, usize)] = &[
    ("PROXY UDP4 ", WORD, 7),
    ("PROXY  TCP4", WORD, 6),
    ("PROXY TCP ", WORD, 9),
    ("PROXY TCP5", WORD, 9),
    ("PROXY tcp4", WORD, 6),
    ("PROXY TCP4\t", WORD, 10),
    ("PROXY TCP4\r\n", WORD, 10),
    ("PROXY UNKNOWM", WORD, 12),
    ("PROXY \r\n", WORD, 6),
    (
        "PROXY UNKNOWNS",
        "expected a space or CRLF after UNKNOWN",
        13,
    ),
    ("PROXY UNKNOWN\n", NO_CR, 13),
    ("PROXY UNKNOWN a\nb", NO_CR, 15),
    ("PROXY UNKNOWN\rX", NO_LF, 13),
    ("PROXY UNKNOWN\r\r", NO_LF, 13),
    ("PROXY UNKNOWN\n\r", NO_CR, 13),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n", NO_CR, 30),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\rX", NO_LF, 30),
    ("PROXY TCP4 1.2.3.4\t", BYTES, 18),
    ("PROXY TCP4 localhost", BYTES, 11),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 +", BYTES, 27),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 -", BYTES, 27),
    ("PROXY TCP4 1.2.3.4/", BYTES, 18),
    ("PROXY TCP6 fe80::1%", BYTES, 18),
    ("PROXY TCP6 [", BYTES, 11),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 0x", BYTES, 30),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2\0", BYTES, 30),
    ("PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 1.2.3.256 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 1.2.3.04 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 01.2.3.4 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 ::1 ::1 1 2\r\n", SOURCE, 11),
    ("PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n", SOURCE, 11),
    ("PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n", SOURCE, 11),
    ("PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", SOURCE, 11),
    ("PROXY TCP6 1::2::3 ::1 1 2\r\n", SOURCE, 11),
    ("PROXY TCP6 12345:: ::1 1 2\r\n", SOURCE, 11),
    ("PROXY TCP6 ::: ::1 1 2\r\n", SOURCE, 11),
    ("PROXY TCP4 \r\n", SOURCE, 11),
    ("PROXY TCP4 1.2.3.4\r\n", DESTINATION, 18),
    ("PROXY TCP4 1.2.3.4 \r\n", DESTINATION, 19),
    ("PROXY TCP4 1.2.3.4  1.2.3.4 1 2\r\n", DESTINATION, 19),
    ("PROXY TCP4 1.2.3.4 ::1 1 2\r\n", DESTINATION, 19),
    ("PROXY TCP6 ::1 1.2.3.4 1 2\r\n", DESTINATION, 15),
    ("PROXY TCP4 1.2.3.4 1.2.3.4\r\n", SOURCE_PORT, 26),
    ("PROXY TCP4 1.2.3.4 1.2.3.4  1 2\r\n", SOURCE_PORT, 27),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", SOURCE_PORT, 27),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 080 2\r\n", SOURCE_PORT, 27),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 00 2\r\n", SOURCE_PORT, 27),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 f 2\r\n", SOURCE_PORT, 27),
    (
        "PROXY TCP4 1.2.3.4 1.2.3.4 99999999999999999999 2\r\n",
        SOURCE_PORT,
        27,
    ),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n", DESTINATION_PORT, 28),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 \r\n", DESTINATION_PORT, 29),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1  2\r\n", DESTINATION_PORT, 29),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", DESTINATION_PORT, 29),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", DESTINATION_PORT, 29),
    ("PROXY TCP4 1.2.3.4 1.2.3.4 1 02\r\n", DESTINATION_PORT, 29),
];

#[test]
fn wrong_lines_are_told_with_their_place() {
    for &(line, problem, position) in WRONG_LINES {
        let expected = ProxyError::Line { position, problem };
        assert_eq!(error(line.as_bytes()), expected, "{line:?}");
        let shown = expected.to_string();
        assert_eq!(
            shown,
            format!("PROXY header: {problem} at position {position}")
        );
    }
}

#[test]
fn a_line_has_its_end_in_107_bytes() {
    let line = |length: usize, end: &str| {
        let fill = "x".repeat(length - end.len() - "PROXY UNKNOWN ".len());
        format!("PROXY UNKNOWN {fill}{end}").into_bytes()
    };
    parsed(&line(107, "\r\n"));
    assert_eq!(Header::parse(&line(106, "")), Ok(None));
    assert_eq!(Header::parse(&line(106, "\r")), Ok(None));
    let expected = ProxyError::Line {
        position: 107,
        problem: "no CRLF in the first 107 bytes",
    };
    for long in [
        line(108, "\r\n"),
        line(107, ""),
        line(107, "\r"),
        line(4_000, "\r\n"),
    ] {
        assert_eq!(error(&long), expected);
    }

    let spaces = format!("PROXY TCP4 {}", " ".repeat(96));
    assert_eq!(error(spaces.as_bytes()), expected);
}

#[test]
fn what_is_no_header_is_told_at_its_first_byte() {
    for (data, position) in [
        (&b"GET / HTTP/1.1\r\n"[..], 0),
        (b"\x16\x03\x01", 0),
        (b"\0", 0),
        (b" PROXY", 0),
        (b"\n", 0),
        (b"proxy", 0),
        (b"POST", 1),
        (b"PROXy", 4),
        (b"PROXY\t", 5),
        (b"PROXY\r\n", 5),
        (b"\r\n\r\nGET", 4),
        (b"\r\n\n", 2),
        (b"\r\n\r\n\0\r\nQUIT\r", 11),
        (b"\r\n\r\n\0\r\nquit\n", 7),
    ] {
        let byte = data[position];
        let expected = ProxyError::Signature { position, byte };
        assert_eq!(error(data), expected);
        assert_eq!(
            error(&data[..=position]),
            expected,
            "later bytes are not waited for"
        );
        assert_eq!(
            expected.to_string(),
            format!("no PROXY header: unexpected byte 0x{byte:02x} at position {position}")
        );
    }
    assert_eq!(Header::parse(b""), Ok(None));
}

#[test]
fn every_family_of_the_specification_is_read() {
    let v6 = {
        let mut block = vec![0; 36];
        block[..2].copy_from_slice(&[0x20, 0x01]);
        block[15] = 7;
        block[31] = 1;
        block[32..].copy_from_slice(&[0x12, 0x67, 0x01, 0xbb]);
        block
    };
    let unix = {
        let mut block = vec![0; 216];
        block[..11].copy_from_slice(b"/run/client");
        block[108..119].copy_from_slice(b"/run/server");
        block
    };
    for (family, block, source, destination) in [
        (0x00, vec![], "none", "none"),
        (
            0x11,
            v4(b""),
            "tcp://192.0.2.7:4711",
            "tcp://198.51.100.1:443",
        ),
        (
            0x12,
            v4(b""),
            "udp://192.0.2.7:4711",
            "udp://198.51.100.1:443",
        ),
        (0x21, v6.clone(), "tcp://[2001::7]:4711", "tcp://[::1]:443"),
        (0x22, v6, "udp://[2001::7]:4711", "udp://[::1]:443"),
        (
            0x31,
            unix.clone(),
            "unix:///run/client",
            "unix:///run/server",
        ),
        (
            0x32,
            unix,
            "unixgram:///run/client",
            "unixgram:///run/server",
        ),
    ] {
        let header = parsed(&binary(0x21, family, &block));
        assert_eq!(
            (header.version(), header.command()),
            (Version::V2, Command::Proxy)
        );
        assert_eq!(uri(header.source()), source);
        assert_eq!(uri(header.destination()), destination);
        assert_eq!(header.tlvs().count(), 0);

        // A local connection has the connection's own addresses, whatever the block says.
        let header = parsed(&binary(0x20, family, &block));
        assert_eq!(header.command(), Command::Local);
        assert_eq!((header.source(), header.destination()), (None, None));
    }
}

/// The receiver has to accept it, to skip the bytes, and to ignore them with their family.
#[test]
fn a_local_header_is_accepted_whatever_its_block_is() {
    for (family, block) in [
        (0x00, &b""[..]),
        (0x00, b"\x04\0\x02ab"),
        (0x00, b"no TLVs"),
        (0x00, b"\x03\0\x04\0\0\0\0"),
        (0x11, b""),
        (0x11, b"short"),
        (0x21, b"\0"),
        (0x31, b""),
        (0x4f, b"another family"),
        (0xff, b""),
    ] {
        let header = parsed(&binary(0x20, family, block));
        assert_eq!(header.command(), Command::Local);
        assert_eq!((header.source(), header.tlvs().count()), (None, 0));
    }
}

#[test]
fn an_unspecified_family_or_transport_leaves_the_real_addresses() {
    for (family, block, tlvs) in [
        (0x00, &b"\x04\0\x02ab"[..], 1),
        (0x01, b"\x04\0\x02ab\xe0\0\0", 2),
        (0x02, b"", 0),
        (0x00, b"an address of another family", 0),
        (0x10, &v4(b"\x04\0\0"), 0),
        (0x10, b"", 0),
        (0x20, b"x", 0),
        (0x30, b"\x04\0\0", 0),
    ] {
        let header = parsed(&binary(0x21, family, block));
        assert_eq!(header.command(), Command::Proxy);
        assert_eq!((header.source(), header.destination()), (None, None));
        assert_eq!(header.tlvs().count(), tlvs, "{family:#x}");
    }

    // What are TLVs is held to their rules.
    let wrong = error(&binary(0x21, 0x00, b"\x03\0\x04\0\0\0\0"));
    assert!(matches!(wrong, ProxyError::Checksum { .. }), "{wrong}");
    let wrong = error(&binary(0x21, 0x00, b"\x20\0\0"));
    assert!(matches!(wrong, ProxyError::Tlv { .. }), "{wrong}");
}

#[test]
fn paths_of_unix_sockets_end_at_their_nul() {
    let block = |source: &[u8], destination: &[u8]| {
        let mut block = vec![0; 216];
        block[..source.len()].copy_from_slice(source);
        block[108..108 + destination.len()].copy_from_slice(destination);
        block
    };
    let full = [b'x'; 108];
    for (field, path) in [
        (&b""[..], &b""[..]),
        (b"/run/a", b"/run/a"),
        (b"/run/a\0rest\xff", b"/run/a"),
        (b"\0name", b"\0name"),
        (b"\0na\0me", b"\0na\0me"),
        (b"\xff\xfe", b"\xff\xfe"),
        (&full, &full),
    ] {
        for (family, destination) in [(0x31, &b"/run/b"[..]), (0x32, b"")] {
            let header = parsed(&binary(0x21, family, &block(field, destination)));
            let source = header.source().unwrap().path().unwrap();
            assert_eq!(source.as_os_str().as_encoded_bytes(), path);
            let source = header.destination().unwrap().path().unwrap();
            assert_eq!(source.as_os_str().as_encoded_bytes(), destination);
        }
    }
}

/// The error is known from the first `known` bytes on.
fn is_told_early(data: &[u8], known: usize, expected: &ProxyError, text: &str) {
    assert_eq!(error(data), *expected);
    assert_eq!(error(&data[..known]), *expected);
    assert_eq!(Header::parse(&data[..known - 1]), Ok(None));
    assert_eq!(expected.to_string(), format!("PROXY header: {text}"));
}

#[test]
fn wrong_binary_headers_are_told_as_early_as_can_be() {
    for (data, known, expected, text) in [
        (
            binary(0x11, 0, b""),
            13,
            ProxyError::Version(1),
            "version 1, expected 2",
        ),
        (
            binary(0x31, 0, b""),
            13,
            ProxyError::Version(3),
            "version 3, expected 2",
        ),
        (
            binary(0x01, 0, b""),
            13,
            ProxyError::Version(0),
            "version 0, expected 2",
        ),
        (
            binary(0x22, 0, b""),
            13,
            ProxyError::Command(2),
            "command 2, expected 0 or 1",
        ),
        (
            binary(0x2f, 0, b""),
            13,
            ProxyError::Command(15),
            "command 15, expected 0 or 1",
        ),
        (
            binary(0x21, 0x41, b""),
            14,
            ProxyError::Family(4),
            "address family 4, expected 0 to 3",
        ),
        (
            binary(0x21, 0xf0, b""),
            14,
            ProxyError::Family(15),
            "address family 15, expected 0 to 3",
        ),
        (
            binary(0x21, 0x13, &v4(b"")),
            14,
            ProxyError::Transport(3),
            "transport protocol 3, expected 0 to 2",
        ),
        (
            binary(0x21, 0x0f, b""),
            14,
            ProxyError::Transport(15),
            "transport protocol 15, expected 0 to 2",
        ),
    ] {
        is_told_early(&data, known, &expected, text);
    }
}

#[test]
fn a_length_without_room_for_the_addresses_is_told_as_early_as_can_be() {
    for (data, known, expected, text) in [
        (
            binary(0x21, 0x11, &[0; 11]),
            16,
            ProxyError::Addresses {
                length: 11,
                needed: 12,
            },
            "length 11, but the addresses need 12 bytes",
        ),
        (
            binary(0x21, 0x22, &[0; 35]),
            16,
            ProxyError::Addresses {
                length: 35,
                needed: 36,
            },
            "length 35, but the addresses need 36 bytes",
        ),
        (
            binary(0x21, 0x31, &[0; 215]),
            16,
            ProxyError::Addresses {
                length: 215,
                needed: 216,
            },
            "length 215, but the addresses need 216 bytes",
        ),
    ] {
        is_told_early(&data, known, &expected, text);
    }
}

#[test]
fn a_header_is_as_long_as_allowed() {
    let header = |length: usize| {
        let value = vec![b'x'; length - 16 - 12 - 3];
        let mut tlv = vec![0xe0];
        tlv.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        tlv.extend_from_slice(&value);
        binary(0x21, 0x11, &v4(&tlv))
    };

    let (allowed, long) = (header(DEFAULT_LIMIT), header(DEFAULT_LIMIT + 1));
    assert!(Header::parse(&allowed).unwrap().is_some());
    let expected = ProxyError::TooLong {
        length: DEFAULT_LIMIT + 1,
        limit: DEFAULT_LIMIT,
    };
    assert_eq!(error(&long), expected);
    assert_eq!(
        error(&long[..16]),
        expected,
        "no byte of the block is waited for"
    );
    assert_eq!(
        expected.to_string(),
        "PROXY header: 4097 bytes, at most 4096 allowed"
    );

    let longest = header(LIMIT_MOST);
    for limit in [LIMIT_MOST, usize::MAX] {
        let (_, length) = Header::parse_within(&longest, limit).unwrap().unwrap();
        assert_eq!(length, LIMIT_MOST);
    }
    assert!(Header::parse_within(&longest, LIMIT_MOST - 1).is_err());
    // What is ignored is not read without a limit either.
    let local = [SIGNATURE, &[0x20, 0, 0xff, 0xff]].concat();
    assert!(matches!(error(&local), ProxyError::TooLong { .. }));
    assert!(
        Header::parse_within(b"PROXY UNKNOWN\r\n", 0)
            .unwrap()
            .is_some()
    );
}

#[test]
fn tlvs_are_read() {
    let ssl = b"\x01\0\0\0\x02\x21\0\x07TLSv1.3\x22\0\x03you\x23\0\x02C1\x24\0\x02S1\x25\0\x02K1";
    let tlvs = [
        &b"\x01\0\x02h2\x02\0\x0bexample.com\x04\0\0\x05\0\x03\xff\0i\x20\0"[..],
        &[ssl.len() as u8],
        ssl,
        b"\x30\0\x05space\xe0\0\x01x\xe0\0\x01y\x99\0\0",
    ];
    let header = parsed(&binary(0x21, 0x11, &v4(&tlvs.concat())));
    let kinds: Vec<_> = header.tlvs().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [1, 2, 4, 5, 0x20, 0x30, 0xe0, 0xe0, 0x99]);
    assert_eq!(header.alpn(), Some(&b"h2"[..]));
    assert_eq!(header.authority(), Some("example.com"));
    assert_eq!(header.unique_id(), Some(&b"\xff\0i"[..]));
    assert_eq!(header.netns(), Some("space"));
    assert_eq!(header.tlv(0xe0), Some(&b"x"[..]), "the first of two");
    assert_eq!(header.tlv(tlv::NOOP), Some(&b""[..]));
    assert_eq!(header.tlv(0x98), None);

    let ssl = header.ssl().unwrap();
    assert!(ssl.is_encrypted() && !ssl.has_certificate() && !ssl.has_session_certificate());
    assert_eq!((ssl.verify_result(), ssl.is_verified()), (2, false));
    assert_eq!(
        (ssl.version(), ssl.common_name()),
        (Some("TLSv1.3"), Some("you"))
    );
    assert_eq!(
        (ssl.cipher(), ssl.signature_algorithm()),
        (Some("C1"), Some("S1"))
    );
    assert_eq!((ssl.key_algorithm(), ssl.tlvs().count()), (Some("K1"), 5));

    let none = parsed(&binary(0x21, 0x11, &v4(b"\x02\0\x01\xff")));
    assert_eq!(none.authority(), None, "not UTF-8");
    assert_eq!(
        (none.alpn(), none.unique_id(), none.netns()),
        (None, None, None)
    );
    assert_eq!(none.ssl(), None);
}

#[test]
fn a_certificate_is_verified_only_if_there_is_one() {
    for (flags, result, verified) in [
        (0x00, 0, false),
        (0x01, 0, false),
        (0x03, 0, true),
        (0x05, 0, true),
        (0x07, 0, true),
        (0x07, 1, false),
        (0x02, u32::MAX, false),
    ] {
        let value = [&[flags][..], &u32::to_be_bytes(result)].concat();
        let header = Header::unknown().with_tlv(tlv::SSL, &value).unwrap();
        let ssl = header.ssl().unwrap();
        assert_eq!(ssl.is_verified(), verified, "{flags} {result}");
        assert_eq!(ssl.verify_result(), result);
    }
}

#[test]
fn wrong_tlvs_are_told_with_their_place() {
    const SHORT: &str = "it ends before its length";
    const LONG: &str = "its length goes beyond the end";
    let long_id = [&[5, 0, 129][..], &[b'x'; 129]].concat();
    for (tlvs, position, problem) in [
        (&b"\x04"[..], 0, SHORT),
        (b"\x04\0", 0, SHORT),
        (b"\x04\0\x01", 0, LONG),
        (b"\x04\xff\xff", 0, LONG),
        (b"\x04\0\0\x04", 3, SHORT),
        (b"\x04\0\x02ab\xe0\0\x03ab", 5, LONG),
        (b"\x03\0\x03\0\0\0", 0, "a checksum has 4 bytes"),
        (b"\x03\0\0", 0, "a checksum has 4 bytes"),
        (
            b"\x03\0\x04\0\0\0\0\x03\0\x04\0\0\0\0",
            7,
            "a second checksum",
        ),
        (&long_id, 0, "a unique id has at most 128 bytes"),
        (b"\x20\0\x04\0\0\0\0", 0, "an SSL TLV has at least 5 bytes"),
        (b"\x20\0\x06\0\0\0\0\0\x21", 8, SHORT),
        (b"\x04\0\0\x20\0\x09\0\0\0\0\0\x21\0\x02a", 11, LONG),
    ] {
        let data = binary(0x21, 0x11, &v4(tlvs));
        let position = 16 + 12 + position;
        let expected = ProxyError::Tlv { position, problem };
        assert_eq!(error(&data), expected);
        assert_eq!(Header::parse(&data[..data.len() - 1]), Ok(None));
        let shown = format!("PROXY header: TLV at position {position}: {problem}");
        assert_eq!(expected.to_string(), shown);
    }
}

/// Headers that HAProxy 2.6 sent with `send-proxy-v2 proxy-v2-options crc32c,unique-id,ssl`: for a
/// client by IPv4, by IPv6, and on a Unix socket, which it does not state.
#[test]
fn headers_of_haproxy_are_read() {
    let v6 = [&[0; 15][..], &[1], &[0; 15], &[1]].concat();
    let v6 = [
        &v6,
        &b"\x90\xe4o7\x03\0\x04\xb8^\x97\xf8\x05\0\0\x20\0\x05\0\0\0\0\0"[..],
    ];
    let header = parsed(&binary(0x21, 0x21, &v6.concat()));
    assert_eq!(uri(header.source()), "tcp://[::1]:37092");
    assert_eq!(uri(header.destination()), "tcp://[::1]:28471");
    assert_eq!(header.unique_id(), Some(&b""[..]));
    let ssl = header.ssl().unwrap();
    assert!(!ssl.is_encrypted() && !ssl.is_verified());

    let local = b"\x03\0\x04\x95^j\0\x05\0\0\x20\0\x05\0\0\0\0\0";
    let header = parsed(&binary(0x20, 0, local));
    assert_eq!((header.command(), header.source()), (Command::Local, None));

    let v4 = b"\x7f\0\0\x01\x7f\0\0\x01\xae0o9\x03\0\x04\xb6\xd5u\xc5\
               \x05\0\x1b7F000001:AE30_6B0CB228_0003\x20\0\x05\0\0\0\0\0";
    let data = binary(0x21, 0x11, v4);
    let header = parsed(&data);
    assert_eq!(uri(header.source()), "tcp://127.0.0.1:44592");
    assert_eq!(
        header.unique_id(),
        Some(&b"7F000001:AE30_6B0CB228_0003"[..])
    );
    let mut again = Vec::new();
    header.encode_v2(&mut again);
    assert_eq!(again, data);
}

#[test]
fn a_checksum_is_verified() {
    let v4 = b"\x7f\0\0\x01\x7f\0\0\x01\xae0o9\x03\0\x04\xb6\xd5u\xc5\
               \x05\0\x1b7F000001:AE30_6B0CB228_0003\x20\0\x05\0\0\0\0\0";
    let mut data = binary(0x21, 0x11, v4);
    parsed(&data);

    // All bytes count, except that another type makes the checksum another TLV.
    for at in (16..data.len()).filter(|at| *at != 28) {
        data[at] ^= 0x10;
        assert!(Header::parse(&data).is_err(), "{at}");
        data[at] ^= 0x10;
    }
    data[31] ^= 1;
    let wrong = error(&data);
    let expected = ProxyError::Checksum {
        stated: 0xb7d5_75c5,
        computed: 0xb6d5_75c5,
    };
    assert_eq!(wrong, expected);
    assert_eq!(
        wrong.to_string(),
        "PROXY header: checksum b7d575c5, expected b6d575c5"
    );
}

#[test]
fn an_error_ends_a_connection_with_its_reason() {
    for wrong in [&b"GET"[..], b"PROXY TCP5", &[SIGNATURE, &[0x31]].concat()] {
        let reason = error(wrong).to_string();
        let error = ProtocolError::from(error(wrong));
        assert!(matches!(error, ProtocolError::Malformed(_)));
        assert_eq!(error.to_string(), format!("malformed: {reason}"));
    }
}

#[test]
fn headers_are_written_as_the_specification_shows_them() {
    let client: Address = "tcp://192.168.0.1:56324".parse().unwrap();
    let server: Address = "tcp://192.168.0.11:443".parse().unwrap();
    let header = Header::proxied(client, server).unwrap();
    let mut output = b"kept".to_vec();
    header.encode_v1(&mut output).unwrap();
    assert_eq!(
        output,
        b"keptPROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    );

    output.truncate(4);
    header.encode_v2(&mut output);
    let block = b"\xc0\xa8\0\x01\xc0\xa8\0\x0b\xdc\x04\x01\xbb";
    assert_eq!(output[4..], binary(0x21, 0x11, block));

    output.clear();
    Header::local().encode_v2(&mut output);
    assert_eq!(output, binary(0x20, 0, b""));
    for header in [Header::local(), Header::unknown()] {
        output.clear();
        header.encode_v1(&mut output).unwrap();
        assert_eq!(output, b"PROXY UNKNOWN\r\n");
    }

    // What version 1 cannot describe has to be UNKNOWN there.
    let udp: Address = "udp://192.168.0.1:1".parse().unwrap();
    output.clear();
    let header = Header::proxied(udp.clone(), udp).unwrap();
    header.encode_v1(&mut output).unwrap();
    assert_eq!(output, b"PROXY UNKNOWN\r\n");
}

/// A HAProxy that says in its response what it read in the header. Ended when this is dropped.
struct Reader {
    haproxy: Child,
    socket: PathBuf,
    _scratch: Scratch,
}

impl Reader {
    fn start() -> Self {
        let scratch = Scratch::new();
        let (socket, config) = (scratch.path("reader"), scratch.path("haproxy.cfg"));
        let text = format!(
            "defaults\n mode http\n timeout client 10s\n timeout connect 10s\n timeout server 10s\n\
             frontend reader\n bind unix@{} accept-proxy\n\
             http-request return status 200 content-type text/plain lf-string \
             \"%[src] %[src_port] %[dst] %[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"\n",
            socket.display()
        );
        fs::write(&config, text).unwrap();
        let haproxy = Program::new("haproxy")
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&socket);
        Self {
            haproxy,
            socket,
            _scratch: scratch,
        }
    }

    /// The body of the response to a request behind `header`, if there is a response.
    fn read(&self, header: &[u8]) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let request = [header, b"GET / HTTP/1.0\r\n\r\n"].concat();
        stream.write_all(&request).unwrap();
        let mut response = String::new();
        // A connection with a wrong header is reset.
        let _ = stream.read_to_string(&mut response);
        let (_, body) = response.split_once("\r\n\r\n")?;
        Some(body.trim().to_owned())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.haproxy.kill();
        let _ = self.haproxy.wait();
    }
}

#[track_caller]
fn wait_for(socket: &Path) {
    let begun = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(30), "no HAProxy");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn haproxy_reads_what_is_written() {
    if !outside::require("haproxy") {
        return;
    }
    let reader = Reader::start();
    for (client, server, read) in [
        (
            "tcp://192.0.2.7:4711",
            "tcp://198.51.100.1:443",
            "192.0.2.7 4711 198.51.100.1 443",
        ),
        (
            "tcp://0.0.0.0:1",
            "tcp://255.255.255.255:65535",
            "0.0.0.0 1 255.255.255.255 65535",
        ),
        (
            "tcp://[2001:db8::7]:4711",
            "tcp://[::1]:443",
            "2001:db8::7 4711 ::1 443",
        ),
        (
            "tcp://[1:2:3:4:5:6:7:8]:1",
            "tcp://[::]:2",
            "1:2:3:4:5:6:7:8 1 :: 2",
        ),
    ] {
        let header = Header::proxied(client.parse().unwrap(), server.parse().unwrap()).unwrap();
        let mut output = Vec::new();
        header.encode_v1(&mut output).unwrap();
        assert_eq!(reader.read(&output).unwrap(), read, "{header:?}");

        let header = header
            .with_tlv(tlv::ALPN, b"h2")
            .and_then(|header| header.with_tlv(tlv::AUTHORITY, b"example.com"))
            .and_then(Header::with_checksum)
            .and_then(|header| header.with_tlv(tlv::UNIQUE_ID, b"id-4711"))
            .and_then(|header| header.with_tlv(tlv::SSL, b"\x01\0\0\0\0\x21\0\x07TLSv1.3"))
            .unwrap();
        output.clear();
        header.encode_v2(&mut output);
        let read = format!("{read} example.com id-4711");
        assert_eq!(reader.read(&output).unwrap(), read, "{header:?}");

        // It is HAProxy that looks at the checksum.
        output[20] ^= 1;
        assert_eq!(reader.read(&output), None);
        assert!(Header::parse(&output).is_err());
    }

    let mut output = Vec::new();
    Header::local().encode_v2(&mut output);
    let local = reader.read(&output).unwrap();
    assert_eq!(
        local.replace([' ', '0', '-'], ""),
        "",
        "addresses of a Unix socket"
    );
    output.clear();
    Header::local().encode_v1(&mut output).unwrap();
    assert_eq!(reader.read(&output).unwrap(), local);
}

#[test]
fn a_checksum_is_written_whatever_is_added_behind_it() {
    let header = Header::unknown().with_checksum().unwrap();
    let header = header.with_tlv(tlv::AUTHORITY, b"example.com").unwrap();
    let mut output = b"before".to_vec();
    header.encode_v2(&mut output);
    let written = parsed(&output[6..]);
    assert_ne!(written.tlv(tlv::CRC32C), Some(&[0; 4][..]));
    assert!(header.with_checksum().is_err(), "a second one");

    // Read from a form that is written differently: the checksum is that of what is written.
    let mut other = output[6..].to_vec();
    other[13] = 0x01;
    assert!(matches!(error(&other), ProxyError::Checksum { .. }));
}

#[test]
fn what_cannot_be_written_is_refused() {
    let address = |uri: &str| uri.parse::<Address>().unwrap();
    let refused = |result: Result<Header<'_>, ProxyError>, problem: &str| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    };

    const KINDS: &str = "not of the same kind";
    for (source, destination) in [
        ("tcp://1.2.3.4:1", "udp://1.2.3.4:1"),
        ("tcp://1.2.3.4:1", "tcp://[::1]:1"),
        ("udp://[::1]:1", "udp://1.2.3.4:1"),
        ("unix:///a", "unixgram:///a"),
        ("tcp://1.2.3.4:1", "unix:///a"),
    ] {
        refused(
            Header::proxied(address(source), address(destination)),
            KINDS,
        );
    }

    for path in [
        "x".repeat(109),
        "a\0b".to_owned(),
        "a\0".to_owned(),
        "\0".to_owned(),
        "\0a\0".to_owned(),
    ] {
        let unix = Address::Unix(PathBuf::from(path));
        refused(
            Header::proxied(address("unix:///a"), unix.clone()),
            "108 bytes",
        );
        refused(Header::proxied(unix, address("unix:///a")), "108 bytes");
    }

    let long = vec![0; usize::from(u16::MAX) - 3 - 12];
    let header = Header::proxied(address("tcp://1.2.3.4:1"), address("tcp://1.2.3.4:1")).unwrap();
    let longest = header.clone().with_tlv(0xe0, &long).unwrap();
    let mut output = Vec::new();
    longest.encode_v2(&mut output);
    assert_eq!(output.len(), LIMIT_MOST);
    refused(longest.with_tlv(0xe0, b""), "too long");
    refused(header.clone().with_tlv(0xe0, &[0; 65_600]), "too long");
    refused(
        header.clone().with_tlv(tlv::CRC32C, &[0; 4]),
        "computed, not given",
    );
    refused(
        header.clone().with_tlv(tlv::UNIQUE_ID, &[0; 129]),
        "at most 128",
    );
    refused(header.clone().with_tlv(tlv::SSL, b"ssl"), "at least 5");
    refused(header.clone().with_tlv(tlv::SSL, b"ssl!!\0"), "ends before");
    refused(Header::local().with_tlv(tlv::ALPN, b"h2"), "LOCAL");
    refused(Header::local().with_checksum(), "LOCAL");

    let mut output = b"kept".to_vec();
    let error = header
        .with_tlv(tlv::ALPN, b"h2")
        .unwrap()
        .encode_v1(&mut output);
    assert_eq!(
        error.unwrap_err().to_string(),
        "PROXY header: version 1 has no TLVs"
    );
    assert_eq!(output, b"kept");
}

fn addresses() -> impl Strategy<Value = Option<(Address, Address)>> {
    let v4 = || any::<([u8; 4], u16)>();
    let v6 = || any::<([u8; 16], u16)>();
    // The path of a socket, or the name of one behind a NUL.
    let path = || "\0?[a-z/.é]{0,50}x|";
    let both = prop_oneof![
        (v4(), v4())
            .prop_map(|(one, other)| (Address::Tcp(one.into()), Address::Tcp(other.into()))),
        (v6(), v6())
            .prop_map(|(one, other)| (Address::Tcp(one.into()), Address::Tcp(other.into()))),
        (v4(), v4())
            .prop_map(|(one, other)| (Address::Udp(one.into()), Address::Udp(other.into()))),
        (v6(), v6())
            .prop_map(|(one, other)| (Address::Udp(one.into()), Address::Udp(other.into()))),
        (path(), path())
            .prop_map(|(one, other)| (Address::Unix(one.into()), Address::Unix(other.into()))),
        (path(), path()).prop_map(|(one, other)| (
            Address::Unixgram(one.into()),
            Address::Unixgram(other.into())
        )),
    ];
    proptest::option::weighted(0.9, both)
}

fn tlvs() -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = any::<u8>().prop_filter("checked elsewhere", |kind| {
        !matches!(*kind, tlv::CRC32C | tlv::SSL)
    });
    vec((kind, vec(any::<u8>(), 0..100)), 0..5)
}

proptest! {
    #![proptest_config(cases(500))]

    #[test]
    fn a_header_is_read_as_it_was_written(
        addresses in addresses(),
        tlvs in tlvs(),
        has_checksum in any::<bool>(),
        more in vec(any::<u8>(), 0..20),
    ) {
        let mut header = match addresses.clone() {
            Some((source, destination)) => Header::proxied(source, destination).unwrap(),
            None => Header::unknown(),
        };
        for (kind, value) in &tlvs {
            header = header.with_tlv(*kind, value).unwrap();
        }
        if has_checksum {
            header = header.with_checksum().unwrap();
        }

        let mut data = Vec::new();
        header.encode_v2(&mut data);
        let whole = data.len();
        data.extend_from_slice(&more);
        let (read, length) = Header::parse(&data).unwrap().unwrap();
        prop_assert_eq!(length, whole);
        let found = read.source().cloned().zip(read.destination().cloned());
        prop_assert_eq!(&found, &addresses);
        let found: Vec<_> = read.tlvs().map(|(kind, value)| (kind, value.to_vec())).collect();
        prop_assert_eq!(&found[..tlvs.len()], &tlvs[..]);
        prop_assert_eq!(found.len(), tlvs.len() + usize::from(has_checksum));
        for cut in 0..whole {
            prop_assert_eq!(Header::parse(&data[..cut]), Ok(None));
        }

        let mut line = Vec::new();
        prop_assert_eq!(header.encode_v1(&mut line).is_err(), !found.is_empty());
        if found.is_empty() {
            let (read, length) = Header::parse(&line).unwrap().unwrap();
            let tcp = addresses.filter(|(source, _)| matches!(source, Address::Tcp(_)));
            prop_assert_eq!(read.source().cloned().zip(read.destination().cloned()), tcp);
            prop_assert_eq!(length, line.len());
            for cut in 0..length {
                prop_assert_eq!(Header::parse(&line[..cut]), Ok(None));
            }
        }
    }
}

/// How many generated headers are compared: with `SERVELOOP_FULL=1` a million.
fn compared() -> u32 {
    match env::var_os("SERVELOOP_FULL") {
        Some(_) => 1_000_000,
        None => 10_000,
    }
}

proptest! {
    #![proptest_config(cases(compared()))]

    #[test]
    fn a_header_is_what_other_parsers_find(choices in any::<[u64; 20]>(), count in 0..160_usize) {
        let choices = choices.map(u64::to_be_bytes).concat();
        proxy_header::target(&choices[..count]);
    }
}

#[test]
fn every_difference_from_other_parsers_has_a_reason_and_an_example() {
    for oracle in [Oracle::Ppp, Oracle::ProxyHeader] {
        assert!(DIFFERENCES.iter().any(|known| known.oracle == oracle));
    }
    for known in DIFFERENCES {
        known.check().unwrap();
        assert!(!known.reason.is_empty() && known.section.starts_with('2'));
    }
}

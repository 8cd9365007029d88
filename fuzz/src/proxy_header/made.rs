//! Headers that are made of arbitrary bytes, most of them right or nearly so.

use crate::input::Input;

pub(super) const CRC32C: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;
const SSL: u8 = 0x20;

/// The first byte says what the others are: a header, or choices of its parts.
pub(super) fn header(data: &[u8]) -> Vec<u8> {
    let mut input = Input::new(data);
    let mut header = match input.below(8) {
        0 => return input.rest().to_vec(),
        1..4 => text(&mut input),
        _ => binary(&mut input),
    };
    if input.below(3) == 1 {
        damage(&mut header, &mut input);
    }
    if input.below(4) == 1 {
        let length = usize::from(input.byte()) * 4;
        header.truncate(length);
    }
    if input.below(4) == 1 {
        header.extend_from_slice(b"GET / HTTP/1.1\r\n\r\n");
    }
    header
}

/// One of `good` in most cases, one of `bad` in others.
fn one<'a>(input: &mut Input<'_>, good: &[&'a str], bad: &[&'a str]) -> &'a str {
    match input.below(32) {
        0..30 => good[input.below(good.len())],
        _ => bad[input.below(bad.len())],
    }
}

fn text(input: &mut Input<'_>) -> Vec<u8> {
    const V4: [&str; 4] = ["192.0.2.7", "255.255.255.255", "0.0.0.0", "10.1.2.3"];
    const V6: [&str; 5] = [
        "2001:db8::7",
        "::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "::ffff:192.0.2.7",
        "2001:DB8:0:0:0:0:0:1",
    ];
    const NEITHER: [&str; 9] = [
        "192.0.2.07",
        "192.0.2",
        "192.0.2.256",
        "1.2.3.4.5",
        "::1%lo",
        "1:2:3:4:5:6:7:8:9",
        "12345::",
        "",
        "localhost",
    ];

    let space = |input: &mut Input<'_>| one(input, &[" "], &["  ", "", "\t"]);
    let mut text = one(input, &["PROXY"], &["proxy", "PROXX", "PROXY "]).to_owned();
    text += space(input);
    let word = one(
        input,
        &["TCP4", "TCP6", "UNKNOWN"],
        &["UDP4", "TCP", "tcp4", "UNKNOWNS", "TCP5"],
    );
    text += word;
    if word == "UNKNOWN" && input.below(2) == 0 {
        return (text + end(input)).into_bytes();
    }

    for _ in 0..2 {
        text += space(input);
        let good: &[&str] = if word == "TCP6" { &V6 } else { &V4 };
        text += one(input, good, &[&V4[..1], &V6[..1], &NEITHER].concat());
    }
    for _ in 0..2 {
        text += space(input);
        text += one(
            input,
            &["443", "0", "65535", "56324"],
            &["65536", "080", "+80", "-1", "", "00", "8o", "99999999999"],
        );
    }
    if input.below(16) == 1 {
        text += [" more", " ", " a b c"][input.below(3)];
    }
    (text + end(input)).into_bytes()
}

fn end(input: &mut Input<'_>) -> &'static str {
    one(
        input,
        &["\r\n"],
        &["\n", "\r", "\n\r", "\r\r\n", "", "\n\r\n"],
    )
}

fn binary(input: &mut Input<'_>) -> Vec<u8> {
    const FAMILIES: [u8; 16] = [
        0x11, 0x12, 0x21, 0x22, 0x31, 0x32, 0x11, 0x21, 0x00, 0x00, 0x01, 0x10, 0x30, 0x13, 0x41,
        0xff,
    ];
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.push([0x21, 0x21, 0x21, 0x21, 0x21, 0x20, 0x20, 0x22][input.below(8)]);
    if input.below(64) == 1 {
        header[12] = input.byte();
    }
    let family = FAMILIES[input.below(16)];
    header.extend_from_slice(&[family, 0, 0]);

    match family >> 4 {
        1 => header.extend((0..12).map(|_| input.byte())),
        2 => header.extend((0..36).map(|_| input.byte())),
        3 => (0..2).for_each(|_| path(&mut header, input)),
        _ => {}
    }
    let checksums = tlvs(&mut header, input);
    if input.below(16) == 1 {
        let length = input.below(40);
        header.truncate(16 + length);
    }

    let mut length = header.len() - 16;
    if input.below(16) == 1 {
        length = (length + input.below(8)).saturating_sub(4);
    }
    header[14..16].copy_from_slice(&(length as u16).to_be_bytes());
    for at in checksums {
        if at + 4 <= header.len() {
            let right = checksum(&header, at).to_be_bytes();
            header[at..at + 4].copy_from_slice(&right);
        }
    }
    header
}

/// The path of a Unix socket, with whatever bytes behind its end.
fn path(header: &mut Vec<u8>, input: &mut Input<'_>) {
    let (length, fill) = (input.below(109), input.below(4) as u8 / 3);
    let path = (0..length).map(|_| input.byte());
    let mut path: Vec<_> = path.collect();
    path.resize(108, fill);
    header.append(&mut path);
}

/// Appends TLVs. Returns where values of checksums are that are to be right.
fn tlvs(header: &mut Vec<u8>, input: &mut Input<'_>) -> Vec<usize> {
    const KINDS: [u8; 10] = [0x01, 0x02, 0x03, 0x03, 0x04, 0x05, 0x20, 0x21, 0x30, 0xe0];
    let mut checksums = Vec::new();
    for _ in 0..input.below(5) {
        let kind = KINDS[input.below(10)];
        let length = match kind {
            CRC32C if input.below(8) != 1 => 4,
            UNIQUE_ID if input.below(8) == 1 => 129,
            SSL if input.below(8) != 1 => 5 + input.below(2) * 8,
            _ => input.below(12),
        };
        let mut value: Vec<_> = (0..length).map(|_| input.byte()).collect();
        if kind == SSL && length == 13 && input.below(8) != 1 {
            value[5] = 0x20 + value[5] % 8;
            value[6..8].copy_from_slice(&[0, 5]);
        }

        header.extend_from_slice(&[kind, 0, length as u8]);
        if kind == CRC32C && length == 4 && input.below(4) != 1 {
            checksums.push(header.len());
        }
        header.append(&mut value);
    }
    checksums
}

/// Changes, removes or adds one byte.
fn damage(header: &mut Vec<u8>, input: &mut Input<'_>) {
    const BYTES: &[u8] = b" \r\n+0:.x\xff\0PT";
    let at = usize::from(input.byte()) % header.len();
    let byte = BYTES[input.below(BYTES.len())];
    match input.below(3) {
        0 => header[at] = byte,
        1 => drop(header.remove(at)),
        _ => header.insert(at, byte),
    }
}

/// The checksum of a header whose four bytes at `at` count as zeros, a bit at a time, by the
/// polynomial as it is written in RFC 9260.
pub(super) fn checksum(header: &[u8], at: usize) -> u32 {
    let mut value = u32::MAX;
    for (position, byte) in header.iter().enumerate() {
        let byte = if (at..at + 4).contains(&position) {
            0
        } else {
            *byte
        };
        value ^= u32::from(byte.reverse_bits()) << 24;
        for _ in 0..8 {
            let carry = value >> 31;
            value = (value << 1) ^ (carry * 0x1edc_6f41);
        }
    }
    !value.reverse_bits()
}

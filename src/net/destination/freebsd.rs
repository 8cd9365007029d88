//! Control messages of FreeBSD: a 32-bit length, with content and messages aligned to a word.

use std::net::Ipv4Addr;

#[path = "header.rs"]
mod header;

const LENGTH: usize = 4;
const ALIGN: usize = size_of::<usize>();
const HEADER: usize = (LENGTH + 8).next_multiple_of(ALIGN);

/// Room for one message with 20 bytes of content.
pub(in crate::net) const ROOM: usize = HEADER + 24;

pub(super) const WATCH_V4: i32 = libc::IP_RECVDSTADDR;
pub(super) const WATCH_V6: i32 = libc::IPV6_RECVPKTINFO;
pub(super) const TOLD_V4: i32 = libc::IP_RECVDSTADDR;
pub(super) const TELL_V4: i32 = libc::IP_SENDSRCADDR;

pub(super) fn split(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    header::split::<LENGTH, HEADER, ALIGN>(control)
}

pub(in crate::net) fn join(level: i32, kind: i32, content: &[u8]) -> ([u8; ROOM], usize) {
    header::join::<ROOM, LENGTH, HEADER, ALIGN>(level, kind, content)
}

/// Reads the destination, which is the whole content.
pub(super) fn read_v4(content: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = content.get(..4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}

pub(super) fn content_v4(source: Ipv4Addr) -> [u8; 4] {
    source.octets()
}

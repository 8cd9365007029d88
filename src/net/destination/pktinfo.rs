//! Control messages of Linux, macOS and related systems: see cmsg(3), ip(7) and ipv6(7).

use std::net::Ipv4Addr;

#[path = "header.rs"]
mod header;

/// The size of the length in a header. In the kernel of Linux it is one word, even where the C
/// library declares something shorter and padding; on macOS it has 32 bits.
const LENGTH: usize = if cfg!(target_vendor = "apple") {
    4
} else {
    size_of::<usize>()
};
const HEADER: usize = LENGTH + 8;
const ALIGN: usize = LENGTH;

/// Room for one message with 20 bytes of content.
pub(in crate::net) const ROOM: usize = HEADER + 24;

pub(super) const WATCH_V4: i32 = libc::IP_PKTINFO;
pub(super) const WATCH_V6: i32 = libc::IPV6_RECVPKTINFO;
pub(super) const TOLD_V4: i32 = libc::IP_PKTINFO;
pub(super) const TELL_V4: i32 = libc::IP_PKTINFO;

pub(in crate::net) fn split(control: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    header::split::<LENGTH, HEADER, ALIGN>(control)
}

pub(in crate::net) fn join(level: i32, kind: i32, content: &[u8]) -> ([u8; ROOM], usize) {
    header::join::<ROOM, LENGTH, HEADER, ALIGN>(level, kind, content)
}

/// Reads the structure `in_pktinfo`: interface, local address, destination. The last two differ for
/// broadcasts. For a datagram that came before the option was set, only the destination is known.
pub(super) fn read_v4(content: &[u8]) -> Option<Ipv4Addr> {
    let ip = |at: usize| {
        let octets: [u8; 4] = content.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };

    let (local, destination) = (ip(4)?, ip(8)?);
    Some(if local.is_unspecified() {
        destination
    } else {
        local
    })
}

/// Leaves the interface to the route; the destination is ignored.
pub(super) fn content_v4(source: Ipv4Addr) -> [u8; 12] {
    let mut content = [0; 12];
    content[4..8].copy_from_slice(&source.octets());
    content
}

//! Systems whose control messages are not known here. They choose the source of replies themselves.

use std::net::Ipv4Addr;

pub(in crate::net) const ROOM: usize = 1;

/// Option numbers that no system has.
pub(super) const WATCH_V4: i32 = -1;
pub(super) const WATCH_V6: i32 = -1;
pub(super) const TOLD_V4: i32 = -1;
pub(super) const TELL_V4: i32 = -1;

pub(super) fn split(_: &[u8]) -> Option<(i32, i32, &[u8], &[u8])> {
    None
}

pub(in crate::net) fn join(_: i32, _: i32, _: &[u8]) -> ([u8; ROOM], usize) {
    ([0; ROOM], 0)
}

pub(super) fn read_v4(_: &[u8]) -> Option<Ipv4Addr> {
    None
}

pub(super) fn content_v4(_: Ipv4Addr) -> [u8; 0] {
    []
}

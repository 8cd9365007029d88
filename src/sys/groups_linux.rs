//! Groups as Linux has them: see ip(7), ipv6(7) and RFC 3678.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use socket2::SockAddr;

use crate::sys::set_option;

/// Not every C library of Linux has a name for it.
const IPV6_MULTICAST_ALL: libc::c_int = 29;

/// Joins a group as far as `source` sends to it, at an interface or, for 0, at one that the system
/// chooses.
pub(crate) fn join_source(
    socket: BorrowedFd<'_>,
    group: IpAddr,
    source: IpAddr,
    interface: u32,
) -> io::Result<()> {
    let storage = |ip: IpAddr| SockAddr::from(SocketAddr::new(ip, 0)).as_storage();
    let level = match group {
        IpAddr::V4(_) => libc::IPPROTO_IP,
        IpAddr::V6(_) => libc::IPPROTO_IPV6,
    };
    // SAFETY: zeroes are a valid request, with two addresses of no family. An address of the standard
    // library has the layout of the C library's storage for addresses, of the same size.
    let request = unsafe {
        let mut request: libc::group_source_req = mem::zeroed();
        request.gsr_interface = interface;
        request.gsr_group = mem::transmute_copy(&storage(group));
        request.gsr_source = mem::transmute_copy(&storage(source));
        request
    };
    set_option(socket, level, libc::MCAST_JOIN_SOURCE_GROUP, &request)
}

/// Makes a socket of IPv4 send to groups by the interface with this number.
pub(crate) fn send_by(socket: BorrowedFd<'_>, interface: u32) -> io::Result<()> {
    let request = libc::ip_mreqn {
        imr_multiaddr: libc::in_addr { s_addr: 0 },
        imr_address: libc::in_addr { s_addr: 0 },
        imr_ifindex: libc::c_int::try_from(interface).unwrap_or_default(),
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
}

/// Makes a socket receive what its own memberships let it receive, and not what those of other sockets
/// of this machine do.
pub(crate) fn only_own_groups(socket: BorrowedFd<'_>, is_ipv6: bool) -> io::Result<()> {
    let off: libc::c_int = 0;
    if is_ipv6 {
        return set_option(socket, libc::IPPROTO_IPV6, IPV6_MULTICAST_ALL, &off);
    }
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_ALL, &off)
}

//! The address that a datagram was sent to, which its reply has to be sent from.
//!
//! A socket that is bound to one address replies from it. A socket that is bound to all addresses
//! of this machine leaves the choice to the system, which follows the route to the peer. A client
//! that sent its datagram to another address drops such a reply, and so do firewalls and address
//! translation. The system reports a datagram's destination in one control message, and accepts a
//! source in another.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{MsgHdr, SockAddr, SockRef};

use crate::address::{Ecn, PacketInfo};
use crate::net::packet;
use crate::sys;

#[cfg_attr(
    any(target_os = "linux", target_os = "android", target_vendor = "apple"),
    path = "pktinfo.rs"
)]
#[cfg_attr(target_os = "freebsd", path = "freebsd.rs")]
#[cfg_attr(
    not(any(
        target_os = "linux",
        target_os = "android",
        target_vendor = "apple",
        target_os = "freebsd"
    )),
    path = "unknown.rs"
)]
mod layout;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(in crate::net) use self::layout::split;
pub(in crate::net) use self::layout::{ROOM, join};

/// Room for the control messages of one datagram, in bytes. It holds those requested here, and some
/// that others may have requested on a socket that was passed to us.
const CONTROL_MOST: usize = 256;

/// A control message, and its length.
pub(in crate::net) type Control = ([u8; ROOM], usize);

/// The address of this machine that a datagram was sent to, which the replies come from.
///
/// ```
/// use serveloop::net::Destination;
///
/// let asked = Destination::V4([192, 0, 2, 7].into());
/// assert_ne!(asked, Destination::V6(std::net::Ipv6Addr::LOCALHOST, 0));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An address of IPv4.
    V4(Ipv4Addr),
    /// An address of IPv6. The number is the interface of an address that is valid on that interface
    /// only, and otherwise 0.
    V6(Ipv6Addr, u32),
}

/// Returns whether a socket bound to `ip` receives datagrams for several addresses.
pub(super) fn is_any(ip: IpAddr) -> bool {
    ip.to_canonical().is_unspecified()
}

/// Makes [`receive`] report the destinations of datagrams. Call this before binding: some systems
/// do not know the destination of datagrams that are already waiting.
///
/// # Errors
/// The system does not report destinations. Replies then come from an address that it chooses.
pub(super) fn watch(socket: impl AsFd, ip: IpAddr) -> io::Result<()> {
    let socket = socket.as_fd();
    if ip.is_ipv6() {
        // Needed for IPv4 too, if the socket takes both: it is the only way to recognise a
        // broadcast.
        let _ = sys::enable(socket, libc::IPPROTO_IP, layout::WATCH_V4);
        return sys::enable(socket, libc::IPPROTO_IPV6, layout::WATCH_V6);
    }
    sys::enable(socket, libc::IPPROTO_IP, layout::WATCH_V4)
}

/// Receives one datagram, and returns its length, its sender, and its destination if the system
/// reports it.
///
/// # Errors
/// The errors of recvmsg(2).
pub(super) fn receive(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<Destination>)> {
    let mut control = [0; CONTROL_MOST];
    let (count, from, told) = receive_into(socket.as_fd(), buffer, &mut control)?;
    Ok((count, from, find(told)))
}

/// What was received by one call: a datagram, or several of one peer that the system has put together.
#[derive(Debug)]
pub(super) struct Run {
    /// How many bytes it has.
    pub(super) count: usize,
    pub(super) from: SocketAddr,
    pub(super) destination: Option<Destination>,
    pub(super) packet: Option<PacketInfo>,
    /// The length of each datagram but the last, if there may be several.
    pub(super) size: Option<usize>,
}

/// Receives one datagram like [`receive`], or several, with everything that the system tells.
///
/// # Errors
/// The errors of recvmsg(2).
#[cold]
pub(super) fn receive_run(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Run> {
    let mut control = [0; CONTROL_MOST];
    let (count, from, told) = receive_into(socket.as_fd(), buffer, &mut control)?;
    Ok(Run {
        count,
        from,
        destination: find(told),
        packet: packet::find(told),
        size: packet::find_size(told),
    })
}

/// Receives one datagram, and returns its length, its sender and its control messages.
fn receive_into<'a>(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &'a mut [u8],
) -> io::Result<(usize, SocketAddr, &'a [u8])> {
    let message = sys::receive_message(socket, buffer, control, 0)?;
    let from = message.from.as_socket();
    let from = from.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((message.count, from, &control[..message.control]))
}

/// Sends one datagram to `to`, from `source` if there is one.
///
/// # Errors
/// The errors of sendmsg(2), for example that the address is no longer ours.
pub(super) fn send(
    socket: impl AsFd,
    data: &[u8],
    to: SocketAddr,
    source: Option<Destination>,
) -> io::Result<usize> {
    let (to, parts) = (SockAddr::from(to), [io::IoSlice::new(data)]);
    let (control, length) = source.map_or(([0; layout::ROOM], 0), write);
    let mut message = MsgHdr::new().with_addr(&to).with_buffers(&parts);

    if length > 0 {
        message = message.with_control(&control[..length]);
    }

    SockRef::from(&socket).sendmsg(&message, sys::QUIETLY)
}

/// Sends one datagram like [`send`], with a mark.
///
/// # Errors
/// The errors of sendmsg(2).
#[cold]
pub(super) fn send_marked(
    socket: impl AsFd,
    data: &[u8],
    to: SocketAddr,
    source: Option<Destination>,
    ecn: Ecn,
) -> io::Result<usize> {
    let (name, parts) = (SockAddr::from(to), [io::IoSlice::new(data)]);
    let control = told(source, ecn, to);
    let mut message = MsgHdr::new().with_addr(&name).with_buffers(&parts);
    if !control.is_empty() {
        message = message.with_control(&control);
    }
    SockRef::from(&socket).sendmsg(&message, sys::QUIETLY)
}

/// Builds the control messages for a source and a mark.
fn told(source: Option<Destination>, ecn: Ecn, to: SocketAddr) -> Vec<u8> {
    let (source, end) = source.map_or(([0; ROOM], 0), write);
    let mut control = source[..end].to_vec();
    if ecn != Ecn::NotEct {
        let (mark, end) = packet::mark(ecn, to);
        control.extend_from_slice(&mark[..end]);
    }
    control
}

/// Whether the system can cut a long datagram into several (UDP_SEGMENT, see udp(7) on Linux).
pub(super) const CUTS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Sends datagrams of `length` bytes each, of which the last may be shorter, by one call.
///
/// # Errors
/// The errors of sendmsg(2). The system may not be able to cut them for this way.
pub(super) fn send_run(
    socket: impl AsFd,
    data: &[u8],
    length: u16,
    to: SocketAddr,
    (source, ecn): (Option<Destination>, Ecn),
) -> io::Result<usize> {
    let (name, parts) = (SockAddr::from(to), [io::IoSlice::new(data)]);
    let mut control = told(source, ecn, to);
    let (cut, end) = cut_into(length);
    control.extend_from_slice(&cut[..end]);
    let message = MsgHdr::new().with_addr(&name).with_buffers(&parts);
    SockRef::from(&socket).sendmsg(&message.with_control(&control), sys::QUIETLY)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn cut_into(length: u16) -> ([u8; layout::ROOM], usize) {
    layout::join(libc::SOL_UDP, libc::UDP_SEGMENT, &length.to_ne_bytes())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn cut_into(_: u16) -> ([u8; layout::ROOM], usize) {
    ([0; layout::ROOM], 0)
}

/// Finds the destination in a datagram's control messages. A message that is cut short is ignored.
fn find(mut control: &[u8]) -> Option<Destination> {
    let mut found = None;
    while let Some((level, kind, content, rest)) = layout::split(control) {
        control = rest;
        if level == libc::IPPROTO_IP && kind == layout::TOLD_V4 {
            // A socket for both families reports this too, and it is the better of the two.
            return layout::read_v4(content)
                .filter(|ip| is_ours(IpAddr::V4(*ip)))
                .map(Destination::V4);
        }

        if level == libc::IPPROTO_IPV6 && kind == libc::IPV6_PKTINFO {
            found = read_v6(content);
        }
    }
    found
}

/// Reads the structure `in6_pktinfo`, which is the same on all systems.
fn read_v6(content: &[u8]) -> Option<Destination> {
    let (ip, interface) = content.split_at_checked(16)?;
    let ip = Ipv6Addr::from(<[u8; 16]>::try_from(ip).ok()?);
    let interface = u32::from_ne_bytes(interface.get(..4)?.try_into().ok()?);
    let interface = if ip.is_unicast_link_local() {
        interface
    } else {
        0
    };
    is_ours(IpAddr::V6(ip)).then_some(Destination::V6(ip, interface))
}

/// Returns whether a reply can be sent from `ip`, and not if several machines share that address.
fn is_ours(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => !(ip.is_unspecified() || ip.is_broadcast() || ip.is_multicast()),
        IpAddr::V6(ip) => !(ip.is_unspecified() || ip.is_multicast()),
    }
}

/// Builds the control message for a source, and returns it with its length.
fn write(source: Destination) -> ([u8; layout::ROOM], usize) {
    match source {
        Destination::V4(ip) => {
            layout::join(libc::IPPROTO_IP, layout::TELL_V4, &layout::content_v4(ip))
        }
        Destination::V6(ip, interface) => {
            let mut content = [0; 20];
            content[..16].copy_from_slice(&ip.octets());
            content[16..].copy_from_slice(&interface.to_ne_bytes());
            layout::join(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &content)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(source: Destination) -> Vec<u8> {
        let (control, length) = write(source);
        control[..length].to_vec()
    }

    #[test]
    fn what_is_written_is_read() {
        for source in [
            Destination::V4(Ipv4Addr::new(127, 0, 0, 2)),
            Destination::V6("2001:db8::1".parse().unwrap(), 0),
            Destination::V6("fe80::1".parse().unwrap(), 7),
            Destination::V6("::ffff:192.0.2.1".parse().unwrap(), 0),
        ] {
            let control = written(source);
            assert_eq!(find(&control), Some(source));
            for length in 0..control.len().min(20) {
                assert_eq!(find(&control[..length]), None, "cut to {length}");
            }
        }
    }

    /// A socket for both families receives over IPv4, at an address that is not the usual one.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_of_both_families_answers_from_the_address_that_was_asked() {
        use socket2::{Domain, Socket, Type};
        use std::time::Duration;

        let Ok(both) = Socket::new(Domain::IPV6, Type::DGRAM, None) else {
            return eprintln!("skipped: there is no IPv6 here");
        };
        both.set_only_v6(false).unwrap();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        watch(&both, any.ip()).unwrap();
        both.bind(&any.into()).unwrap();
        let port = both.local_addr().unwrap().as_socket().unwrap().port();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(("127.0.0.2", port)).unwrap();
        let patience = Some(Duration::from_secs(10));
        client.set_read_timeout(patience).unwrap();
        both.set_read_timeout(patience).unwrap();
        client.send(b"hello").unwrap();

        let mut buffer = [0; 9];
        let (count, from, destination) = receive(&both, &mut buffer).unwrap();
        let asked = Some(Destination::V4(Ipv4Addr::new(127, 0, 0, 2)));
        assert_eq!((count, destination), (5, asked));
        assert!(from.ip().to_canonical().is_ipv4());

        // The mapped form of the address works as well.
        let mapped = Destination::V6("::ffff:127.0.0.2".parse().unwrap(), 0);
        for source in [destination, Some(mapped)] {
            send(&both, &buffer[..count], from, source).unwrap();
            assert_eq!(client.recv(&mut [0; 9]).unwrap(), 5);
        }
    }

    #[test]
    fn an_interface_counts_for_link_local_addresses_only() {
        let global = Destination::V6("2001:db8::1".parse().unwrap(), 7);
        let found = Destination::V6("2001:db8::1".parse().unwrap(), 0);
        assert_eq!(find(&written(global)), Some(found));
    }

    #[test]
    fn nothing_leaves_from_an_address_of_several() {
        for source in [
            Destination::V4(Ipv4Addr::BROADCAST),
            Destination::V4(Ipv4Addr::UNSPECIFIED),
            Destination::V4(Ipv4Addr::new(224, 0, 0, 1)),
            Destination::V6("ff02::1".parse().unwrap(), 7),
            Destination::V6("::ffff:224.0.0.1".parse().unwrap(), 0),
        ] {
            assert_eq!(find(&written(source)), None, "{source:?}");
        }
    }

    #[test]
    fn other_messages_are_passed_over_and_ipv4s_own_is_preferred() {
        let mapped = written(Destination::V6("::ffff:10.9.0.255".parse().unwrap(), 0));
        let own = written(Destination::V4(Ipv4Addr::new(10, 9, 0, 1)));
        let expected = Some(Destination::V4(Ipv4Addr::new(10, 9, 0, 1)));
        assert_eq!(find(&[&*mapped, &own].concat()), expected);
        assert_eq!(find(&[&*own, &mapped].concat()), expected);
        let (other, length) = layout::join(libc::SOL_SOCKET, 0x7777, &[1; 20]);
        assert_eq!(find(&[&other[..length], &*own].concat()), expected);
    }

    #[test]
    fn lengths_that_make_no_sense_are_no_messages() {
        assert_eq!(find(&[0; 64]), None);
        assert_eq!(find(&[0xff; 64]), None);
        assert_eq!(find(&[]), None);
    }

    #[test]
    fn sockets_of_several_addresses_are_known() {
        for any in ["0.0.0.0", "::", "::ffff:0.0.0.0"] {
            assert!(is_any(any.parse().unwrap()), "{any}");
        }
        for one in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "255.255.255.255"] {
            assert!(!is_any(one.parse().unwrap()), "{one}");
        }
    }
}

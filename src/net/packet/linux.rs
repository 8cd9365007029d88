//! The ECN mark and the hop limit in control messages (ip(7), ipv6(7)), and the length of datagrams that the
//! system has put together (udp(7)).

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;

use crate::address::{Ecn, PacketInfo};
use crate::net::destination::{Control, is_any, join, split};
use crate::sys;

/// Makes a socket tell the header of each packet.
///
/// # Errors
/// The system refuses that.
pub(in crate::net) fn watch(
    socket: BorrowedFd<'_>,
    addr: SocketAddr,
    is_dual: bool,
) -> io::Result<()> {
    let hears_v4 = addr.ip().to_canonical().is_ipv4() || is_dual && is_any(addr.ip());
    if hears_v4 {
        sys::enable(socket, libc::IPPROTO_IP, libc::IP_RECVTOS)?;
        sys::enable(socket, libc::IPPROTO_IP, libc::IP_RECVTTL)?;
    }
    if addr.is_ipv6() {
        sys::enable(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
        sys::enable(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT)?;
    }
    Ok(())
}

/// Finds both in a datagram's control messages.
pub(in crate::net) fn find(mut control: &[u8]) -> Option<PacketInfo> {
    let (mut ecn, mut hop_limit) = (None, None);
    while let Some((level, kind, content, rest)) = split(control) {
        control = rest;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                ecn = number(content).map(Ecn::from_bits);
            }
            (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                hop_limit = number(content);
            }
            _ => {}
        }
    }
    Some(PacketInfo::new(ecn?, hop_limit?))
}

/// Lets the system put datagrams of one peer together that come at once.
///
/// # Errors
/// The system cannot do that: Linux can since version 5.0.
pub(in crate::net) fn gather(socket: BorrowedFd<'_>) -> io::Result<()> {
    sys::enable(socket, libc::SOL_UDP, libc::UDP_GRO)
        .map_err(|error| io::Error::new(error.kind(), format!("gro: {error}")))
}

/// Finds the length of each of several datagrams, of which the last may have less.
pub(in crate::net) fn find_size(mut control: &[u8]) -> Option<usize> {
    while let Some((level, kind, content, rest)) = split(control) {
        control = rest;
        if (level, kind) == (libc::SOL_UDP, libc::UDP_GRO) {
            let word = content.get(..4)?.try_into().ok()?;
            return usize::try_from(i32::from_ne_bytes(word)).ok();
        }
    }
    None
}

/// Reads a number that fits into a byte, and is one or an `int`.
fn number(content: &[u8]) -> Option<u8> {
    match content {
        [byte] => Some(*byte),
        _ => {
            let word = content.get(..4)?.try_into().ok()?;
            u8::try_from(i32::from_ne_bytes(word)).ok()
        }
    }
}

/// Builds the control message for the mark of a datagram to `to`.
pub(in crate::net) fn mark(ecn: Ecn, to: SocketAddr) -> Control {
    let content = i32::from(ecn.bits()).to_ne_bytes();
    match to.ip().to_canonical().is_ipv4() {
        true => join(libc::IPPROTO_IP, libc::IP_TOS, &content),
        false => join(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, content: &[u8]) -> Vec<u8> {
        let (control, length) = join(level, kind, content);
        control[..length].to_vec()
    }

    #[test]
    fn both_are_found_among_others() {
        let tos = message(libc::IPPROTO_IP, libc::IP_TOS, &[0xb9]);
        let ttl = message(libc::IPPROTO_IP, libc::IP_TTL, &63_i32.to_ne_bytes());
        let class = message(
            libc::IPPROTO_IPV6,
            libc::IPV6_TCLASS,
            &0x3b_i32.to_ne_bytes(),
        );
        let hops = message(
            libc::IPPROTO_IPV6,
            libc::IPV6_HOPLIMIT,
            &255_i32.to_ne_bytes(),
        );
        let other = message(libc::SOL_SOCKET, 0x7777, &[1; 20]);

        let v4 = Some(PacketInfo::new(Ecn::Ect1, 63));
        assert_eq!(find(&[&*tos, &other, &ttl].concat()), v4);
        assert_eq!(find(&[&*ttl, &tos].concat()), v4);
        let v6 = Some(PacketInfo::new(Ecn::Ce, 255));
        assert_eq!(find(&[&*other, &class, &hops].concat()), v6);

        for missing in [&tos, &ttl, &class, &other, &Vec::new()] {
            assert_eq!(find(missing), None);
        }
        let wrong = message(libc::IPPROTO_IP, libc::IP_TTL, &256_i32.to_ne_bytes());
        assert_eq!(find(&[&*tos, &wrong].concat()), None);
        let short = message(libc::IPPROTO_IP, libc::IP_TTL, &[1, 0]);
        assert_eq!(find(&[&*tos, &short].concat()), None);
    }

    #[test]
    fn a_length_is_found_among_others() {
        let size = message(libc::SOL_UDP, libc::UDP_GRO, &1_200_i32.to_ne_bytes());
        let tos = message(libc::IPPROTO_IP, libc::IP_TOS, &[2]);
        assert_eq!(find_size(&[&*tos, &size].concat()), Some(1_200));
        let negative = message(libc::SOL_UDP, libc::UDP_GRO, &(-1_i32).to_ne_bytes());
        let short = message(libc::SOL_UDP, libc::UDP_GRO, &[1]);
        for wrong in [&tos, &negative, &short, &Vec::new()] {
            assert_eq!(find_size(wrong), None);
        }
    }

    #[test]
    fn a_mark_is_of_the_family_of_the_peer() {
        for (to, level) in [
            ("192.0.2.1:5", libc::IPPROTO_IP),
            ("[::ffff:192.0.2.1]:5", libc::IPPROTO_IP),
            ("[2001:db8::1]:5", libc::IPPROTO_IPV6),
        ] {
            let (control, length) = mark(Ecn::Ce, to.parse().unwrap());
            let (found, _, content, rest) = split(&control[..length]).unwrap();
            assert_eq!((found, content), (level, &3_i32.to_ne_bytes()[..]), "{to}");
            assert!(rest.is_empty());
        }
    }
}

//! Reports of the network about datagrams that did not arrive, from the error queue of a socket: see
//! IP_RECVERR in ip(7) and IPV6_RECVERR in ipv6(7).

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::address::Address;
use crate::error::DeliveryError;
use crate::net::destination::{is_any, split};
use crate::net::{Undelivered, socket};
use crate::sys;

/// Room for the control messages of a report, in bytes: the report, the address of who sent it, and what
/// else the socket is asked to tell.
const CONTROL_MOST: usize = 512;

/// Who says so: a router or the peer, by ICMP. Reports of this machine itself are errors of the call
/// that sent the datagram.
const BY_ICMP: [u8; 2] = [2, 3];

/// Makes a socket collect reports. From then on any call on it may fail with the error of one.
///
/// # Errors
/// The system has none.
pub(super) fn watch(socket: BorrowedFd<'_>, addr: SocketAddr, is_dual: bool) -> io::Result<()> {
    if addr.is_ipv4() || is_dual && is_any(addr.ip()) {
        sys::enable(socket, libc::IPPROTO_IP, libc::IP_RECVERR)?;
    }
    if addr.is_ipv6() {
        sys::enable(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR)?;
    }
    Ok(())
}

/// Takes reports from the queue until one is by the network. Returns `None` if no such report is left.
pub(super) fn next(socket: impl AsFd) -> Option<Undelivered> {
    let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
    loop {
        let mut control = [0; CONTROL_MOST];
        let message = match sys::receive_message(socket.as_fd(), &mut [], &mut control, flags) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            message => message.ok()?,
        };
        let report = find(&control[..message.control]);
        let to = message.from.as_socket();
        if let Some((error, to)) = report.zip(to) {
            let to = Address::Udp(socket::canonical(to));
            return Some(Undelivered { to, error });
        }
    }
}

/// Finds the report in control messages.
fn find(mut control: &[u8]) -> Option<DeliveryError> {
    while let Some((level, kind, content, rest)) = split(control) {
        control = rest;
        let is_report = matches!(
            (level, kind),
            (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
        );
        if is_report {
            return read(content);
        }
    }
    None
}

/// Reads the structure `sock_extended_err`: number, origin, type, code, padding, information.
fn read(content: &[u8]) -> Option<DeliveryError> {
    let word = |at: usize| -> Option<u32> {
        let bytes = content.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(bytes))
    };
    let number = i32::try_from(word(0)?).ok()?;
    let is_by_icmp = BY_ICMP.contains(content.get(4)?);
    is_by_icmp.then(|| match number {
        libc::EMSGSIZE => DeliveryError::TooLong {
            mtu: word(8).filter(|mtu| *mtu > 0),
        },
        _ => DeliveryError::Reported(io::Error::from_raw_os_error(number)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(number: i32, origin: u8, information: u32) -> Vec<u8> {
        let words = [information, 0].map(u32::to_ne_bytes).concat();
        [&number.to_ne_bytes()[..], &[origin, 3, 3, 0], &words].concat()
    }

    #[test]
    fn a_report_is_read_if_the_network_made_it() {
        let told = |it: Option<DeliveryError>| format!("{:?}", it.unwrap());
        assert!(told(read(&report(libc::ECONNREFUSED, 2, 9))).contains("refused"));
        let long = told(read(&report(libc::EMSGSIZE, 3, 1_280)));
        assert_eq!(long, "TooLong { mtu: Some(1280) }");
        for origin in [0, 1, 4] {
            assert!(read(&report(libc::EMSGSIZE, origin, 0)).is_none());
        }
        let whole = report(libc::ECONNREFUSED, 2, 0);
        for length in 0..5 {
            assert!(read(&whole[..length]).is_none());
        }
        assert!(find(&whole).is_none());
    }
}

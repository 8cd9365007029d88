//! Groups of multicast: a socket that is bound to one joins it, by the interface that is wanted.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;

use socket2::{InterfaceIndexOrAddress, Socket};

use crate::config::{Config, UdpOptions};
use crate::net::destination::is_any;
use crate::{LOG_TARGET, sys};

/// Returns `addr` with the interface in it, if it is a group of IPv6 and an interface is wanted.
///
/// # Errors
/// The interface does not exist, or another one is in the address.
pub(super) fn in_scope(addr: SocketAddr, config: &Config) -> io::Result<SocketAddr> {
    let SocketAddr::V6(mut group) = addr else {
        return Ok(addr);
    };
    let wanted = wanted(&config.udp)?;
    if wanted == 0 || !group.ip().is_multicast() {
        return Ok(addr);
    }
    if group.scope_id() != 0 && group.scope_id() != wanted {
        let problem = "the address has another interface than the option has";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    }
    group.set_scope_id(wanted);
    Ok(group.into())
}

/// Sets what concerns the sending of datagrams, and what has to be set before a socket is bound.
///
/// # Errors
/// The system refuses an option.
pub(super) fn prepare(socket: &Socket, addr: SocketAddr, config: &Config) -> io::Result<()> {
    let udp = &config.udp;
    let ip = addr.ip();
    if udp.broadcast {
        socket.set_broadcast(true)?;
    }
    if let Some(ttl) = udp.ttl {
        set_ttl(socket, ip, config.dual_stack, ttl)?;
    }
    if !ip.is_multicast() {
        return Ok(());
    }

    if let Err(error) = sys::only_own_groups(socket.as_fd(), ip.is_ipv6()) {
        log::debug!(target: LOG_TARGET, "udp://{addr}: other programs decide too what comes: {error}");
    }
    if let Some(loopback) = udp.loopback {
        match ip {
            IpAddr::V4(_) => socket.set_multicast_loop_v4(loopback)?,
            IpAddr::V6(_) => socket.set_multicast_loop_v6(loopback)?,
        }
    }
    match (addr, wanted(udp)?) {
        (SocketAddr::V4(_), 0) => Ok(()),
        (SocketAddr::V4(_), interface) => sys::send_by(socket.as_fd(), interface),
        (SocketAddr::V6(group), _) => socket.set_multicast_if_v6(group.scope_id()),
    }
}

/// Joins the group that a socket is bound to, if it is. Does nothing for one that has joined already.
///
/// # Errors
/// It cannot be joined.
pub(super) fn join(socket: &Socket, addr: SocketAddr, udp: &UdpOptions) -> io::Result<()> {
    if !addr.ip().is_multicast() {
        return Ok(());
    }

    let interface = match addr {
        SocketAddr::V4(_) => wanted(udp)?,
        SocketAddr::V6(group) => group.scope_id(),
    };
    let joined = match (addr.ip(), udp.source) {
        (group, Some(source)) => sys::join_source(socket.as_fd(), group, source, interface),
        (IpAddr::V4(group), None) => {
            let any = InterfaceIndexOrAddress::Address(Ipv4Addr::UNSPECIFIED);
            let of = InterfaceIndexOrAddress::Index(interface);
            socket.join_multicast_v4_n(&group, if interface == 0 { &any } else { &of })
        }
        (IpAddr::V6(group), None) => socket.join_multicast_v6(&group, interface),
    };

    match joined {
        Err(error) if error.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
        Err(error) => Err(cannot_join(&error, interface)),
        Ok(()) => Ok(()),
    }
}

/// Joins the group of a socket that another program has bound, and may have joined.
///
/// # Errors
/// It cannot be joined.
pub(super) fn join_passed(socket: &Socket, addr: SocketAddr, udp: &UdpOptions) -> io::Result<()> {
    match join(socket, addr, udp) {
        // Linux says this of a source that is heard already.
        Err(error) if udp.source.is_some() && error.kind() == io::ErrorKind::AddrNotAvailable => {
            Ok(())
        }
        outcome => outcome,
    }
}

/// Says what may help.
fn cannot_join(error: &io::Error, interface: u32) -> io::Error {
    let help = match error.raw_os_error() {
        Some(libc::ENODEV | libc::EADDRNOTAVAIL | libc::ENETUNREACH) if interface == 0 => {
            "; name an interface, as in interface=eth0"
        }
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot join the group: {error}{help}"),
    )
}

/// Returns the number of the interface that is wanted, or 0.
fn wanted(udp: &UdpOptions) -> io::Result<u32> {
    let Some(interface) = &udp.interface else {
        return Ok(0);
    };
    let missing = |problem: String| io::Error::new(io::ErrorKind::NotFound, problem);
    match interface.parse::<IpAddr>() {
        Ok(ip) => sys::interface_with(ip)?
            .ok_or_else(|| missing(format!("no interface has the address {ip}"))),
        Err(_) => sys::interface_number(interface)
            .map_err(|error| missing(format!("interface {interface:?}: {error}"))),
    }
}

fn set_ttl(socket: &Socket, ip: IpAddr, is_dual: bool, ttl: u32) -> io::Result<()> {
    if ip.is_ipv6() {
        socket.set_unicast_hops_v6(ttl)?;
        socket.set_multicast_hops_v6(ttl)?;
    }
    if ip.is_ipv4() || (is_dual && is_any(ip)) {
        socket.set_ttl_v4(ttl)?;
        socket.set_multicast_ttl_v4(ttl)?;
    }
    Ok(())
}

//! Interfaces of this machine, and what a socket asks of them for groups of multicast.

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

#[cfg_attr(
    any(target_os = "linux", target_os = "android"),
    path = "groups_linux.rs"
)]
#[cfg_attr(
    not(any(target_os = "linux", target_os = "android")),
    path = "groups_other.rs"
)]
mod system;

pub(crate) use self::system::{join_source, only_own_groups, send_by};

/// Returns the number of the interface with this name.
///
/// # Errors
/// There is none.
pub(crate) fn interface_number(name: &str) -> io::Result<u32> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the name is live and ends with a NUL.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        number => Ok(number),
    }
}

/// Returns the number of the interface that has this address, if one has it.
///
/// # Errors
/// The system does not list its addresses now.
pub(crate) fn interface_with(ip: IpAddr) -> io::Result<Option<u32>> {
    let mut first = ptr::null_mut();
    // SAFETY: the pointer is to a live, writable pointer.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Err(io::Error::last_os_error());
    }

    let (mut at, mut found) = (first, None);
    while !at.is_null() && found.is_none() {
        // SAFETY: every entry of the list is valid until the list is freed, and so are its name and its
        // address, if it has one. An interface without a number is gone by now.
        unsafe {
            if address_of((*at).ifa_addr) == Some(ip) {
                let number = libc::if_nametoindex((*at).ifa_name);
                found = Some(number).filter(|number| *number != 0);
            }
            at = (*at).ifa_next;
        }
    }

    // SAFETY: the list came from getifaddrs, and nothing refers to it any more.
    unsafe { libc::freeifaddrs(first) };
    Ok(found)
}

/// Reads an address of IP.
///
/// # Safety
/// The pointer is null or to an address of the length that its family has.
unsafe fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    if address.is_null() {
        return None;
    }
    // SAFETY: the caller vouches for the address, and its family says what it is.
    unsafe {
        match i32::from((*address).sa_family) {
            libc::AF_INET => {
                let of = address.cast::<libc::sockaddr_in>().read_unaligned();
                Some(Ipv4Addr::from(u32::from_be(of.sin_addr.s_addr)).into())
            }
            libc::AF_INET6 => {
                let of = address.cast::<libc::sockaddr_in6>().read_unaligned();
                Some(Ipv6Addr::from(of.sin6_addr.s6_addr).into())
            }
            _ => None,
        }
    }
}

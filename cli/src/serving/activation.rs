//! Descriptors that a service manager passed, as systemd does for a socket unit.

use std::os::fd::{AsFd, OwnedFd};
use std::{env, fs, process};

use rustix::net::{AddressFamily, SocketAddrAny, SocketAddrUnix, SocketType, getsockname, sockopt};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// The number of the first passed descriptor.
const FIRST: i32 = 3;

/// The most descriptors that the warning names.
const NAMED_MOST: i32 = 16;

/// The environment variables that describe them. Children have other process ids and do not inherit
/// the descriptors, so they must not see these.
pub(crate) const VARIABLES: [&str; 4] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
];

/// Returns a warning if descriptors were passed to this process. They are not served, so their
/// clients wait in vain.
pub(crate) fn warning() -> Option<String> {
    let number = |name| env::var(name).ok()?.trim().parse::<i64>().ok();
    if number("LISTEN_PID")? != i64::from(process::id()) {
        return None;
    }

    let count = i32::try_from(number("LISTEN_FDS")?).unwrap_or(i32::MAX);
    if count <= 0 {
        return None;
    }

    let named: Vec<_> = (FIRST..FIRST.saturating_add(count.min(NAMED_MOST)))
        .map(describe)
        .collect();
    let more = match count - NAMED_MOST {
        1.. => format!(" and {} more", count - NAMED_MOST),
        _ => String::new(),
    };

    Some(format!(
        "passed descriptors (LISTEN_FDS={count}) are not served, and their clients wait without a \
         reply: {}{more}; use --listen to choose where to serve",
        named.join(", ")
    ))
}

/// Describes a descriptor of this process by its number, kind and address.
fn describe(number: i32) -> String {
    let found = copy_of(number).and_then(|copy| describe_socket(&copy));
    let found = found.or_else(|| {
        let target = fs::read_link(format!("/proc/self/fd/{number}")).ok()?;
        Some(target.display().to_string())
    });
    match found {
        Some(found) => format!("{number} is {found}"),
        None => format!("{number} is not open"),
    }
}

/// Duplicates a descriptor, to look at it safely.
fn copy_of(number: i32) -> Option<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    pidfd_getfd(this, number, PidfdGetfdFlags::empty()).ok()
}

fn describe_socket(socket: &impl AsFd) -> Option<String> {
    let kind = sockopt::socket_type(socket).ok()?;
    let address = getsockname(socket).ok()?;

    let at = if address.address_family() == AddressFamily::UNIX {
        let scheme = match kind {
            SocketType::STREAM => "unix",
            SocketType::DGRAM => "unixgram",
            _ => "unix (seqpacket)",
        };
        format!("{scheme}://{}", unix_path(address))
    } else {
        let scheme = match kind {
            SocketType::STREAM => "tcp",
            SocketType::DGRAM => "udp",
            _ => "another protocol",
        };
        let at = std::net::SocketAddr::try_from(address).ok()?;
        format!("{scheme}://{at}")
    };

    let accepts = sockopt::socket_acceptconn(socket).unwrap_or(false);
    Some(match (kind, accepts) {
        (SocketType::STREAM, false) => format!("a connection of {at}"),
        _ => at,
    })
}

fn unix_path(address: SocketAddrAny) -> String {
    let Ok(address) = SocketAddrUnix::try_from(address) else {
        return String::new();
    };
    match (address.path(), address.abstract_name()) {
        (Some(path), _) => path.to_string_lossy().into_owned(),
        (None, Some(name)) => format!("@{}", String::from_utf8_lossy(name)),
        (None, None) => String::new(),
    }
}

//! Explanations of system errors for the user, with advice on what helps.

use std::io;

use libc::{
    EACCES, EADDRNOTAVAIL, EAGAIN, ECONNREFUSED, EHOSTUNREACH, EMFILE, ENETUNREACH, ENFILE,
    ENOBUFS, ENOENT, ENOMEM, EPERM, ETIMEDOUT,
};

use crate::outbound::{MORE_DESCRIPTORS, descriptors_most};
use serveloop::{CloseReason, Deadline};

/// Advice for a connection attempt that was not answered in time.
pub(crate) const TIMED_OUT: &str = "no server answers there: check the address, whether a firewall drops packets, and whether \
     the server accepts connections; --timeout allows more time";

/// Describes why a connection of the load could not be made or was lost, with advice if there is
/// any.
pub(crate) fn told(reason: &CloseReason) -> String {
    let advice = match reason {
        CloseReason::ConnectFailed(error) => advice_on_connecting(error),
        CloseReason::TimedOut(Deadline::Connect) => Some(TIMED_OUT.to_owned()),
        CloseReason::Io(error) => advice(error),
        _ => None,
    };
    match advice {
        Some(advice) => format!("{reason}: {advice}"),
        None => reason.to_string(),
    }
}

/// Returns the same error, with advice if there is any.
pub(crate) fn explained(error: io::Error) -> io::Error {
    match advice(&error) {
        Some(advice) => io::Error::new(error.kind(), format!("{error}: {advice}")),
        None => error,
    }
}

/// Returns advice on an error of `connect`, some of which mean something else in other calls.
fn advice_on_connecting(error: &io::Error) -> Option<String> {
    let text = match error.raw_os_error()? {
        EADDRNOTAVAIL => {
            "no local port is free. Each connection to one address takes a port, and keeps it for a \
             minute after it was closed (TIME_WAIT): wait for a minute between runs, use a shorter \
             --duration or fewer --connections, allow the system more ports (sysctl \
             net.ipv4.ip_local_port_range), or measure over unix://"
        }
        ECONNREFUSED => {
            "no server listens there, or its queue is full: start the server first, and check the address"
        }
        ENOENT => "there is no such socket file: start the server first, and check the path",
        ETIMEDOUT => TIMED_OUT,
        ENETUNREACH | EHOSTUNREACH => {
            "this machine has no route to that address: check the address, the route and the interface"
        }
        EACCES | EPERM => {
            "the system does not allow it: a Unix socket needs the permission to write to its file and \
             to enter its directories; a firewall or a route may forbid an address"
        }
        EAGAIN => {
            "the server's queue of new connections is full: it accepts too slowly, so use fewer \
             --connections, or give it a longer queue"
        }
        _ => return advice(error),
    };
    Some(text.to_owned())
}

/// Returns advice on an error of any other call.
fn advice(error: &io::Error) -> Option<String> {
    match error.raw_os_error()? {
        EMFILE => Some(format!(
            "this process may have {}, and each connection takes one: use fewer --connections, or \
             {MORE_DESCRIPTORS}",
            descriptors_most()
        )),
        ENFILE => Some(
            "the whole system has no descriptor left: use fewer --connections, or raise sysctl fs.file-max"
                .to_owned(),
        ),
        ENOBUFS | ENOMEM => Some(
            "the system has no memory left for sockets or processes: use fewer --connections"
                .to_owned(),
        ),
        EAGAIN => Some(
            "the system allows no more processes or threads: end others, or raise the limit (ulimit -u)"
                .to_owned(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_helps_follows_what_the_system_says() {
        let connect = |code| {
            let error = io::Error::from_raw_os_error(code);
            told(&CloseReason::ConnectFailed(error))
        };
        for (code, part) in [
            (EADDRNOTAVAIL, "TIME_WAIT"),
            (ECONNREFUSED, "no server listens there"),
            (ENOENT, "no such socket file"),
            (ETIMEDOUT, "--timeout"),
            (ENETUNREACH, "route"),
            (EHOSTUNREACH, "route"),
            (EACCES, "does not allow it"),
            (EPERM, "firewall"),
            (EAGAIN, "queue"),
            (EMFILE, "ulimit -n"),
            (ENFILE, "fs.file-max"),
            (ENOBUFS, "no memory left"),
        ] {
            let text = connect(code);
            assert!(text.starts_with("cannot connect: "), "{text}");
            assert!(text.contains(&format!("(os error {code}): ")), "{text}");
            assert!(text.contains(part), "{text}");
        }

        assert!(!connect(libc::EINVAL).contains("): "));
        let late = told(&CloseReason::TimedOut(Deadline::Connect));
        assert!(late.contains("--timeout"), "{late}");
    }

    #[test]
    fn the_kind_of_an_error_stays() {
        let error = explained(io::Error::from_raw_os_error(EAGAIN));
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(error.to_string().contains("ulimit -u"), "{error}");
        let other = explained(io::Error::other("as it is"));
        assert_eq!(other.to_string(), "as it is");
    }
}

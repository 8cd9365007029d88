//! A listener's own options on top of the configuration, and addresses of both families.

use std::io;
use std::net::Ipv4Addr;

use crate::LOG_TARGET;
use crate::address::{Address, Listen, ListenOptions};
use crate::config::{Config, ConfigError};
use crate::net::socket::Bound;

/// Binds a listener by calling `bind` with its address and its configuration. If the address is that
/// of both families and the system has only IPv4, binds all addresses of IPv4.
///
/// # Errors
/// Returns `InvalidInput` if the options do not fit the address, and otherwise the error of `bind`.
pub(crate) fn bind_listen<T>(
    listen: &Listen,
    config: &Config,
    mut bind: impl FnMut(&Address, &Config) -> io::Result<T>,
) -> io::Result<T> {
    let config = config_of(listen, config)?;

    let error = match bind(listen.address(), &config) {
        Err(error) if listen.is_every() && may_lack_ipv6(&error) => error,
        outcome => return outcome,
    };

    let Ok(bound) = bind(&all_of_ipv4(listen.address()), &config) else {
        return Err(error);
    };
    log::info!(target: LOG_TARGET, "{listen}: IPv4 only: {error}");
    Ok(bound)
}

/// Checks a listener as [`bind_socket`] does, as far as that is possible without a socket.
///
/// # Errors
/// Returns what it would return.
pub(crate) fn check_listen(listen: &Listen, config: &Config) -> io::Result<()> {
    config_of(listen, config)?;
    Bound::check(listen.address())
}

/// Returns the configuration of a listener, or `InvalidInput` if its options do not fit its address or the
/// configuration.
fn config_of(listen: &Listen, config: &Config) -> io::Result<Config> {
    listen.check()?;
    let mut config = with_options(config, listen.options());
    config.dual_stack |= listen.is_every();
    config.validate().map_err(|error| about(listen, &error))?;
    if listen.address().is_datagram() && !config.sessions {
        listen.check_lasting()?;
    }
    Ok(config)
}

/// Binds every address of a place that can be bound.
///
/// # Errors
/// None can be bound.
pub(crate) fn bind_one_of(place: &[Listen], config: &Config) -> io::Result<Vec<Bound>> {
    let (mut bound, mut failed) = (Vec::new(), Vec::new());
    for listen in place {
        match bind_socket(listen, config) {
            Ok(socket) => bound.push(socket),
            Err(error) => failed.push(error),
        }
    }

    match failed.first() {
        Some(first) if bound.is_empty() => {
            let problems: Vec<_> = failed.iter().map(io::Error::to_string).collect();
            Err(io::Error::new(first.kind(), problems.join("; ")))
        }
        _ => {
            failed
                .iter()
                .for_each(|error| log::warn!(target: LOG_TARGET, "{error}"));
            Ok(bound)
        }
    }
}

/// Binds a socket for a listener, or takes over the one that was passed for it.
///
/// # Errors
/// Fails like [`bind_listen`].
pub(crate) fn bind_socket(listen: &Listen, config: &Config) -> io::Result<Bound> {
    let Some(passed) = listen.socket() else {
        return bind_listen(listen, config, Bound::new);
    };
    let backlog = listen.options().backlog;
    bind_listen(listen, config, |at, config| {
        Bound::adopt(passed, at, config, backlog)
    })
}

/// Names the listener whose options contradict each other or the configuration.
fn about(listen: &Listen, error: &ConfigError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{listen}: {error}"))
}

/// Returns whether a failure to bind may be due to the lack of IPv6. A port that is taken in one
/// family must not be served in the other alone.
fn may_lack_ipv6(error: &io::Error) -> bool {
    use io::ErrorKind::{AddrInUse, InvalidInput, PermissionDenied};
    !matches!(error.kind(), AddrInUse | InvalidInput | PermissionDenied)
}

fn all_of_ipv4(address: &Address) -> Address {
    let port = address.socket_addr().map_or(0, |addr| addr.port());
    let all = (Ipv4Addr::UNSPECIFIED, port).into();
    if address.is_datagram() {
        Address::Udp(all)
    } else {
        Address::Tcp(all)
    }
}

/// Returns the configuration with the options of a listener in place of those for all.
fn with_options(config: &Config, options: &ListenOptions) -> Config {
    let group = options.group.as_ref().or(config.socket_group.as_ref());
    let proxies = options.trusted_proxies.as_ref();
    let proxies = proxies.unwrap_or(&config.trusted_proxies);
    Config {
        dual_stack: options.dual_stack.unwrap_or(config.dual_stack),
        keepalive: match options.keepalive {
            Some(idle) => (!idle.is_zero()).then_some(idle),
            None => config.keepalive,
        },
        sessions: options.sessions.unwrap_or(config.sessions),
        backlog: options.backlog.unwrap_or(config.backlog),
        nodelay: options.nodelay.unwrap_or(config.nodelay),
        reuse_address: options.reuse_address.unwrap_or(config.reuse_address),
        reuse_port: options.reuse_port.unwrap_or(config.reuse_port),
        send_buffer: options.send_buffer.or(config.send_buffer),
        receive_buffer: options.receive_buffer.or(config.receive_buffer),
        socket_mode: options.mode.unwrap_or(config.socket_mode),
        socket_group: group.cloned(),
        limits: config.limits.with(options),
        udp: config.udp.with(options),
        trusted_proxies: proxies.clone(),
        ..config.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::time::Duration;

    use super::*;
    use crate::config::{Limits, UdpOptions};

    /// Binds as a system does that fails with these kinds, one for each attempt.
    fn bind(uri: &str, failures: &[ErrorKind]) -> (io::Result<String>, Vec<String>) {
        let (mut tried, mut failures) = (Vec::new(), failures.iter());
        let outcome = bind_listen(&uri.parse().unwrap(), &Config::default(), |at, config| {
            let shown = format!("{at} {}", config.dual_stack);
            tried.push(shown.clone());
            match failures.next() {
                Some(kind) => Err(io::Error::new(*kind, shown)),
                None => Ok(shown),
            }
        });
        (outcome, tried)
    }

    #[test]
    fn both_families_are_ipv4_where_there_is_no_ipv6() {
        let lacking = [ErrorKind::AddrNotAvailable];
        for scheme in ["tcp", "udp"] {
            let (outcome, tried) = bind(&format!("{scheme}://:7"), &lacking);
            assert_eq!(tried[0], format!("{scheme}://[::]:7 true"));
            assert_eq!(outcome.unwrap(), format!("{scheme}://0.0.0.0:7 true"));

            let (outcome, tried) = bind(&format!("{scheme}://*:7"), &[]);
            assert_eq!(outcome.unwrap(), format!("{scheme}://[::]:7 true"));
            assert_eq!(tried.len(), 1);

            let (outcome, _) = bind(&format!("{scheme}://[::]:7?dual-stack=true"), &lacking);
            let error = outcome.unwrap_err();
            assert_eq!(error.to_string(), format!("{scheme}://[::]:7 true"));
        }
    }

    #[test]
    fn a_port_that_is_taken_is_not_served_in_one_family() {
        let (outcome, tried) = bind("tcp://:7", &[ErrorKind::AddrInUse]);
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(tried.len(), 1);

        let (outcome, tried) = bind("tcp://:7", &[ErrorKind::Other; 2]);
        assert_eq!(outcome.unwrap_err().to_string(), "tcp://[::]:7 true");
        assert_eq!(tried.len(), 2);
    }

    #[test]
    fn options_replace_what_is_for_all() {
        let usual = Config {
            keepalive: Some(Duration::from_secs(9)),
            socket_group: Some("all".to_owned()),
            trusted_proxies: "unix".parse().unwrap(),
            ..Config::default()
        };
        assert_eq!(with_options(&usual, &ListenOptions::default()), usual);

        let options = ListenOptions {
            dual_stack: Some(true),
            keepalive: Some(Duration::ZERO),
            sessions: Some(true),
            backlog: Some(7),
            nodelay: Some(false),
            reuse_address: Some(false),
            reuse_port: Some(true),
            send_buffer: Some(1),
            receive_buffer: Some(2),
            mode: Some(0o660),
            group: Some("one".to_owned()),
            trusted_proxies: Some("10.0.0.0/8".parse().unwrap()),
            idle_timeout: Some(Duration::ZERO),
            interface: Some("eth0".to_owned()),
            source: Some(Ipv4Addr::LOCALHOST.into()),
            ttl: Some(3),
            loopback: Some(false),
            broadcast: Some(true),
            packet_info: Some(true),
            gro: Some(true),
            ..ListenOptions::default()
        };
        let udp = UdpOptions {
            interface: Some("eth0".to_owned()),
            source: Some(Ipv4Addr::LOCALHOST.into()),
            ttl: Some(3),
            loopback: Some(false),
            broadcast: true,
            packet_info: true,
            gro: true,
        };
        let limits = Limits {
            idle_timeout: None,
            ..Limits::default()
        };
        let expected = Config {
            dual_stack: true,
            keepalive: None,
            sessions: true,
            backlog: 7,
            nodelay: false,
            reuse_address: false,
            reuse_port: true,
            send_buffer: Some(1),
            receive_buffer: Some(2),
            socket_mode: 0o660,
            socket_group: Some("one".to_owned()),
            limits,
            udp,
            trusted_proxies: "10.0.0.0/8".parse().unwrap(),
            ..Config::default()
        };
        assert_eq!(with_options(&usual, &options), expected);
    }

    #[test]
    fn options_that_do_not_fit_are_not_bound() {
        let address: Address = "unix:///run/x".parse().unwrap();
        let options = ListenOptions {
            keepalive: Some(Duration::from_secs(1)),
            ..ListenOptions::default()
        };
        let listen = Listen::new(address, options);
        let error = bind_listen(&listen, &Config::default(), |_, _| Ok(())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let said = "\"unix:///run/x?keepalive=1s\": keepalive is for tcp";
        assert_eq!(error.to_string(), said);
    }
}

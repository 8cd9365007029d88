//! One URI of `--listen`: the schemes and options that are the command's and not the library's.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::{io, slice};

use serveloop::net::{ListenOptions, OtherOptions};
use serveloop::service::activation::Inherited;
use serveloop::{Address, Config, Listen, Server};

use crate::failure::Failure;
use crate::serve::manager::Manager;
use crate::serving::{ListenerTls, TLS_KEYS};

const TLS: &str = "tls://";
const TCP: &str = "tcp://";
const UDP: &str = "udp://";
const SYSTEMD: &str = "systemd://";
const FD: &str = "fd://";

/// What a URI says.
pub(super) struct Written {
    /// The addresses of each place. A name may have several, and the server needs only one of them to
    /// work. Each passed socket is a place.
    pub(super) places: Vec<Vec<Listen>>,
    pub(super) of_tls: OtherOptions,
    pub(super) others: OtherOptions,
}

/// Reads a URI and resolves its address. The address of `tls://` is one of TCP. `others` are the names
/// of options that are neither the library's nor for TLS. The library's have to fit `config`.
pub(super) fn resolve(
    uri: &str,
    others: &[&str],
    config: &Config,
    manager: &mut Manager,
) -> Result<Written, Failure> {
    let keys: Vec<&str> = others.iter().copied().chain(TLS_KEYS).collect();
    let found = match passed(uri, &keys, manager)? {
        Some(found) => found,
        None if has_name(uri) && !manager.looks_names_up() => unsought(uri, &keys)?,
        None => opened(uri, &keys)?,
    };
    let Found {
        places,
        unseen,
        others,
    } = found;

    let listens = || places.iter().flatten().map(Listen::options);
    let mut options = listens().chain(&unseen);
    if options.any(|options| options.trusted_proxies.is_some()) {
        let problem = format!("{uri:?}: trusted-proxies is given as proxy and trust");
        return Err(Failure::Usage(problem));
    }
    places
        .iter()
        .try_for_each(|place| fits(uri, place, config))?;
    if let Some(options) = &unseen {
        fits(uri, &of_each_kind(options), config)?;
    }

    let is_of_tls = |(name, _): &(String, String)| TLS_KEYS.contains(&name.as_str());
    let (of_tls, others) = others.into_iter().partition(is_of_tls);
    Ok(Written {
        places,
        of_tls,
        others,
    })
}

/// What a URI names.
struct Found {
    /// The addresses of each place.
    places: Vec<Vec<Listen>>,
    /// The options of sockets that are passed to another process than this one.
    unseen: Option<ListenOptions>,
    /// Options that are not the library's.
    others: OtherOptions,
}

/// Checks that a server with this configuration can listen at one of the addresses of a place.
fn fits(uri: &str, place: &[Listen], config: &Config) -> Result<(), Failure> {
    let mut first = None;
    for listen in place {
        match Server::check(slice::from_ref(listen), config) {
            Ok(()) => return Ok(()),
            Err(error) => first = first.or(Some((listen, error))),
        }
    }
    let Some((listen, error)) = first else {
        return Ok(());
    };
    let problem = error.to_string();
    let problem = problem
        .strip_prefix(&format!("{listen}: "))
        .unwrap_or(&problem);
    let named = format!("{uri:?}: {problem}");
    Err(Failure::System(io::Error::new(error.kind(), named)))
}

/// Returns a listener of each kind with these options, for a socket whose kind is not known.
fn of_each_kind(options: &ListenOptions) -> Vec<Listen> {
    let ip = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let path = PathBuf::from("/socket");
    let kinds = [
        Address::Tcp(ip),
        Address::Udp(ip),
        Address::Unix(path.clone()),
        Address::Unixgram(path),
    ];
    let listens = kinds.map(|address| Listen::new(address, options.clone()));
    listens.into()
}

/// Finds the passed sockets that a URI names. Returns `None` if it names none.
fn passed(uri: &str, keys: &[&str], manager: &mut Manager) -> Result<Option<Found>, Failure> {
    if !is_passed(uri) && !manager.has_handed_on(uri) {
        return Ok(None);
    }
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let bad = |problem: &dyn Display| Failure::Usage(format!("{uri:?}: {problem}"));
    let parsed = ListenOptions::parse_query(query, keys);
    let (options, others) = parsed.map_err(|error| bad(&error))?;
    let number = place.strip_prefix(FD).map(|number| {
        let expected = "expected the number of a descriptor, for example fd://3";
        let number = number.parse().ok().filter(|number: &i32| *number >= 0);
        number.ok_or_else(|| bad(&expected))
    });

    if manager.is_elsewhere() {
        number.transpose()?;
        options.check_passed().map_err(|error| bad(&error))?;
        return Ok(Some(Found {
            places: Vec::new(),
            unseen: Some(options),
            others,
        }));
    }
    let each = |sockets: Vec<_>| sockets.into_iter().map(|socket| vec![socket]).collect();
    let sockets: Vec<Vec<&Inherited>> = if manager.has_handed_on(uri) {
        manager.handed_on(uri)
    } else if let Some(number) = number.transpose()? {
        each(vec![manager.numbered(uri, number)?])
    } else {
        let name = place.strip_prefix(SYSTEMD).unwrap_or_default();
        each(manager.named(uri, name)?)
    };

    let listen = |socket: &&Inherited| socket.listen_with(options.clone());
    let place = |sockets: &Vec<_>| sockets.iter().map(listen).collect();
    let places: Result<Vec<_>, io::Error> = sockets.iter().map(place).collect();
    let places = places.map_err(|error| {
        Failure::System(io::Error::new(error.kind(), format!("{uri}: {error}")))
    })?;
    Ok(Some(Found {
        places,
        unseen: None,
        others,
    }))
}

/// Returns whether the host of a URI is a name, whose addresses have to be asked for.
pub(super) fn has_name(uri: &str) -> bool {
    let place = uri.split_once('?').map_or(uri, |(place, _)| place);
    let place = match place.strip_prefix(TLS) {
        Some(rest) => format!("{TCP}{rest}"),
        None => place.to_owned(),
    };
    let rest = [TCP, UDP]
        .iter()
        .find_map(|scheme| place.strip_prefix(scheme));
    let port = rest.and_then(|rest| rest.rsplit_once(':'));
    // Without a port it is no URI, and says so without being looked up.
    let has_port = port.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    has_port && place.parse::<Listen>().is_err()
}

/// Reads the options of a URI whose name is not looked up.
fn unsought(uri: &str, keys: &[&str]) -> Result<Found, Failure> {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let parsed = ListenOptions::parse_query(query, keys);
    let (_, others) = parsed.map_err(|error| Failure::Usage(format!("{uri:?}: {error}")))?;
    // What fits depends on the addresses.
    Ok(Found {
        places: Vec::new(),
        unseen: None,
        others,
    })
}

/// Resolves a URI of a socket that the server opens itself.
fn opened(uri: &str, keys: &[&str]) -> Result<Found, Failure> {
    let rest = uri.strip_prefix(TLS);
    let text = rest.map_or_else(|| uri.to_owned(), |rest| format!("{TCP}{rest}"));

    let resolved = Listen::resolve_with(&text, keys);
    let (listens, given) = resolved.map_err(|error| match Failure::of_input(error) {
        Failure::Usage(problem) if rest.is_some() => Failure::Usage(problem.replacen(TCP, TLS, 1)),
        // The library knows nothing of our scheme.
        Failure::Usage(problem) => {
            let problem = problem.replacen("expected tcp, udp", "expected tcp, tls, udp", 1);
            let more =
                "unix, unixgram or vsock, or systemd://NAME or fd://N for a socket that was passed";
            Failure::Usage(problem.replacen("unix, unixgram or vsock", more, 1))
        }
        other => other,
    })?;

    Ok(Found {
        places: vec![listens],
        unseen: None,
        others: given,
    })
}

/// Returns whether a URI names sockets that are passed to the process that serves.
pub(super) fn is_passed(uri: &str) -> bool {
    uri.starts_with(SYSTEMD) || uri.starts_with(FD)
}

/// Loads what the URI of a listener says about TLS.
pub(super) fn tls(uri: &str, given: &[(String, String)]) -> Result<Option<ListenerTls>, Failure> {
    if uri.starts_with(TLS) || (is_passed(uri) && !given.is_empty()) {
        return ListenerTls::load(uri, given).map(Some);
    }
    match given.first() {
        Some((name, _)) => {
            let problem = format!("{uri:?}: {name} is for tls://HOST:PORT");
            Err(Failure::Usage(problem))
        }
        None => Ok(None),
    }
}

/// Returns the first of the `names` that is given more than once.
pub(super) fn given_twice<'a>(given: &[(String, String)], names: &[&'a str]) -> Option<&'a str> {
    let count = |name: &str| given.iter().filter(|(known, _)| known == name).count();
    names.iter().copied().find(|name| count(name) > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_looked_up() {
        for uri in [
            "tcp://localhost:1",
            "udp://edge.example.test:1?ttl=5",
            "tls://edge.example.test:1?cert=c.pem&key=k.pem",
            "tcp://[fe80::1%eth0]:1",
        ] {
            assert!(has_name(uri), "{uri}");
        }
        for uri in [
            "tcp://127.0.0.1:1",
            "tls://[::1]:1",
            "tls://:1?cert=c.pem",
            "udp://*:1",
            "unix:///run/name:1",
            "vsock://:1",
            "fd://3",
            "tcp://name",
            "tcp://name:port",
            "name:1",
        ] {
            assert!(!has_name(uri), "{uri}");
        }
    }
}

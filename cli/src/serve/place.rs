//! One URI of `--listen`: the schemes and options that are the command's and not the library's.

use std::fmt::Display;
use std::io;

use serveloop::Listen;
use serveloop::net::{ListenOptions, OtherOptions};
use serveloop::service::activation::Inherited;

use crate::failure::Failure;
use crate::serve::manager::Manager;
use crate::serving::{ListenerTls, TLS_KEYS};

const TLS: &str = "tls://";
const TCP: &str = "tcp://";
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
/// of options that are neither the library's nor for TLS.
pub(super) fn resolve(
    uri: &str,
    others: &[&str],
    manager: &mut Manager,
) -> Result<Written, Failure> {
    let keys: Vec<&str> = others.iter().copied().chain(TLS_KEYS).collect();
    let (places, given) = match passed(uri, &keys, manager)? {
        Some(found) => found,
        None => opened(uri, &keys)?,
    };

    let mut listens = places.iter().flatten();
    if listens.any(|listen| listen.options().trusted_proxies.is_some()) {
        let problem = format!("{uri:?}: trusted-proxies is given as proxy and trust");
        return Err(Failure::Usage(problem));
    }

    let is_of_tls = |(name, _): &(String, String)| TLS_KEYS.contains(&name.as_str());
    let (of_tls, others) = given.into_iter().partition(is_of_tls);
    Ok(Written {
        places,
        of_tls,
        others,
    })
}

/// The addresses of each place of a URI, and options that are not the library's.
type Found = (Vec<Vec<Listen>>, OtherOptions);

/// Finds the passed sockets that a URI names. Returns `None` if it names none.
fn passed(uri: &str, keys: &[&str], manager: &mut Manager) -> Result<Option<Found>, Failure> {
    let (place, query) = uri.split_once('?').unwrap_or((uri, ""));
    let (name, number) = (place.strip_prefix(SYSTEMD), place.strip_prefix(FD));
    let bad = |problem: &dyn Display| Failure::Usage(format!("{uri:?}: {problem}"));
    let parsed = || ListenOptions::parse_query(query, keys).map_err(|error| bad(&error));
    let each = |sockets: Vec<_>| sockets.into_iter().map(|socket| vec![socket]).collect();

    let (sockets, (options, others)): (Vec<Vec<&Inherited>>, _) = match (name, number) {
        _ if manager.has_handed_on(uri) => {
            let options = parsed()?;
            (manager.handed_on(uri), options)
        }
        (_, Some(number)) => {
            let expected = "expected the number of a descriptor, for example fd://3";
            let options = parsed()?;
            let number = number.parse().ok().filter(|number| *number >= 0);
            let number = number.ok_or_else(|| bad(&expected))?;
            (each(vec![manager.numbered(uri, number)?]), options)
        }
        (Some(name), None) => {
            let options = parsed()?;
            (each(manager.named(uri, name)?), options)
        }
        (None, None) => return Ok(None),
    };

    let listen = |socket: &&Inherited| socket.listen_with(options.clone());
    let place = |sockets: &Vec<_>| sockets.iter().map(listen).collect();
    let places: Result<Vec<_>, io::Error> = sockets.iter().map(place).collect();
    let places = places.map_err(|error| {
        Failure::System(io::Error::new(error.kind(), format!("{uri}: {error}")))
    })?;
    Ok(Some((places, others)))
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
            let more = "unix or unixgram, or systemd://NAME or fd://N for a socket that was passed";
            Failure::Usage(problem.replacen("unix or unixgram", more, 1))
        }
        other => other,
    })?;

    Ok((vec![listens], given))
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

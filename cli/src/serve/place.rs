//! One URI of `--listen`: the schemes and options that are the command's and not the library's.

use serveloop::Listen;
use serveloop::net::OtherOptions;

use crate::failure::Failure;
use crate::serving::{ListenerTls, TLS_KEYS};

const TLS: &str = "tls://";
const TCP: &str = "tcp://";

/// What a URI says.
pub(super) struct Written {
    pub(super) listens: Vec<Listen>,
    pub(super) of_tls: OtherOptions,
    pub(super) others: OtherOptions,
}

/// Reads a URI and resolves its address. A name may have several, and the server needs only one of
/// them to work. The address of `tls://` is one of TCP. `others` are the names of options that are
/// neither the library's nor for TLS.
pub(super) fn resolve(uri: &str, others: &[&str]) -> Result<Written, Failure> {
    let keys: Vec<&str> = others.iter().copied().chain(TLS_KEYS).collect();
    let rest = uri.strip_prefix(TLS);
    let text = rest.map_or_else(|| uri.to_owned(), |rest| format!("{TCP}{rest}"));

    let resolved = Listen::resolve_with(&text, &keys);
    let (listens, given) = resolved.map_err(|error| match Failure::of_input(error) {
        Failure::Usage(problem) if rest.is_some() => Failure::Usage(problem.replacen(TCP, TLS, 1)),
        // The library knows nothing of our scheme.
        Failure::Usage(problem) => {
            Failure::Usage(problem.replacen("expected tcp, udp", "expected tcp, tls, udp", 1))
        }
        other => other,
    })?;

    if listens
        .iter()
        .any(|listen| listen.options().trusted_proxies.is_some())
    {
        let problem = format!("{uri:?}: trusted-proxies is given as proxy and trust");
        return Err(Failure::Usage(problem));
    }

    let is_of_tls = |(name, _): &(String, String)| TLS_KEYS.contains(&name.as_str());
    let (of_tls, others) = given.into_iter().partition(is_of_tls);
    Ok(Written {
        listens,
        of_tls,
        others,
    })
}

/// Loads what the URI of a listener says about TLS.
pub(super) fn tls(uri: &str, given: &[(String, String)]) -> Result<Option<ListenerTls>, Failure> {
    if uri.starts_with(TLS) {
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

//! Which pages of a browser may talk to this server.
//!
//! A page of any site can make its visitors' browsers connect to a server on their own machine. It says
//! where it comes from (`Origin`), and the browser says what it takes the server for (`Host`). Both are the
//! same for our own page. They are the same, too, for a page whose name was made to lead to this
//! machine (DNS rebinding), so what changes something needs a host that no name server can forge.

use std::net::IpAddr;

/// Returns whether a request comes from a page of this server, or from no page at all. `origin` and `host`
/// are the fields of the request.
pub(super) fn is_same_origin(origin: Option<&str>, host: &str) -> bool {
    let Some(origin) = origin else {
        return true;
    };
    let rest = origin.strip_prefix("http://");
    let rest = rest.or_else(|| origin.strip_prefix("https://"));
    rest.is_some_and(|rest| !host.is_empty() && rest.eq_ignore_ascii_case(host))
}

/// Returns whether no name server has a say in where `host` leads: it is an IP address or localhost.
pub(super) fn is_unforgeable(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let address = rest.split_once(']').map_or(rest, |(address, _)| address);
        return address.parse::<IpAddr>().is_ok();
    }
    let name = host.split_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_page_and_no_page_are_of_this_origin() {
        for (origin, host, expected) in [
            (None, "127.0.0.1:9100", true),
            (Some("http://127.0.0.1:9100"), "127.0.0.1:9100", true),
            (
                Some("https://status.example.org"),
                "status.example.org",
                true,
            ),
            (Some("http://LOCALHOST:9100"), "localhost:9100", true),
            (Some("http://127.0.0.1:8080"), "127.0.0.1:9100", false),
            (Some("http://evil.example"), "127.0.0.1:9100", false),
            (
                Some("http://127.0.0.1:9100.evil.example"),
                "127.0.0.1:9100",
                false,
            ),
            (Some("null"), "127.0.0.1:9100", false),
            (Some("null"), "null", false),
            (Some("file://"), "", false),
            (Some("http://"), "", false),
            (Some(""), "", false),
        ] {
            assert_eq!(is_same_origin(origin, host), expected, "{origin:?} {host}");
        }
    }

    #[test]
    fn names_can_be_forged_and_addresses_not() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9100",
            "[::1]:9100",
            "[::1]",
            "localhost:1",
            "10.0.0.1",
        ] {
            assert!(is_unforgeable(host), "{host}");
        }
        for host in [
            "evil.example:9100",
            "",
            "localhost.evil.example",
            "[evil]",
            "127.0.0.1.evil",
            "::1:9",
        ] {
            assert!(!is_unforgeable(host), "{host}");
        }
    }
}

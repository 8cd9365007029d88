//! The authority of a URL, and the zones of IPv6 addresses in it.

use std::ops::Range;

/// Returns the range in `text` of a URL's authority, which says where its server is. After a
/// scheme, one slash before it is enough; without a scheme, it needs two.
pub(crate) fn authority(text: &str) -> Option<Range<usize>> {
    let is_slash = |letter| matches!(letter, '/' | '\\');
    let (scheme, slashes) = match text.split_once(':') {
        Some((scheme, rest)) if !scheme.contains(['/', '?', '#', '[']) => (scheme.len() + 1, rest),
        _ => (0, text),
    };
    let rest = slashes.trim_start_matches(is_slash);
    let count = slashes.len() - rest.len();
    let least = if scheme > 0 { 1 } else { 2 };

    let start = scheme + count;
    let length = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    (count >= least).then_some(start..start + length)
}

/// Splits a URL into the URL without the zone of its IPv6 address, and the zone. The zone is
/// written as in `[fe80::1%25eth0]` or `[fe80::1%eth0]`.
pub(crate) fn split_zone(text: &str) -> (String, Option<String>) {
    let found = || {
        let at = authority(text)?;
        let (before, literal) = text[at.clone()].split_once('[')?;
        let (literal, after) = literal.split_once(']')?;
        let (address, zone) = literal.split_once('%')?;
        let zone = zone.strip_prefix("25").unwrap_or(zone);
        let (scheme, path) = (&text[..at.start], &text[at.end..]);
        let plain = format!("{scheme}{before}[{address}]{after}{path}");
        (!zone.is_empty()).then(|| (plain, Some(zone.to_owned())))
    };
    found().unwrap_or_else(|| (text.to_owned(), None))
}

/// Adds the zone to a host, in the form that the library parses.
pub(crate) fn zoned(host: &str, zone: Option<&str>) -> String {
    match (zone, host.strip_suffix(']')) {
        (Some(zone), Some(address)) => format!("{address}%{zone}]"),
        _ => host.to_owned(),
    }
}

//! The host of a URL: an IP address in any of its notations, or a name.

use std::net::{IpAddr, Ipv4Addr};
use std::{fmt, str};

const NO_NAME: &str = "invalid international domain name";

/// The most characters in a label of the domain name system.
const LABEL_MOST: usize = 63;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Ip(IpAddr),
    /// In lower case and in ASCII.
    Name(String),
}

impl Host {
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if let Some(text) = text.strip_prefix('[') {
            let ip = text.strip_suffix(']').and_then(|text| text.parse().ok());
            let ip = ip.ok_or("invalid IPv6 address")?;
            return Ok(Self::Ip(IpAddr::V6(ip)));
        }

        let text = unescaped(text);
        let text = str::from_utf8(&text).map_err(|_| NO_NAME)?;
        let labels = text.split(['.', '\u{3002}']).map(to_ascii);
        let name = labels.collect::<Result<Vec<_>, _>>()?.join(".");
        if name.is_empty() {
            return Err("empty host");
        }
        match to_ipv4(&name) {
            Some(ip) => Ok(Self::Ip(IpAddr::V4(ip?))),
            None => Ok(Self::Name(name)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// Decodes percent-encoded bytes. A percent sign without two hexadecimal digits stays as it is.
pub(crate) fn unescaped(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        let byte = byte.filter(|_| *first == b'%');
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// Parses `name` as an IPv4 address if its last part is a number: `127.0.0.1`, `127.1`,
/// `0x7f000001`.
fn to_ipv4(name: &str) -> Option<Result<Ipv4Addr, &'static str>> {
    let parts: Vec<_> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
    let last = parts.last()?;
    let is_decimal = !last.is_empty() && last.bytes().all(|byte| byte.is_ascii_digit());
    if !is_decimal && number(last).is_none() {
        return None;
    }

    let address = || {
        let (last, before) = parts.split_last().filter(|_| parts.len() <= 4)?;
        let room = 8 * (4 - u32::try_from(before.len()).ok()?);
        let last = number(last).filter(|last| last >> room == 0)?;

        let mut address = last;
        for (place, part) in before.iter().enumerate() {
            let byte = number(part).filter(|byte| *byte <= 0xff)?;
            address |= byte << (24 - 8 * place);
        }
        Some(Ipv4Addr::from(u32::try_from(address).ok()?))
    };
    Some(address().ok_or("invalid IPv4 address"))
}

/// Parses a decimal, octal (`0`) or hexadecimal (`0x`) number, as in C. Returns `None` for other
/// text, and for numbers of more than 32 bits.
fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x");
    let (digits, base) = match (hexadecimal, text.strip_prefix('0')) {
        (Some(""), _) => ("0", 16),
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };

    let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let number = u64::from_str_radix(digits, base).ok();
    number.filter(|number| is_plain && *number <= u32::MAX.into())
}

/// Converts a label to its form in the domain name system. Letters are not normalized: letters
/// composed of several characters, and width variants of letters, are refused.
fn to_ascii(label: &str) -> Result<String, &'static str> {
    let is_special = |c: char| c <= ' ' || "#%/:<>?@[\\]^|\u{7f}".contains(c);
    let is_variant = |c: char| {
        let plain = [
            '\u{80}'..='\u{bf}',
            '\u{300}'..='\u{36f}',
            '\u{2000}'..='\u{2bff}',
        ];
        let wide = ['\u{3000}'..='\u{3004}', '\u{e000}'..='\u{ffff}'];
        plain.iter().chain(&wide).any(|range| range.contains(&c))
    };
    if label.contains(|c| is_special(c) || is_variant(c)) {
        return Err(NO_NAME);
    }

    let label = label.to_lowercase();
    match label.chars().count() {
        _ if label.is_ascii() => Ok(label),
        0..=LABEL_MOST => Ok(punycode(&label)),
        _ => Err(NO_NAME),
    }
}

/// Encodes a label that is not ASCII (RFC 3492).
fn punycode(label: &str) -> String {
    let basic: String = label.chars().filter(char::is_ascii).collect();
    let points: Vec<u32> = label.chars().map(u32::from).collect();
    let mut text = format!("xn--{basic}");
    if !basic.is_empty() {
        text.push('-');
    }

    let (mut done, mut delta, mut bias, mut from) = (basic.len(), 0, 72, 0x80);
    while let Some(least) = points.iter().copied().filter(|it| *it >= from).min() {
        delta += (least - from) * length(done + 1);
        for point in &points {
            if *point < least {
                delta += 1;
            } else if *point == least {
                push_number(&mut text, delta, bias);
                bias = adapted(delta, length(done + 1), done == basic.len());
                delta = 0;
                done += 1;
            }
        }
        delta += 1;
        from = least + 1;
    }
    text
}

/// Converts a length, which is at most [`LABEL_MOST`], so that no product overflows.
fn length(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Appends a variable-length number, whose digits have weights that depend on `bias`.
fn push_number(text: &mut String, mut number: u32, bias: u32) {
    // Letters come before digits.
    let digit = |value: u32| char::from_digit((value + 10) % 36, 36);
    for place in (36..).step_by(36) {
        let least = u32::clamp(u32::saturating_sub(place, bias), 1, 26);
        if number < least {
            break;
        }
        text.extend(digit(least + (number - least) % (36 - least)));
        number = (number - least) / (36 - least);
    }
    text.extend(digit(number));
}

fn adapted(delta: u32, count: u32, is_first: bool) -> u32 {
    let mut delta = delta / if is_first { 700 } else { 2 };
    delta += delta / count;

    let mut bias = 0;
    while delta > 455 {
        delta /= 35;
        bias += 36;
    }
    bias + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        Host::parse(text).map_or_else(str::to_owned, |host| host.to_string())
    }

    #[test]
    fn addresses_are_written_in_many_ways() {
        for (text, address) in [
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("127.1", "127.0.0.1"),
            ("127.0.1", "127.0.0.1"),
            ("1.2.515", "1.2.2.3"),
            ("0x7f000001", "127.0.0.1"),
            ("0X7F.1", "127.0.0.1"),
            ("017700000001", "127.0.0.1"),
            ("2130706433", "127.0.0.1"),
            ("0", "0.0.0.0"),
            ("0x", "0.0.0.0"),
            ("127.0.0.%31", "127.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0::FE80]", "[::fe80]"),
        ] {
            assert!(matches!(Host::parse(text), Ok(Host::Ip(_))), "{text}");
            assert_eq!(shown(text), address, "{text}");
        }
        for text in [
            "256.0.0.1",
            "1.2.3.4.5",
            "127.0.65536",
            "4294967296",
            "99999999999999999999999",
            "a.1",
            "1..1",
            "08",
            "a.0x1",
        ] {
            assert_eq!(shown(text), "invalid IPv4 address", "{text}");
        }

        for text in ["[::1", "[]", "[127.0.0.1]", "[::1]a", "[::1%lo]"] {
            assert_eq!(shown(text), "invalid IPv6 address", "{text}");
        }
    }

    #[test]
    fn names_are_in_small_letters_and_ascii() {
        for (text, name) in [
            ("LocalHost", "localhost"),
            ("a_b.example.", "a_b.example."),
            ("1.a", "1.a"),
            ("0xg", "0xg"),
            ("%61", "a"),
            ("ü.invalid", "xn--tda.invalid"),
            ("%C3%BC.invalid", "xn--tda.invalid"),
            ("BÜCHER.de", "xn--bcher-kva.de"),
            ("faß.de", "xn--fa-hia.de"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("правда.рф", "xn--80aafi6cg.xn--p1ai"),
            ("münchen-ost", "xn--mnchen-ost-9db"),
            ("हिन्दी", "xn--j2bd4cyah0f"),
            ("他们为什么不说中文", "xn--ihqwcrb4cv8a8dqg056pqjye"),
        ] {
            assert_eq!(shown(text), name, "{text}");
        }

        assert_eq!(shown(""), "empty host");
        for text in [
            "a b",
            "a|b",
            "%",
            "a%00b",
            "a%2Fb",
            "%FF",
            "u\u{308}",
            "\u{ff21}",
            &"ü".repeat(64),
        ] {
            assert_eq!(shown(text), NO_NAME, "{text}");
        }
    }
}

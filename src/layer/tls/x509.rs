//! The few fields of a certificate that users ask for: names and dates.
//!
//! rustls verifies certificates; this only reads them. What is not as X.509 says is no field.

use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// The version of a certificate, which may be missing.
const VERSION: u8 = 0xA0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const TELETEX_STRING: u8 = 0x14;
const UNIVERSAL_STRING: u8 = 0x1C;
const BMP_STRING: u8 = 0x1E;

/// Types of an attribute in a name, encoded, and how they are written.
const ATTRIBUTES: [(&[u8], &str); 10] = [
    (COMMON_NAME, "CN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 1],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 1, 25],
        "DC",
    ),
    (
        &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 1, 9, 1],
        "emailAddress",
    ),
];

const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The moments between which a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) begins: i64,
    pub(super) ends: i64,
}

/// Returns when the certificate is valid.
pub(super) fn validity(certificate: &[u8]) -> Option<Validity> {
    let mut dates = Der(fields(certificate)?.validity);
    Some(Validity {
        begins: seconds(dates.next()?)?,
        ends: seconds(dates.next()?)?,
    })
}

/// Returns the subject of the certificate in the notation of RFC 4514.
pub(super) fn subject(certificate: &[u8]) -> Option<String> {
    let mut parts: Vec<String> = relative_names(certificate)?
        .iter()
        .map(|name| name.iter().map(written).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    Some(parts.join(","))
}

/// Returns the last common name of the subject.
pub(super) fn common_name(certificate: &[u8]) -> Option<String> {
    let names = relative_names(certificate)?;
    let found = names.iter().flatten().rev();
    found
        .filter(|attribute| attribute.kind == COMMON_NAME)
        .find_map(Attribute::text)
}

/// Returns the DNS names that the certificate is valid for.
pub(super) fn dns_names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(parsed) = EndEntityCert::try_from(certificate) else {
        return Vec::new();
    };
    parsed.valid_dns_names().map(str::to_owned).collect()
}

/// The fields of a certificate that are read here, encoded.
struct Fields<'a> {
    validity: &'a [u8],
    subject: &'a [u8],
}

fn fields(certificate: &[u8]) -> Option<Fields<'_>> {
    let signed = Der(certificate).expect(SEQUENCE)?;
    let mut fields = Der(Der(signed).expect(SEQUENCE)?);
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }

    let [_serial, _algorithm, _issuer] = [fields.next()?, fields.next()?, fields.next()?];
    Some(Fields {
        validity: fields.expect(SEQUENCE)?,
        subject: fields.expect(SEQUENCE)?,
    })
}

/// A type and a value in a name.
struct Attribute<'a> {
    kind: &'a [u8],
    /// The type of the value's text.
    tag: u8,
    value: &'a [u8],
}

impl Attribute<'_> {
    fn text(&self) -> Option<String> {
        match self.tag {
            TELETEX_STRING => Some(self.value.iter().map(|byte| char::from(*byte)).collect()),
            BMP_STRING => {
                let units = self.value.chunks_exact(2);
                let units = units.map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
                String::from_utf16(&units.collect::<Vec<_>>()).ok()
            }
            UNIVERSAL_STRING => {
                let units = self.value.chunks_exact(4);
                let points =
                    units.map(|unit| u32::from_be_bytes([unit[0], unit[1], unit[2], unit[3]]));
                points.map(char::from_u32).collect()
            }
            _ => String::from_utf8(self.value.to_vec()).ok(),
        }
    }
}

/// Returns the parts of the subject in the order in which the certificate has them. Nearly always
/// each is one attribute.
fn relative_names(certificate: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let mut names = Der(fields(certificate)?.subject);
    let mut parts = Vec::new();
    while !names.0.is_empty() {
        let mut set = Der(names.expect(SET)?);
        let mut part = Vec::new();
        while !set.0.is_empty() {
            let mut attribute = Der(set.expect(SEQUENCE)?);
            let kind = attribute.expect(OBJECT_IDENTIFIER)?;
            let (tag, value) = attribute.next()?;
            part.push(Attribute { kind, tag, value });
        }
        parts.push(part);
    }
    Some(parts)
}

/// Returns `CN=alice`.
fn written(attribute: &Attribute<'_>) -> String {
    let named = ATTRIBUTES.iter().find(|(kind, _)| *kind == attribute.kind);
    let kind = named.map_or_else(|| dotted(attribute.kind), |(_, name)| (*name).to_owned());
    match attribute.text() {
        Some(text) => format!("{kind}={}", escaped(&text)),
        None => {
            let digits = attribute.value.iter().map(|byte| format!("{byte:02x}"));
            format!("{kind}=#{}", digits.collect::<String>())
        }
    }
}

/// Returns a value in which nothing can be taken for the end of the value.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::new();
    for (at, next) in text.chars().enumerate() {
        let is_special = match next {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => true,
            ' ' => at == 0 || at == last,
            '#' => at == 0,
            _ => false,
        };

        if next.is_control() {
            let mut bytes = [0; 4];
            for byte in next.encode_utf8(&mut bytes).bytes() {
                out.push_str(&format!("\\{byte:02X}"));
            }
        } else {
            if is_special {
                out.push('\\');
            }
            out.push(next);
        }
    }
    out
}

/// Returns an object identifier as numbers: `1.2.840`.
fn dotted(kind: &[u8]) -> String {
    let mut numbers = Vec::new();
    let mut number = 0_u64;
    for byte in kind {
        number = number << 7 | u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }

    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    numbers.join(".")
}

/// Returns a date as seconds since 1970.
fn seconds((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }

    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i64 = text[..2].parse().ok()?;
            (
                if year < 50 { 2000 + year } else { 1900 + year },
                &text[2..],
            )
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let mut pairs = (0..5).map(|at| rest[2 * at..2 * at + 2].parse::<i64>());
    let mut next = || pairs.next()?.ok();
    let (month, day) = (next()?, next()?);
    let (hour, minute, second) = (next()?, next()?, next()?);
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Returns the days from 1970-01-01 to a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    365 * year + leaps + (153 * month + 2) / 5 + day - 1 - 719_468
}

/// Encoded values, one after the other.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, length, rest @ ..] = self.0 else {
            return None;
        };
        let (length, rest) = match usize::from(*length) {
            short @ 0..0x80 => (short, rest),
            long => {
                let count = long - 0x80;
                let digits = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
                let add = |sum: usize, digit: &u8| sum << 8 | usize::from(*digit);
                (digits.iter().fold(0, add), &rest[count..])
            }
        };

        let content = rest.get(..length)?;
        self.0 = &rest[length..];
        Some((*tag, content))
    }

    /// Takes the next value if it has this tag.
    fn expect(&mut self, expected: u8) -> Option<&'a [u8]> {
        let (tag, content) = self.next()?;
        (tag == expected).then_some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "691231235959Z", Some(-1)),
            (UTC_TIME, "000229120000Z", Some(951_825_600)),
            (UTC_TIME, "491231235959Z", Some(2_524_607_999)),
            (UTC_TIME, "500101000000Z", Some(-631_152_000)),
            (GENERALIZED_TIME, "20380119031408Z", Some(2_147_483_648)),
            (GENERALIZED_TIME, "99991231235959Z", Some(253_402_300_799)),
            (GENERALIZED_TIME, "20240301000000Z", Some(1_709_251_200)),
            (GENERALIZED_TIME, "2024030100000Z", None),
            (GENERALIZED_TIME, "20240301000000", None),
            (UTC_TIME, "20240301000000Z", None),
            (UTC_TIME, "+00101000000Z", None),
        ] {
            assert_eq!(seconds((tag, text.as_bytes())), expected, "{text}");
        }
    }

    #[test]
    fn values_cannot_look_like_two() {
        assert_eq!(escaped("alice,O=Example"), "alice\\,O\\=Example");
        assert_eq!(escaped(" a b "), "\\ a b\\ ");
        assert_eq!(escaped("#1#"), "\\#1#");
        assert_eq!(escaped("a\n\u{85}"), "a\\0A\\C2\\85");
        assert_eq!(escaped("Łukasz"), "Łukasz");
    }

    #[test]
    fn object_identifiers_are_dotted() {
        assert_eq!(
            dotted(&[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D]),
            "1.2.840.113549"
        );
        assert_eq!(dotted(&[0x88, 0x37]), "2.999");
        assert_eq!(dotted(&[]), "");
    }

    #[test]
    fn broken_encodings_have_no_fields() {
        for bytes in [
            &[][..],
            &[0x30],
            &[0x30, 0x80],
            &[0x30, 0x85, 1, 1, 1, 1, 1],
            &[0x30, 0x84, 0xFF, 0xFF, 0xFF, 0xFF],
            &[0x30, 2, 0x30, 0],
        ] {
            assert_eq!(validity(bytes), None, "{bytes:?}");
            assert_eq!(subject(bytes), None, "{bytes:?}");
        }
    }
}

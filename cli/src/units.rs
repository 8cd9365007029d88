//! Option values: numbers with units, as they are typed and shown.

use std::fmt;
use std::num::NonZero;
use std::str::FromStr;
use std::time::Duration;

const UNITS: [(&str, usize); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// The largest value that the system's `int` holds, which counts such things as a socket's buffer.
const INT_MOST: usize = i32::MAX as usize;

/// The longest duration accepted. A longer one is a mistake, and adding it to an `Instant` could
/// overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The longest time before keepalive probes that every system accepts.
const IDLE_MOST: Duration = Duration::from_secs(32_767);

/// A number of bytes: `4096`, `4KiB`, `1MiB`, `1GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(usize);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let split = text
            .find(|letter: char| !letter.is_ascii_digit())
            .unwrap_or(text.len());

        let (digits, unit) = text.split_at(split);
        let factor = match unit.trim_start() {
            "" => 1,
            unit => UNITS
                .iter()
                .find_map(|(name, factor)| name.eq_ignore_ascii_case(unit).then_some(*factor))
                .ok_or("expected a size, for example 4096, 64KiB, 1MiB or 1GiB")?,
        };

        if digits.is_empty() {
            return Err("expected a number before the unit, for example 64KiB".to_owned());
        }

        let number = digits.parse::<usize>().ok();
        number
            .and_then(|number| number.checked_mul(factor))
            .map(Self)
            .ok_or_else(|| "too many bytes for this machine".to_owned())
    }
}

impl fmt::Display for Size {
    /// Writes the size in the largest unit that gives a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, factor): &&(&str, usize)| *factor > 1 && self.0.is_multiple_of(*factor);
        match UNITS.iter().find(whole) {
            Some((name, factor)) if self.0 > 0 => write!(f, "{}{name}", self.0 / factor),
            _ => write!(f, "{}", self.0),
        }
    }
}

impl From<usize> for Size {
    fn from(bytes: usize) -> Self {
        Self(bytes)
    }
}

impl From<Size> for usize {
    fn from(size: Size) -> Self {
        size.0
    }
}

/// The size of one of the system's buffers: a number of bytes, or `system` for the system's
/// default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SystemBuffer(Option<usize>);

impl FromStr for SystemBuffer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "system" {
            return Ok(Self(None));
        }
        match text.parse::<Size>()?.0 {
            bytes @ 0..=INT_MOST => Ok(Self(Some(bytes))),
            _ => Err(format!("expected at most {INT_MOST} bytes")),
        }
    }
}

impl fmt::Display for SystemBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(bytes) => Size(bytes).fmt(f),
            None => f.write_str("system"),
        }
    }
}

impl From<Option<usize>> for SystemBuffer {
    fn from(bytes: Option<usize>) -> Self {
        Self(bytes)
    }
}

impl From<SystemBuffer> for Option<usize> {
    fn from(buffer: SystemBuffer) -> Self {
        buffer.0
    }
}

/// The number of connections that a listener may queue, which fits the system's `int`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog(i32);

impl FromStr for Backlog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(count @ 0..) => Ok(Self(count)),
            _ => Err(format!("expected a number from 0 to {INT_MOST}")),
        }
    }
}

impl fmt::Display for Backlog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<i32> for Backlog {
    fn from(count: i32) -> Self {
        Self(count)
    }
}

impl From<Backlog> for i32 {
    fn from(backlog: Backlog) -> Self {
        backlog.0
    }
}

/// Parses a number that may not be 0. The standard library's error for 0 speaks of types.
///
/// # Errors
/// Fails with a message that says what is expected.
pub(crate) fn at_least_one(text: &str) -> Result<NonZero<usize>, String> {
    text.parse()
        .map_err(|_| "expected a number, 1 or more".to_owned())
}

/// A length of time: `0`, `250ms`, `10s`, `1m 30s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let duration = humantime::parse_duration(text).map_err(|error| {
            format!("{error}; expected a duration, for example 250ms, 10s or 5m")
        })?;
        if duration > LONGEST {
            return Err("expected at most 100 years".to_owned());
        }
        Ok(Self(duration))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl From<Span> for Duration {
    fn from(span: Span) -> Self {
        span.0
    }
}

/// An optional deadline, written as a [`Span`], where `0` means none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeout(Option<Duration>);

impl FromStr for Timeout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Span(duration) = text.parse()?;
        Ok(Self((!duration.is_zero()).then_some(duration)))
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(duration) => Span(duration).fmt(f),
            None => f.write_str("0"),
        }
    }
}

impl From<Option<Duration>> for Timeout {
    fn from(duration: Option<Duration>) -> Self {
        Self(duration)
    }
}

impl From<Timeout> for Option<Duration> {
    fn from(timeout: Timeout) -> Self {
        timeout.0
    }
}

/// How long a connection is silent before the system probes its peer, written as a [`Span`], where
/// `0` means that it does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeepAlive(Option<Duration>);

impl FromStr for KeepAlive {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Timeout(idle) = text.parse()?;
        match idle {
            Some(idle) if idle > IDLE_MOST => Err(format!("at most {}s", IDLE_MOST.as_secs())),
            idle => Ok(Self(idle)),
        }
    }
}

impl fmt::Display for KeepAlive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Timeout(self.0).fmt(f)
    }
}

impl From<Option<Duration>> for KeepAlive {
    fn from(idle: Option<Duration>) -> Self {
        Self(idle)
    }
}

impl From<KeepAlive> for Option<Duration> {
    fn from(keepalive: KeepAlive) -> Self {
        keepalive.0
    }
}

/// The permissions of a file, in octal digits as for chmod(1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(u32);

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_octal = text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_octal);
        match mode {
            Some(mode @ 0..=0o777) => Ok(Self(mode)),
            _ => Err("expected permissions from 0000 to 0777, for example 0660".to_owned()),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl From<u32> for Mode {
    fn from(mode: u32) -> Self {
        Self(mode)
    }
}

impl From<Mode> for u32 {
    fn from(mode: Mode) -> Self {
        mode.0
    }
}

/// A group by its name or number, or `-` for none in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group(Option<String>);

impl FromStr for Group {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected a name or a number".to_owned()),
            "-" => Ok(Self(None)),
            name => Ok(Self(Some(name.to_owned()))),
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_deref().unwrap_or("-"))
    }
}

impl From<Option<String>> for Group {
    fn from(name: Option<String>) -> Self {
        Self(name)
    }
}

impl From<Group> for Option<String> {
    fn from(group: Group) -> Self {
        group.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalive_is_what_systems_accept() {
        let keepalive = |text: &str| text.parse().map(|KeepAlive(idle)| idle);
        assert_eq!(keepalive("0"), Ok(None));
        assert_eq!(keepalive("5m"), Ok(Some(Duration::from_secs(300))));
        assert_eq!(keepalive("10h"), Err("at most 32767s".to_owned()));
        assert!(keepalive("60").is_err());
    }

    #[test]
    fn permissions_are_octal() {
        assert_eq!("660".parse(), Ok(Mode(0o660)));
        assert_eq!(Mode(0o60).to_string(), "0060");
        for text in ["", "0888", "1777", "rw-", "+7", "77777777777777"] {
            assert!(text.parse::<Mode>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_group_is_named_or_not() {
        assert_eq!("www".parse(), Ok(Group(Some("www".to_owned()))));
        assert_eq!("-".parse(), Ok(Group(None)));
        assert_eq!(Group(None).to_string(), "-");
        assert!("".parse::<Group>().is_err());
    }

    fn size(text: &str) -> Result<usize, String> {
        text.parse().map(|Size(bytes)| bytes)
    }

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("17"), Ok(17));
        assert_eq!(size("17B"), Ok(17));
        assert_eq!(size("4KiB"), Ok(4_096));
        assert_eq!(size("4 kib"), Ok(4_096));
        assert_eq!(size("1MiB"), Ok(1_048_576));
        assert_eq!(size("3GiB"), Ok(3 << 30));
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in ["", "KiB", "-1", "1.5MiB", "4KB", "4K", "1 2", "four"] {
            assert!(size(text).is_err(), "{text:?}");
        }
        for text in ["99999999999999999999", "18446744073709551615KiB"] {
            assert_eq!(size(text).unwrap_err(), "too many bytes for this machine");
        }
    }

    #[test]
    fn sizes_are_shown_as_they_are_typed() {
        for text in [
            "0", "1", "1023", "1KiB", "1025", "64KiB", "1MiB", "1025KiB", "2GiB",
        ] {
            assert_eq!(text.parse::<Size>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn buffers_fit_the_system() {
        let buffer = |text: &str| text.parse().map(|SystemBuffer(bytes)| bytes);
        assert_eq!(buffer("system"), Ok(None));
        assert_eq!(buffer("4KiB"), Ok(Some(4_096)));
        assert_eq!(buffer("2147483647"), Ok(Some(INT_MOST)));
        assert_eq!(
            buffer("2GiB"),
            Err("expected at most 2147483647 bytes".to_owned())
        );
    }

    #[test]
    fn backlogs_are_not_negative() {
        assert_eq!("5".parse(), Ok(Backlog(5)));
        assert!("-1".parse::<Backlog>().is_err());
        assert!("2147483648".parse::<Backlog>().is_err());
    }

    #[test]
    fn zero_is_not_at_least_one() {
        assert_eq!(at_least_one("1"), Ok(NonZero::<usize>::MIN));
        for text in ["0", "-1", "many", ""] {
            let problem = at_least_one(text).unwrap_err();
            assert!(problem.starts_with("expected a number, 1"), "{text}");
        }
    }

    #[test]
    fn zero_turns_a_timeout_off() {
        let timeout = |text: &str| text.parse().map(|Timeout(duration)| duration);
        assert_eq!(timeout("0"), Ok(None));
        assert_eq!(timeout("0s"), Ok(None));
        assert_eq!(timeout("60s"), Ok(Some(Duration::from_secs(60))));
        assert_eq!(timeout("1m 30s"), Ok(Some(Duration::from_secs(90))));
        assert_eq!("0".parse(), Ok(Span(Duration::ZERO)));
        assert_eq!(Timeout(None).to_string(), "0");
    }

    #[test]
    fn durations_need_a_unit_and_an_end() {
        assert!("10".parse::<Span>().is_err());
        assert!("soon".parse::<Span>().is_err());
        assert_eq!(
            "200years".parse::<Span>().unwrap_err(),
            "expected at most 100 years"
        );
        assert!("99999999999999999999s".parse::<Span>().is_err());
    }
}

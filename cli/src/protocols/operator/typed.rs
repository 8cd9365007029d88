//! Lines that the operator types.

use std::fmt;

use serveloop::protocols::counted;

/// The most clients that one message lists.
const LISTED_MOST: usize = 16;

/// A typed line: a text and its addressee.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Typed<'a> {
    /// The client's number, or `None` for the client that waits the longest.
    pub(crate) to: Option<u64>,
    pub(crate) text: &'a [u8],
}

/// Why a line was not sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    NoNumber,
    NoText(u64),
    NobodyWaits(Vec<u64>),
    NotConnected(u64),
    TooManyReplies(u64),
    TooLong(usize),
}

impl<'a> Typed<'a> {
    /// Parses a line. Returns `None` for an empty one.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Option<Self>, Mistake> {
        let Some(rest) = line.strip_prefix(b"@") else {
            let typed = Self {
                to: None,
                text: line,
            };
            return Ok((!line.is_empty()).then_some(typed));
        };

        if rest.starts_with(b"@") {
            return Ok(Some(Self {
                to: None,
                text: rest,
            }));
        }

        let end = rest.iter().position(|byte| *byte == b' ');
        let (number, text) = rest.split_at(end.unwrap_or(rest.len()));
        let number = str::from_utf8(number).ok().and_then(|it| it.parse().ok());
        let number = number.ok_or(Mistake::NoNumber)?;

        match text.strip_prefix(b" ") {
            None | Some(b"") => Err(Mistake::NoText(number)),
            Some(text) => Ok(Some(Self {
                to: Some(number),
                text,
            })),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNumber => f.write_str(
                "not sent: after @, type a client's number and a text, for example @2 good morning; \
                 for a text that begins with @, type @@",
            ),
            Self::NoText(number) => {
                write!(
                    f,
                    "not sent: no text after the number, for example @{number} good morning"
                )
            }
            Self::NobodyWaits(clients) if clients.is_empty() => {
                f.write_str("not sent: no client is connected")
            }
            Self::NobodyWaits(clients) => write!(
                f,
                "not sent: no client waits for a reply; @NUMBER TEXT sends to one of {}",
                listed(clients)
            ),
            Self::NotConnected(number) => write!(f, "not sent: client {number} is not connected"),
            Self::TooManyReplies(number) => {
                write!(f, "not sent: too many replies already wait for client {number}")
            }
            Self::TooLong(limit) => {
                let limit = counted(*limit, "byte", "bytes");
                write!(f, "not sent: the line is longer than {limit}")
            }
        }
    }
}

/// Lists up to [`LISTED_MOST`] numbers, and counts the others.
fn listed(clients: &[u64]) -> String {
    let (first, others) = clients.split_at(clients.len().min(LISTED_MOST));
    match others.len() {
        0 => format!("{first:?}"),
        count => format!("{first:?} and {count} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, to: Option<u64>, text: &str) {
        let text = text.as_bytes();
        let expected = Ok(Some(Typed { to, text }));
        assert_eq!(Typed::parse(line.as_bytes()), expected, "{line}");
    }

    #[test]
    fn lines_are_for_whoever_waits_or_for_one() {
        check("good morning", None, "good morning");
        check("2 apples", None, "2 apples");
        check("@2 good morning", Some(2), "good morning");
        check("@2  indented", Some(2), " indented");
        check("@@home", None, "@home");
        assert_eq!(Typed::parse(b""), Ok(None));
    }

    #[test]
    fn a_crowd_is_not_listed_whole() {
        let told = |count| Mistake::NobodyWaits((1..=count).collect()).to_string();
        assert!(told(3).ends_with("sends to one of [1, 2, 3]"));
        assert!(told(16).ends_with(", 15, 16]"));
        assert!(told(10_000).ends_with(", 15, 16] and 9984 more"));
    }

    #[test]
    fn mistakes_are_told_apart() {
        for line in [
            "@",
            "@bob hi",
            "@-1 hi",
            "@ 1 hi",
            "@99999999999999999999 hi",
        ] {
            assert_eq!(
                Typed::parse(line.as_bytes()),
                Err(Mistake::NoNumber),
                "{line}"
            );
        }

        for line in ["@2", "@2 "] {
            assert_eq!(
                Typed::parse(line.as_bytes()),
                Err(Mistake::NoText(2)),
                "{line}"
            );
        }
    }
}

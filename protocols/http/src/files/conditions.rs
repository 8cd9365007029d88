//! Conditions on a file and ranges of it (RFC 9110, sections 13 and 14).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::request::{Request, list};
use crate::response::Response;

/// What a request asks about the file that it names.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    matches: Option<Vec<u8>>,
    none_matches: Option<Vec<u8>>,
    modified_since: Option<SystemTime>,
    unmodified_since: Option<SystemTime>,
    range: Option<Asked>,
    if_range: Option<Vec<u8>>,
}

/// A range, before the length of the file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    From(u64, Option<u64>),
    Last(u64),
}

/// The bytes of a file from `first` to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) first: u64,
    pub(super) last: u64,
}

/// What a request gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    Part(Part),
    Unsatisfiable,
    NotModified,
    Failed,
}

/// What identifies a version of a file.
#[derive(Debug)]
pub(super) struct Validators {
    tag: String,
    /// In whole seconds, as the field is written, and not later than the response (RFC 9110, section
    /// 8.8.2.1): a file may have a date in the future.
    modified: Option<SystemTime>,
    /// Whether the date tells versions apart. A file that changed a moment ago can change again and keep
    /// its date.
    is_date_strong: bool,
}

/// How long after its date a file has no other version of the same date.
const DATE_PRECISION: Duration = Duration::from_secs(1);

/// The first moment that a date cannot be written for, in seconds since 1970: the year 10,000.
const DATES_END: u64 = 253_402_300_800;

impl Validators {
    fn of(length: u64, modified: Option<SystemTime>, now: SystemTime) -> Self {
        let since = modified.and_then(|modified| modified.duration_since(UNIX_EPOCH).ok());
        let since = since.filter(|since| since.as_secs() < DATES_END);
        let (seconds, nanos) =
            since.map_or((0, 0), |since| (since.as_secs(), since.subsec_nanos()));

        let most = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let shown = since.map(|since| Duration::from_secs(since.min(most).as_secs()));
        Self {
            tag: format!("\"{length:x}-{seconds:x}-{nanos:x}\""),
            modified: shown.map(|shown| UNIX_EPOCH + shown),
            is_date_strong: shown.is_some_and(|shown| shown + DATE_PRECISION < most),
        }
    }

    pub(super) fn add_to(&self, response: Response) -> Response {
        let response = response.header("ETag", &self.tag);
        match self.modified {
            Some(at) => response.header("Last-Modified", httpdate::fmt_http_date(at)),
            None => response,
        }
    }

    /// Returns whether one of the tags in the list is this version's. Our tags are strong, so a weak
    /// one is another only where that matters.
    fn is_in(&self, tags: &[u8], is_weak_enough: fn(&[u8]) -> &[u8]) -> bool {
        let mut tags = list(tags);
        tags.any(|tag| tag == b"*" || is_weak_enough(tag) == self.tag.as_bytes())
    }
}

fn weak(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

fn strong(tag: &[u8]) -> &[u8] {
    tag
}

impl Conditions {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let tags = |name| {
            let all: Vec<_> = request.headers.all(name).collect();
            (!all.is_empty()).then(|| all.join(&b','))
        };
        let date = |name| httpdate::parse_http_date(request.headers.text(name)?).ok();
        // A range of what HEAD asks for means nothing, and two fields are several ranges.
        let is_single = request.headers.all("range").count() == 1;
        let range = request.headers.text("range");
        let range = range.filter(|_| request.method == "GET" && is_single);
        Self {
            matches: tags("if-match"),
            none_matches: tags("if-none-match"),
            modified_since: date("if-modified-since"),
            unmodified_since: date("if-unmodified-since"),
            range: range.and_then(parse_range),
            if_range: request.headers.get("if-range").map(<[u8]>::to_vec),
        }
    }

    /// Judges a file, and returns what identifies its version. `now` is the date of the response.
    pub(super) fn judge(
        &self,
        length: u64,
        modified: Option<SystemTime>,
        now: SystemTime,
    ) -> (Verdict, Validators) {
        let file = Validators::of(length, modified, now);
        let is_later = |than: Option<SystemTime>| {
            than.zip(file.modified)
                .is_some_and(|(than, modified)| modified > than)
        };

        let fails = match &self.matches {
            Some(tags) => !file.is_in(tags, strong),
            None => is_later(self.unmodified_since),
        };
        let is_known = match &self.none_matches {
            Some(tags) => file.is_in(tags, weak),
            None => {
                let since = self.modified_since.filter(|_| file.modified.is_some());
                since.is_some() && !is_later(since)
            }
        };

        let verdict = match self.range.filter(|_| self.may_be_part(&file)) {
            _ if fails => Verdict::Failed,
            _ if is_known => Verdict::NotModified,
            None => Verdict::Whole,
            Some(asked) => asked.within(length),
        };
        (verdict, file)
    }

    /// Returns whether the version that a client has a part of is this one.
    fn may_be_part(&self, file: &Validators) -> bool {
        let Some(condition) = &self.if_range else {
            return true;
        };
        let date = std::str::from_utf8(condition).ok();
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let is_date = file.is_date_strong && date.is_some() && date == file.modified;
        is_date || condition == file.tag.as_bytes()
    }
}

/// Reads the field `Range`. `None` if it is not one range of bytes, so that it is ignored.
fn parse_range(text: &str) -> Option<Asked> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }

    match (first, last) {
        ("", last) => Some(Asked::Last(parse_number(last)?)),
        (first, "") => Some(Asked::From(parse_number(first)?, None)),
        (first, last) => {
            let (first, last) = (parse_number(first)?, parse_number(last)?);
            (first <= last).then_some(Asked::From(first, Some(last)))
        }
    }
}

/// Reads digits. A number that is too large is as good as the largest.
fn parse_number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

impl Asked {
    fn within(self, length: u64) -> Verdict {
        let (first, last) = match self {
            Self::From(first, last) => (first, last.unwrap_or(u64::MAX)),
            Self::Last(0) => return Verdict::Unsatisfiable,
            // All of nothing, for which there is no Content-Range.
            Self::Last(_) if length == 0 => return Verdict::Whole,
            Self::Last(count) => (length.saturating_sub(count), u64::MAX),
        };
        if first >= length {
            return Verdict::Unsatisfiable;
        }
        let last = last.min(length - 1);
        Verdict::Part(Part { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str, length: u64) -> Verdict {
        parse_range(text).map_or(Verdict::Whole, |asked| asked.within(length))
    }

    #[test]
    fn single_ranges_are_found() {
        let parts = [
            ("bytes=0-0", (0, 0)),
            ("bytes=2-4", (2, 4)),
            ("bytes=2-", (2, 9)),
            ("bytes=2-99999999999999999999999", (2, 9)),
            ("bytes=-3", (7, 9)),
            ("bytes=-99", (0, 9)),
            ("Bytes=9-9", (9, 9)),
        ];
        for (text, (first, last)) in parts {
            assert_eq!(
                part(text, 10),
                Verdict::Part(Part { first, last }),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_not_one_range_is_ignored() {
        let texts = [
            "bytes=0-1,3-4",
            "bytes=4-2",
            "bytes=a-b",
            "bytes=",
            "bytes=-",
            "lines=0-1",
            "0-1",
            "bytes=+1-2",
            "bytes=1--2",
            "bytes=0x1-2",
            "bytes 0-1",
        ];
        for text in texts {
            assert_eq!(part(text, 10), Verdict::Whole, "{text}");
        }
    }

    const DATE: &str = "Sun, 09 Sep 2001 01:46:40 GMT";

    /// The second that `DATE` names.
    fn date() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_000_000_000)
    }

    #[test]
    fn no_date_is_later_than_the_response() {
        let now = date() + Duration::from_millis(700);
        let file = Validators::of(10, Some(now + Duration::from_secs(1)), now);
        assert_eq!(file.modified, Some(date()));
        let later = Validators::of(10, Some(now + Duration::from_secs(2)), now);
        assert_ne!(file.tag, later.tag);
    }

    #[test]
    fn a_date_that_several_versions_may_have_allows_no_part() {
        let conditions = Conditions {
            range: parse_range("bytes=0-1"),
            if_range: Some(DATE.into()),
            ..Conditions::default()
        };
        let changed = date() + Duration::from_millis(400);
        let expected = Verdict::Part(Part { first: 0, last: 1 });
        for (millis, verdict) in [
            (400, Verdict::Whole),
            (1_000, Verdict::Whole),
            (1_001, expected),
        ] {
            let now = date() + Duration::from_millis(millis);
            assert_eq!(conditions.judge(10, Some(changed), now).0, verdict);
        }

        // The date that a file from the future is shown with is not its own.
        let now = date() + Duration::from_millis(400);
        let future = now + Duration::from_secs(60);
        assert_eq!(conditions.judge(10, Some(future), now).0, Verdict::Whole);
    }

    #[test]
    fn the_end_of_an_empty_file_is_all_of_it() {
        assert_eq!(part("bytes=-1", 0), Verdict::Whole);
    }

    #[test]
    fn what_is_beyond_the_file_is_unsatisfiable() {
        for (text, length) in [("bytes=10-", 10), ("bytes=0-", 0), ("bytes=-0", 10)] {
            assert_eq!(
                part(text, length),
                Verdict::Unsatisfiable,
                "{text} of {length}"
            );
        }
    }
}

//! Finds requests in a stream: arrays of bulk strings, or lines.

use std::borrow::Cow;
use std::ops::Range;

use crate::inline::{self, BadLine};
use crate::number;
use crate::request::{Request, Span};

/// The most bytes in the line of a length. Nineteen digits are the longest useful number.
const LENGTH_LINE_MOST: usize = 64;

/// The least bytes of a word in an array: `$0`, its line end, and the line end of nothing.
const WORD_LEAST: usize = 6;

/// As many words are found without new memory, in each request after the first.
const WORDS_KEPT: usize = 64;

/// How much a client may send for one request, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) request: usize,
    pub(crate) line: usize,
}

/// Input that is no request, after which it is unclear where the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    CountLine,
    Count,
    LengthLine,
    Length,
    NoBulk(u8),
    NoLineEnd,
    Line,
    Quotes,
    Foreign,
}

impl Broken {
    /// Returns the text for the client.
    pub(crate) fn text(self) -> Cow<'static, [u8]> {
        let text: &[u8] = match self {
            Self::CountLine => b"too big mbulk count string",
            Self::Count => b"invalid multibulk length",
            Self::LengthLine => b"too big bulk count string",
            Self::Length => b"invalid bulk length",
            Self::NoBulk(byte) => {
                return [b"expected '$', got '", &[byte][..], b"'"].concat().into();
            }
            Self::NoLineEnd => b"expected a line end",
            Self::Line => b"too big inline request",
            Self::Quotes => b"unbalanced quotes in request",
            Self::Foreign => b"this is not HTTP or TLS",
        };
        Cow::Borrowed(text)
    }
}

/// Finds the requests in a stream. It is shown a request from its first byte until it is complete,
/// and looks at each byte once.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The words found.
    words: Vec<Span>,
    /// How many words are still to come. 0 before the first line is complete.
    missing: usize,
    /// How many bytes of the request need no second look.
    seen: usize,
    /// The words of an inline request without quotes; empty for an array.
    line: Vec<u8>,
}

impl Parser {
    /// Looks for the end of the request that begins `data`, which is not empty. Returns the length of
    /// the request, or `None` if it is incomplete.
    #[inline]
    pub(crate) fn parse(&mut self, data: &[u8], most: Most) -> Result<Option<usize>, Broken> {
        if self.missing == 0 {
            if data[0] != b'*' {
                return self.parse_line(data, most);
            }
            if !self.parse_count(data, most)? {
                return Ok(None);
            }
        }

        while self.missing > 0 {
            if !self.parse_word(data, most)? {
                return Ok(None);
            }
        }
        Ok(Some(self.seen))
    }

    /// Returns where the next word of the incomplete request that begins `data` is to be, and whether it
    /// is the last one, if its length is there. That was checked before.
    #[cold]
    pub(crate) fn announced(&self, data: &[u8]) -> Option<(Range<usize>, bool)> {
        let (line, start) = line(data, self.seen, Broken::LengthLine).ok()??;
        let length = number::integer(line.strip_prefix(b"$")?)?;
        let end = start.checked_add(usize::try_from(length).ok()?)?;
        Some((start..end, self.missing == 1))
    }

    /// Returns whether a part of an array was found, and not all of it.
    #[inline]
    pub(crate) fn is_within(&self) -> bool {
        self.missing > 0
    }

    /// Takes the words that were found of the incomplete request, which is not shown again.
    pub(crate) fn take_words(&mut self) -> Vec<Span> {
        let words = std::mem::take(&mut self.words);
        self.reset();
        words
    }

    /// Returns the request that was found in `data`, unless it has no words.
    #[inline]
    pub(crate) fn request<'a>(&'a self, data: &'a [u8]) -> Option<Request<'a>> {
        let bytes = if self.line.is_empty() {
            data
        } else {
            &self.line
        };
        (!self.words.is_empty()).then(|| Request::new(bytes, &self.words))
    }

    /// Forgets the request, because the next one begins.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.missing = 0;
        self.seen = 0;
        self.words.clear();
        if self.words.capacity() > WORDS_KEPT || self.line.capacity() > 0 {
            self.words.shrink_to(WORDS_KEPT);
            self.line = Vec::new();
        }
    }

    /// Returns how many bytes of memory an incomplete request takes besides its input.
    pub(crate) fn held(&self) -> usize {
        match self.words.capacity() {
            0..=WORDS_KEPT => 0,
            capacity => capacity * size_of::<Span>(),
        }
    }

    fn parse_count(&mut self, data: &[u8], most: Most) -> Result<bool, Broken> {
        let (count, end) = match short_line(b'*', data) {
            Some(found) => found,
            None => {
                let Some((line, end)) = line(data, 0, Broken::CountLine)? else {
                    return Ok(false);
                };
                (number::integer(&line[1..]).ok_or(Broken::Count)?, end)
            }
        };

        // An array of no words is skipped.
        let count = usize::try_from(count).unwrap_or(0);
        if count > most.request / WORD_LEAST {
            return Err(Broken::Count);
        }
        self.missing = count;
        self.seen = end;
        Ok(true)
    }

    #[inline]
    fn parse_word(&mut self, data: &[u8], most: Most) -> Result<bool, Broken> {
        let (length, start) = match short_line(b'$', &data[self.seen..]) {
            Some((length, end)) => (length, self.seen + end),
            None => {
                let Some((line, start)) = line(data, self.seen, Broken::LengthLine)? else {
                    return Ok(false);
                };
                let [b'$', digits @ ..] = line else {
                    return Err(Broken::NoBulk(data[self.seen]));
                };
                (number::integer(digits).ok_or(Broken::Length)?, start)
            }
        };

        // Refused before its bytes have arrived.
        let most = most.request.min(u32::MAX as usize);
        let room = most.checked_sub(start + 2).ok_or(Broken::Length)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= room);
        let end = start + length.ok_or(Broken::Length)?;
        match data.get(end..end + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(Broken::NoLineEnd),
            None => return Ok(false),
        }

        self.words.push(Span {
            start: start as u32,
            end: end as u32,
        });
        self.missing -= 1;
        self.seen = end + 2;
        Ok(true)
    }

    #[cold]
    fn parse_line(&mut self, data: &[u8], most: Most) -> Result<Option<usize>, Broken> {
        let shown = &data[..data.len().min(most.line.saturating_add(1))];
        let found = shown[self.seen..].iter().position(|byte| *byte == b'\n');
        let Some(at) = found.map(|at| self.seen + at) else {
            self.seen = shown.len();
            return if data.len() > most.line {
                Err(Broken::Line)
            } else {
                Ok(None)
            };
        };

        let line = &data[..at];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        inline::split(line, &mut self.line, &mut self.words).map_err(|bad| match bad {
            BadLine::UnbalancedQuotes => Broken::Quotes,
            BadLine::Foreign => Broken::Foreign,
        })?;
        Ok(Some(at + 1))
    }
}

/// Returns the number in the line that begins `data`, and the place behind it, if it is of that type and
/// has one or two digits. Most lines are so short.
#[inline]
fn short_line(kind: u8, data: &[u8]) -> Option<(i64, usize)> {
    let digit = |byte: u8| i64::from(byte - b'0');
    match *data {
        [first, one @ b'0'..=b'9', b'\r', b'\n', ..] if first == kind => Some((digit(one), 4)),
        [
            first,
            ten @ b'1'..=b'9',
            one @ b'0'..=b'9',
            b'\r',
            b'\n',
            ..,
        ] if first == kind => Some((digit(ten) * 10 + digit(one), 5)),
        _ => None,
    }
}

/// Returns the line at `at`, which is its type and a number, and the place behind it, or `None` if it
/// is incomplete. Fails with `endless` if it is longer than any number.
#[inline]
fn line(data: &[u8], at: usize, endless: Broken) -> Result<Option<(&[u8], usize)>, Broken> {
    let line = &data[at..data.len().min(at + LENGTH_LINE_MOST)];
    let Some(length) = line.iter().position(|byte| *byte == b'\r') else {
        let is_endless = line.len() == LENGTH_LINE_MOST;
        return if is_endless { Err(endless) } else { Ok(None) };
    };
    match data.get(at + length + 1) {
        Some(b'\n') => Ok(Some((&line[..length], at + length + 2))),
        Some(_) => Err(Broken::NoLineEnd),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Most = Most {
        request: 200,
        line: 40,
    };

    /// The first request of `data`, its length, or what is wrong.
    fn parsed(data: &[u8]) -> Result<Option<(Vec<String>, usize)>, Broken> {
        let mut parser = Parser::default();
        let Some(length) = parser.parse(data, MOST)? else {
            return Ok(None);
        };
        let words = match parser.request(data) {
            Some(request) => std::iter::once(request.name())
                .chain(request.arguments())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
            None => Vec::new(),
        };
        Ok(Some((words, length)))
    }

    fn found(words: &[&str], length: usize) -> Result<Option<(Vec<String>, usize)>, Broken> {
        Ok(Some((
            words.iter().map(|it| (*it).to_owned()).collect(),
            length,
        )))
    }

    #[test]
    fn arrays_and_lines_are_requests() {
        assert_eq!(parsed(b"*1\r\n$4\r\nPING\r\nmore"), found(&["PING"], 14));
        assert_eq!(
            parsed(b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n"),
            found(&["ECHO", ""], 20)
        );
        assert_eq!(
            parsed(b"*2\r\n$4\r\nECHO\r\n$4\r\na\r\nb\r\n"),
            found(&["ECHO", "a\r\nb"], 24)
        );
        assert_eq!(parsed(b"PING\r\nmore"), found(&["PING"], 6));
        assert_eq!(parsed(b"echo 'a b'\n"), found(&["echo", "a b"], 11));
        for nothing in ["*0\r\n", "*-1\r\n", "\r\n", "\n"] {
            assert_eq!(
                parsed(nothing.as_bytes()),
                found(&[], nothing.len()),
                "{nothing:?}"
            );
        }
    }

    #[test]
    fn what_is_broken_is_named() {
        for (data, expected) in [
            ("*x\r\n", Broken::Count),
            ("*01\r\n", Broken::Count),
            ("*34\r\n", Broken::Count),
            ("*9223372036854775807\r\n", Broken::Count),
            ("*1\rx", Broken::NoLineEnd),
            ("*1\r\n:1\r\n", Broken::NoBulk(b':')),
            ("*1\r\n$-1\r\n", Broken::Length),
            ("*1\r\n$01\r\na\r\n", Broken::Length),
            ("*1\r\n*1\r\na\r\n", Broken::NoBulk(b'*')),
            ("*1\r\n$191\r\n", Broken::Length),
            ("*1\r\n$99999999999999999999\r\n", Broken::Length),
            ("*1\r\n$1\r\nab\r\n", Broken::NoLineEnd),
            ("echo 'a\r\n", Broken::Quotes),
            ("GET / HTTP/1.1\r\n", Broken::Foreign),
        ] {
            assert_eq!(parsed(data.as_bytes()), Err(expected), "{data:?}");
        }
        // As many words as could fit, but for the line in front of them.
        let words = ["*33\r\n", &"$0\r\n\r\n".repeat(33)].concat();
        assert_eq!(parsed(words.as_bytes()), Err(Broken::Length));
        let words = ["*32\r\n", &"$0\r\n\r\n".repeat(32)].concat();
        assert!(matches!(parsed(words.as_bytes()), Ok(Some((_, 197)))));

        let long = "1".repeat(63);
        assert_eq!(
            parsed(format!("*{long}").as_bytes()),
            Err(Broken::CountLine)
        );
        assert_eq!(
            parsed(format!("*1\r\n${long}").as_bytes()),
            Err(Broken::LengthLine)
        );
        assert_eq!(parsed("a".repeat(41).as_bytes()), Err(Broken::Line));
        assert_eq!(parsed("a".repeat(40).as_bytes()), Ok(None));
    }

    /// What was seen is replaced between the calls, so a second look at it would be noticed.
    #[test]
    fn no_byte_is_looked_at_twice() {
        let request = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n";
        let mut parser = Parser::default();
        let mut hidden = Vec::new();
        for (at, byte) in request.iter().enumerate() {
            hidden.push(*byte);
            let seen = parser.seen;
            hidden[..seen].fill(b'x');
            // The first byte tells the kind of a request until its first line is complete.
            if parser.missing == 0 {
                hidden[0] = b'*';
            }
            let whole = at + 1 == request.len();
            assert_eq!(
                parser.parse(&hidden, MOST),
                Ok(whole.then_some(request.len()))
            );
        }
        assert_eq!(parser.words.len(), 3);
    }

    #[test]
    fn many_words_are_charged_and_freed() {
        let most = Most {
            request: 1 << 20,
            line: 40,
        };
        let mut data = b"*1000\r\n".to_vec();
        data.extend(b"$0\r\n\r\n".repeat(999));
        let mut parser = Parser::default();
        assert_eq!(parser.parse(&data, most), Ok(None));
        assert!(parser.held() >= 999 * 8, "{}", parser.held());
        data.extend(b"$0\r\n\r\n");
        assert_eq!(parser.parse(&data, most), Ok(Some(data.len())));
        parser.reset();
        assert_eq!(parser.held(), 0);
    }
}

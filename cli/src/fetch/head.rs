//! The head of an HTTP response: what it says of the body that follows.

use std::fmt;

use httparse::{EMPTY_HEADER, Header, Response, Status};
use serveloop::ProtocolError;

use super::body::Body;
use crate::escaped::Escaped;

/// More headers than this are refused.
const HEADERS_MOST: usize = 100;

#[derive(Debug)]
pub(crate) struct Head {
    status: u16,
    reason: String,
    lines: Vec<u8>,
    /// Where else to ask, if it says so.
    pub(crate) location: Option<String>,
    /// How many bytes the body has, if that is known.
    pub(crate) length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    /// Reads a head, which ends with its empty line.
    ///
    /// # Errors
    /// It is none, or contradicts itself.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, ProtocolError> {
        let mut headers = [EMPTY_HEADER; HEADERS_MOST];
        let mut response = Response::new(&mut headers);
        match response.parse(head) {
            Ok(Status::Complete(_)) => {}
            Ok(Status::Partial) => return Err(malformed("the head ends early")),
            Err(error) => return Err(malformed(format!("no HTTP response: {error}"))),
        }
        let headers = &*response.headers;
        let (is_chunked, length) = (is_chunked(headers)?, length(headers)?);
        if is_chunked && length.is_some() {
            let problem = "both Content-Length and Transfer-Encoding: where does the body end?";
            return Err(malformed(problem));
        }
        Ok(Self {
            status: response.code.unwrap_or_default(),
            reason: response.reason.unwrap_or_default().to_owned(),
            lines: head.trim_ascii_end().to_vec(),
            location: values(headers, "location").next().map(lossy),
            length,
            is_chunked,
        })
    }

    /// Whether the response itself is still to come.
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status)
    }

    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether to ask at `location` instead.
    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308) && self.location.is_some()
    }

    /// The body that follows.
    pub(crate) fn body(&self) -> Body {
        match (self.status, self.is_chunked, self.length) {
            (204 | 304, ..) => Body::Sized(0),
            (_, true, _) => Body::chunked(),
            (_, false, Some(length)) => Body::Sized(length),
            (_, false, None) => Body::ToEnd,
        }
    }

    /// All lines of the head, without what could command a terminal.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Escaped<'_>> {
        let lines = self.lines.split(|byte| *byte == b'\n');
        lines.map(|line| Escaped(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}

impl fmt::Display for Head {
    /// The status, as a person wants it told.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status, self.reason.trim_ascii())
    }
}

fn is_chunked(headers: &[Header<'_>]) -> Result<bool, ProtocolError> {
    let mut codings = values(headers, "transfer-encoding").peekable();
    if codings.peek().is_none() {
        return Ok(false);
    }
    let codings: Vec<_> = codings.map(lossy).collect();
    let codings = codings.join(", ");
    if !codings.eq_ignore_ascii_case("chunked") {
        return Err(malformed(format!(
            "an unknown Transfer-Encoding: {codings}"
        )));
    }
    Ok(true)
}

/// The length of the body. Said several times, it must be the same.
fn length(headers: &[Header<'_>]) -> Result<Option<u64>, ProtocolError> {
    let mut length = None;
    let said =
        values(headers, "content-length").flat_map(|value| value.split(|byte| *byte == b','));
    for value in said {
        let digits = lossy(value);
        // `parse` takes a sign, too.
        let number = digits.parse().ok();
        let number = number.filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = number.filter(|number| length.is_none_or(|length| length == *number))
        else {
            return Err(malformed(format!("a Content-Length of \"{digits}\"")));
        };
        length = Some(number);
    }
    Ok(length)
}

fn values<'h>(headers: &'h [Header<'h>], name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

fn lossy(value: &[u8]) -> String {
    String::from_utf8_lossy(value.trim_ascii()).into_owned()
}

fn malformed(problem: impl Into<String>) -> ProtocolError {
    ProtocolError::malformed(problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &str) -> Result<Head, String> {
        let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n");
        Head::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_body_is_as_the_headers_say() {
        assert!(matches!(head("").unwrap().body(), Body::ToEnd));
        let sized = head("content-LENGTH: 5\r\n").unwrap();
        assert!(matches!(sized.body(), Body::Sized(5)));
        let twice = head("Content-Length: 5, 5\r\nContent-Length: 5\r\n").unwrap();
        assert!(matches!(twice.body(), Body::Sized(5)));
        let chunked = head("Transfer-Encoding: Chunked\r\n").unwrap();
        assert!(matches!(chunked.body(), Body::Chunked(_)));
        let empty = Head::parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert!(matches!(empty.body(), Body::Sized(0)));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let cases = [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                "both Content-Length and",
            ),
            ("Content-Length: -5\r\n", "a Content-Length of \"-5\""),
            ("Content-Length: +5\r\n", "a Content-Length of \"+5\""),
            ("Content-Length: five\r\n", "a Content-Length of \"five\""),
            ("Content-Length: \r\n", "a Content-Length of \"\""),
            (
                "Content-Length: 99999999999999999999\r\n",
                "a Content-Length of",
            ),
            (
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                "a Content-Length of \"6\"",
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                "an unknown Transfer-Encoding: gzip, chunked",
            ),
            (
                "Transfer-Encoding: \u{9b}2J\r\n",
                "an unknown Transfer-Encoding: \\u{9b}2J",
            ),
            ("no header\r\n", "no HTTP response: invalid header name"),
        ];
        for (headers, problem) in cases {
            let error = head(headers).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
        let many = "a: b\r\n".repeat(HEADERS_MOST + 1);
        assert_eq!(
            head(&many).unwrap_err(),
            "malformed: no HTTP response: too many headers"
        );
    }

    #[test]
    fn the_status_is_told_as_it_is() {
        let head = Head::parse(b"HTTP/1.0 404 Not Found\r\nX: \"a\"\x1b[2J\r\n\r\n");
        assert!(head.is_err(), "a header holds no escape");
        let head = b"HTTP/1.0 404 Not Found\r\nX: \"it's\" \xc2\x9b2J\r\n\r\n";
        let head = Head::parse(head).unwrap();
        assert_eq!(head.to_string(), "404 Not Found");
        let lines: Vec<_> = head.lines().map(|line| line.to_string()).collect();
        assert_eq!(lines, ["HTTP/1.0 404 Not Found", r#"X: "it's" \u{9b}2J"#]);
        assert!(!head.is_success() && !head.is_redirect() && !head.is_interim());
    }
}

//! The head of an HTTP response, and what it says about the body.

use std::fmt;

use serveloop::ProtocolError;

use super::body::Body;
use super::lines::{status_line, without_cr};
use crate::escaped::Escaped;

/// The parts of a response's head that matter here. All other lines are ignored, whatever they
/// contain, unless they concern the end of the body or a redirection.
#[derive(Debug)]
pub(crate) struct Head {
    status: u16,
    reason: Vec<u8>,
    lines: Vec<u8>,
    /// The location of a redirection, if there is one.
    pub(crate) location: Option<String>,
    /// The length of the body in bytes, if it is known.
    pub(crate) length: Option<u64>,
    is_chunked: bool,
}

impl Head {
    /// Parses a head, including the empty line that ends it.
    ///
    /// # Errors
    /// Fails if it is not a valid head, or is ambiguous about where the body ends.
    pub(crate) fn parse(head: &[u8]) -> Result<Self, ProtocolError> {
        let mut lines = head.split(|byte| *byte == b'\n').map(without_cr);
        let first = lines.find(|line| !line.is_empty()).unwrap_or_default();
        let (status, reason) = status_line(first)?;

        let headers = headers(lines);
        // A response without a body has no length either, whatever its headers say.
        let (is_chunked, length) = match status {
            100..200 | 204 | 304 => (false, Some(0)),
            _ => (is_chunked(&headers)?, length(&headers)?),
        };
        if is_chunked && length.is_some() {
            let problem =
                "both Content-Length and Transfer-Encoding: the end of the body is unclear";
            return Err(malformed(problem));
        }

        let location = values(&headers, "location").map(reference).next();
        Ok(Self {
            status,
            reason: reason.to_vec(),
            lines: head.trim_ascii().to_vec(),
            location: location.filter(|location| !location.is_empty()),
            length,
            is_chunked,
        })
    }

    /// Returns whether this is an interim response, which comes before the final one. A switch of
    /// protocols (101), which was not requested, does not count: no response follows it.
    pub(crate) fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// Returns whether the complete resource follows. A part (206) was never requested.
    pub(crate) fn is_success(&self) -> bool {
        (200..300).contains(&self.status) && self.status != 206
    }

    /// Returns whether to ask at `location` instead.
    pub(crate) fn is_redirect(&self) -> bool {
        matches!(self.status, 301 | 302 | 303 | 307 | 308) && self.location.is_some()
    }

    /// Returns how the body that follows is delimited.
    pub(crate) fn body(&self) -> Body {
        match (self.is_chunked, self.length) {
            (true, _) => Body::chunked(),
            (false, Some(length)) => Body::Sized(length),
            (false, None) => Body::ToEnd,
        }
    }

    /// Returns all lines of the head, escaped so that they cannot control a terminal.
    pub(crate) fn lines(&self) -> impl Iterator<Item = Escaped<'_>> {
        let lines = self.lines.split(|byte| *byte == b'\n');
        lines.map(|line| Escaped(without_cr(line)))
    }
}

impl fmt::Display for Head {
    /// Writes the status and its reason, without escaping them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        match self.reason.trim_ascii() {
            b"" => Ok(()),
            reason => write!(f, " {}", String::from_utf8_lossy(reason)),
        }
    }
}

/// A header with a valid name.
struct Header {
    name: Vec<u8>,
    value: Vec<u8>,
}

/// Collects the headers among `lines`. A line that begins with a blank continues the one before it.
fn headers<'h>(lines: impl Iterator<Item = &'h [u8]>) -> Vec<Header> {
    let mut headers: Vec<Header> = Vec::new();
    let mut continues = false;
    for line in lines {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            // A continuation before the first header, or after a line that is not a header, is
            // ignored.
            if let Some(last) = headers.last_mut().filter(|_| continues) {
                last.value.push(b' ');
                last.value.extend_from_slice(line);
            }
            continue;
        }

        let header = header(line);
        continues = header.is_some();
        headers.extend(header);
    }
    headers
}

fn header(line: &[u8]) -> Option<Header> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    // A blank before the colon is invalid, but servers send it, and the name is meant without it.
    let name = line[..colon].trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|byte| is_token(*byte));
    is_name.then(|| Header {
        name: name.to_vec(),
        value: line[colon + 1..].to_vec(),
    })
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The codings that change nothing. The second is not in the standard, but servers send it.
const WITHOUT_EFFECT: [&[u8]; 2] = [b"identity", b"none"];

/// Returns whether the body is chunked. Naming the coding twice means the same as once.
fn is_chunked(headers: &[Header]) -> Result<bool, ProtocolError> {
    let mut is_chunked = false;
    for coding in elements(headers, "transfer-encoding") {
        let has_no_effect = WITHOUT_EFFECT
            .iter()
            .any(|name| coding.eq_ignore_ascii_case(name));

        if coding.eq_ignore_ascii_case(b"chunked") {
            is_chunked = true;
        } else if !has_no_effect {
            return Err(malformed(format!(
                "unknown Transfer-Encoding: {}",
                lossy(coding)
            )));
        }
    }
    Ok(is_chunked)
}

/// Returns the length of the body. If it is given several times, all values must be equal.
fn length(headers: &[Header]) -> Result<Option<u64>, ProtocolError> {
    let refused = |value: &[u8]| malformed(format!("bad Content-Length: \"{}\"", lossy(value)));
    let mut length = None;
    for digits in elements(headers, "content-length") {
        let number = std::str::from_utf8(digits).ok();
        // `parse` also accepts a sign.
        let number = number.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number = number.and_then(|digits| digits.parse().ok());
        let number = number.filter(|number| length.is_none_or(|length| length == *number));
        length = Some(number.ok_or_else(|| refused(digits))?);
    }

    let is_empty = length.is_none() && values(headers, "content-length").next().is_some();
    if is_empty {
        return Err(refused(b""));
    }
    Ok(length)
}

/// Returns the elements of a list in one or several headers. Empty elements are skipped.
fn elements<'h>(headers: &'h [Header], name: &str) -> impl Iterator<Item = &'h [u8]> {
    values(headers, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

fn values<'h>(headers: &'h [Header], name: &str) -> impl Iterator<Item = &'h [u8]> {
    headers
        .iter()
        .filter(move |header| header.name.eq_ignore_ascii_case(name.as_bytes()))
        .map(|header| &*header.value)
}

/// Converts the value of a header to a URL. Bytes that are not ASCII are percent-encoded one by
/// one, in whatever encoding they are.
fn reference(value: &[u8]) -> String {
    let bytes = value.trim_ascii().iter();
    let escaped = bytes.map(|byte| match byte {
        0..=0x7f => char::from(*byte).to_string(),
        _ => format!("%{byte:02X}"),
    });
    escaped.collect()
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
            ("Content-Length: 5, 6\r\n", "bad Content-Length: \"6\""),
            (
                "Content-Length:\r\n five\r\n",
                "bad Content-Length: \"five\"",
            ),
            ("Content-Length : 5\r\nContent-Length: 6\r\n", "\"6\""),
            ("Content-Length: -5\r\n", "bad Content-Length: \"-5\""),
            ("Content-Length: +5\r\n", "bad Content-Length: \"+5\""),
            ("Content-Length: five\r\n", "bad Content-Length: \"five\""),
            ("Content-Length: \r\n", "bad Content-Length: \"\""),
            (
                "Content-Length: 99999999999999999999\r\n",
                "bad Content-Length:",
            ),
            (
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                "bad Content-Length: \"6\"",
            ),
            (
                "Transfer-Encoding: gzip, chunked\r\n",
                "unknown Transfer-Encoding: gzip",
            ),
            (
                "Transfer-Encoding: \u{9b}2J\r\n",
                "unknown Transfer-Encoding: \\u{9b}2J",
            ),
        ];

        for (headers, problem) in cases {
            let error = head(headers).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn a_line_that_says_nothing_of_the_body_is_ignored() {
        let long = "a: b\r\n".repeat(10_000);
        for line in [
            "Server : x\r\n",
            "X(1): b\r\n",
            "Set-Cookie: a\x01\x1b[2J\0b\r\n",
            "X: a\rContent-Length: 3\r\n",
            "no colon\r\n",
            "Content-Length 3\r\n",
            ": no name\r\n",
            "\u{e9}: \u{e9}\r\n",
            "X: a\r\n Content-Length: 3\r\n",
            "X(1): a\r\n ,3\r\n",
            " Content-Length: 3\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: None\r\n",
            &long,
        ] {
            let head = head(&format!("{line}Content-Length: 5,\r\n")).unwrap();
            assert!(matches!(head.body(), Body::Sized(5)), "{line:?}");
        }
    }

    #[test]
    fn what_has_no_body_has_no_end_of_one() {
        for status in ["100", "102", "103", "204", "304"] {
            for headers in [
                "Content-Length: 1\r\nContent-Length: 2\r\n",
                "Content-Length: abc\r\n",
                "Content-Length:\r\n",
                "Transfer-Encoding: gzip\r\n",
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            ] {
                let head = format!("HTTP/1.1 {status} x\r\n{headers}\r\n");
                let head = Head::parse(head.as_bytes()).unwrap();
                assert!(matches!(head.body(), Body::Sized(0)), "{status} {headers}");
            }
        }
    }

    #[test]
    fn locations_keep_their_bytes() {
        let head = Head::parse(b"HTTP/1.1 302 \r\nLocation: /\xfc \xc3\xbc\r\n\r\n").unwrap();
        assert_eq!(head.location.as_deref(), Some("/%FC %C3%BC"));
    }

    #[test]
    fn values_may_be_folded_and_lists_have_gaps() {
        for lines in [
            "Content-Length:\r\n 5\r\n",
            "Content-Length :5\r\n",
            "content-length: ,5 ,,\t5\r\n",
            "Content-Length: 5\nX: y\n",
        ] {
            assert!(matches!(head(lines).unwrap().body(), Body::Sized(5)));
        }

        for lines in [
            "Transfer-Encoding: identity,\r\n\tchunked\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
        ] {
            assert!(matches!(head(lines).unwrap().body(), Body::Chunked(_)));
        }
    }

    #[test]
    fn the_status_is_told_as_it_is() {
        let head = Head::parse(b"HTTP/1.0 404 \x1b[2J\xff\r\n\r\n").unwrap();
        assert_eq!(head.to_string(), "404 \u{1b}[2J\u{fffd}");
        let head = Head::parse(b"HTTP/1.0 404 \r\n\r\n").unwrap();
        assert_eq!(head.to_string(), "404");

        let head = b"HTTP/1.0 404 Not Found\r\nX: \"it's\" \xc2\x9b2J\r\n\r\n";
        let head = Head::parse(head).unwrap();
        assert_eq!(head.to_string(), "404 Not Found");
        let lines: Vec<_> = head.lines().map(|line| line.to_string()).collect();
        assert_eq!(lines, ["HTTP/1.0 404 Not Found", r#"X: "it's" \u{9b}2J"#]);
        assert!(!head.is_success() && !head.is_redirect() && !head.is_interim());
    }
}

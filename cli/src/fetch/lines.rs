//! The lines of an HTTP head: where the head ends, and what its status line says.

use serveloop::ProtocolError;

/// The start of every status line.
const NAME: &[u8] = b"HTTP/";

/// Finds the end of a head: its empty line, whether lines end in CR LF or in a bare line feed.
/// Empty lines before the status line are part of the head.
#[derive(Debug, Default)]
pub(crate) struct HeadEnd {
    /// The start of the line that is still incomplete.
    line: usize,
    /// The position up to which the data has been searched for line ends.
    scanned: usize,
    has_status: bool,
}

impl HeadEnd {
    /// Returns the length of the head at the front of `data`, which is all that is unread, or
    /// `None` while it is incomplete. Use a new `HeadEnd` for the next head.
    ///
    /// # Errors
    /// Fails as soon as the data cannot be an HTTP response.
    pub(crate) fn find(&mut self, data: &[u8]) -> Result<Option<usize>, ProtocolError> {
        while let Some(at) = data[self.scanned..].iter().position(|byte| *byte == b'\n') {
            let line = without_cr(&data[self.line..self.scanned + at]);
            self.scanned += at + 1;
            self.line = self.scanned;

            if line.is_empty() && self.has_status {
                return Ok(Some(self.scanned));
            }
            if !line.is_empty() && !self.has_status {
                status_line(line)?;
                self.has_status = true;
            }
        }
        self.scanned = data.len();

        // A server of another protocol may have sent a greeting, and is now waiting for a reply.
        if !self.has_status {
            check_name(&data[self.line..])?;
        }
        Ok(None)
    }
}

/// Parses a line such as `HTTP/1.1 200 OK` into its status and its reason. Any version from 1 to 3
/// is accepted. One or more blanks must separate it from the status; what separates the reason does
/// not matter.
pub(crate) fn status_line(line: &[u8]) -> Result<(u16, &[u8]), ProtocolError> {
    let read = || {
        let (name, rest) = line.split_at_checked(NAME.len())?;
        let blank = rest.iter().position(|byte| matches!(byte, b' ' | b'\t'))?;
        let (version, rest) = rest.split_at(blank);
        let is_version = matches!(version, [b'1'..=b'3'] | [b'1'..=b'3', b'.', b'0'..=b'9']);

        let (status, reason) = rest.trim_ascii_start().split_at_checked(3)?;
        let is_status = status.iter().all(u8::is_ascii_digit) && status[0] != b'0';
        let is_longer = reason.first().is_some_and(u8::is_ascii_digit);
        let holds = name.eq_ignore_ascii_case(NAME) && is_version && is_status && !is_longer;
        let digits = std::str::from_utf8(status).ok()?;
        holds.then_some((digits.parse().ok()?, reason))
    };
    read().ok_or_else(|| no_response(line))
}

/// Fails if the beginning of a line cannot be that of a status line.
fn check_name(begin: &[u8]) -> Result<(), ProtocolError> {
    // It may be the first half of an empty line.
    let begin = if without_cr(begin).is_empty() {
        b""
    } else {
        begin
    };

    let most = begin.len().min(NAME.len());
    if begin[..most].eq_ignore_ascii_case(&NAME[..most]) {
        return Ok(());
    }
    Err(no_response(begin))
}

fn no_response(line: &[u8]) -> ProtocolError {
    let begin = String::from_utf8_lossy(line);
    ProtocolError::malformed(format!("not an HTTP response: it begins with \"{begin}\""))
}

/// Removes the carriage returns at the end of a line whose line feed is already gone. There may be
/// several: some programs append a line end to a line that already has one.
pub(crate) fn without_cr(mut line: &[u8]) -> &[u8] {
    while let Some(shorter) = line.strip_suffix(b"\r") {
        line = shorter;
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_need_a_version_and_three_digits() {
        for line in [
            "HTTP/1.1 200 OK",
            "HTTP/1.0  200   OK",
            "HTTP/1.1\t200\tOK",
            "HTTP/1.1 200",
            "HTTP/1.1 200 ",
            "HTTP/1.1 200OK",
            "http/1.9 200 \u{1b}",
            "HTTP/2 200",
        ] {
            let (status, _) = status_line(line.as_bytes()).unwrap();
            assert_eq!(status, 200, "{line:?}");
        }

        for line in [
            "",
            "HTTP/",
            "HTTP/1.1",
            "HTTP/1.1 ",
            "HTTP/1.1 20",
            "HTTP/1.1 2000",
            "HTTP/1.1 099",
            "HTTP/1.1 OK",
            "HTTP 200 OK",
            "HTTP/11.1 200 OK",
            "HTTP/0.9 200",
            " HTTP/1.1 200",
            "ICY 200 OK",
        ] {
            let error = status_line(line.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("not an HTTP response"), "{line:?}");
        }
    }

    #[test]
    fn a_head_ends_at_its_empty_line_however_it_is_cut() {
        for head in [
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\nA: b\n\n",
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "\r\n\nHTTP/1.1 200 OK\r\n\n",
            "HTTP/1.1 200 OK\r\nA: \r\r\n \r\n\r\n",
            "\r\r\nHTTP/1.1 200 OK\r\r\nA: b\r\r\r\n\r\r\n",
        ] {
            let mut at_once = HeadEnd::default();
            let stream = format!("{head}\n\nmore");
            assert_eq!(at_once.find(stream.as_bytes()).unwrap(), Some(head.len()));

            let mut bytewise = HeadEnd::default();
            for end in 1..head.len() {
                assert_eq!(bytewise.find(&stream.as_bytes()[..end]).unwrap(), None);
            }
            assert_eq!(bytewise.find(head.as_bytes()).unwrap(), Some(head.len()));
        }
    }

    #[test]
    fn what_is_no_response_is_known_at_once() {
        for begin in [
            "x",
            "HTTQ",
            "220 ready",
            "\r\nSSH-2.0",
            "HTTP/1.1 x\n",
            "\rH",
        ] {
            let error = HeadEnd::default().find(begin.as_bytes()).unwrap_err();
            assert!(
                error.to_string().contains("not an HTTP response"),
                "{begin:?}"
            );
        }

        for begin in ["", "H", "\r", "\r\r", "\n", "htTp/", "HTTP/1.1 x"] {
            assert_eq!(HeadEnd::default().find(begin.as_bytes()).unwrap(), None);
        }
    }
}

//! The end and the content of the body of an HTTP response.

use serveloop::ProtocolError;
use serveloop::framing::Lines;
use serveloop::protocols::counted;

use super::lines::without_cr;

/// The longest line that announces a chunk, including its extensions, in bytes.
const SIZE_LINE_MOST: usize = 300 << 10;

/// The most bytes of all lines after the last chunk, without their line ends. A head has the same
/// limit.
const TRAILERS_MOST: usize = 300 << 10;

/// The longest line end after a chunk, in bytes. No server sends that many carriage returns.
const DATA_END_MOST: usize = 16;

/// The part of a body that is still to come.
#[derive(Debug)]
pub(crate) enum Body {
    /// This many bytes.
    Sized(u64),
    /// Chunks, each after its size.
    Chunked(Part),
    /// All bytes until the connection ends.
    ToEnd,
}

/// The next element of a chunked body.
#[derive(Debug)]
pub(crate) enum Part {
    /// The line that announces a chunk.
    Size(Lines),
    /// This many more bytes of a chunk.
    Data(u64),
    /// The line end after a chunk.
    DataEnd,
    /// The lines after the last chunk, and how many more bytes of them are allowed.
    Trailer(Lines, usize),
    Nothing,
}

/// A piece found at the front of unread bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) content: &'a [u8],
    /// How many unread bytes the piece uses up. It is 0 if too few are there.
    pub(crate) taken: usize,
}

impl Body {
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Part::size())
    }

    /// Returns whether the body is complete.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self, Self::Sized(0) | Self::Chunked(Part::Nothing))
    }

    /// Decodes the next piece at the front of `data`, which is all that is unread.
    ///
    /// # Errors
    /// Fails if the chunks are malformed.
    pub(crate) fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Piece<'a>, ProtocolError> {
        match self {
            Self::Sized(left) => Ok(take(data, left)),
            Self::ToEnd => Ok(Piece {
                content: data,
                taken: data.len(),
            }),
            Self::Chunked(part) => part.decode(data),
        }
    }

    /// Handles the end of the connection.
    ///
    /// # Errors
    /// Fails if the body is not complete.
    pub(crate) fn end(&self) -> Result<(), ProtocolError> {
        match self {
            Self::ToEnd => Ok(()),
            _ if self.is_complete() => Ok(()),
            Self::Sized(left) => {
                let left = counted(*left, "byte", "bytes");
                let problem = format!("the connection ended {left} before the end of the body");
                Err(ProtocolError::other(problem))
            }
            Self::Chunked(_) => {
                let problem = "the connection ended before the last chunk";
                Err(ProtocolError::other(problem))
            }
        }
    }
}

impl Part {
    fn size() -> Self {
        Self::Size(Lines::new(SIZE_LINE_MOST))
    }

    fn decode<'a>(&mut self, data: &'a [u8]) -> Result<Piece<'a>, ProtocolError> {
        let lines = match self {
            Self::Data(left) => {
                let piece = take(data, left);
                if *left == 0 {
                    *self = Self::DataEnd;
                }
                return Ok(piece);
            }
            Self::Nothing => {
                return Ok(Piece {
                    content: b"",
                    taken: data.len(),
                });
            }
            Self::DataEnd => {
                let taken = data_end(data)?;
                if taken > 0 {
                    *self = Self::size();
                }
                return Ok(Piece {
                    content: b"",
                    taken,
                });
            }
            Self::Size(lines) | Self::Trailer(lines, _) => lines,
        };

        let line = lines.decode(data).map_err(|_| self.too_long())?;
        let Some(line) = line else {
            return Ok(Piece {
                content: b"",
                taken: 0,
            });
        };
        self.advance(without_cr(line.message))?;
        Ok(Piece {
            content: b"",
            taken: line.taken,
        })
    }

    /// Processes a line, without its end.
    fn advance(&mut self, line: &[u8]) -> Result<(), ProtocolError> {
        *self = match self {
            Self::Trailer(..) if line.is_empty() => Self::Nothing,
            Self::Trailer(_, most) => {
                // All lines share one limit, which also bounds many short ones.
                let most = most.saturating_sub(line.len());
                Self::Trailer(Lines::new(most), most)
            }
            _ => match chunk_size(line)? {
                0 => Self::Trailer(Lines::new(TRAILERS_MOST), TRAILERS_MOST),
                size => Self::Data(size),
            },
        };

        Ok(())
    }

    /// Returns the error for a line that is too long.
    fn too_long(&self) -> ProtocolError {
        ProtocolError::malformed(match self {
            Self::Trailer(..) => {
                format!("more than {TRAILERS_MOST} bytes of trailers after the last chunk")
            }
            _ => format!("the line with a chunk's size is longer than {SIZE_LINE_MOST} bytes"),
        })
    }
}

/// Returns the length of the line end at the front of `data`, or 0 if it is incomplete.
fn data_end(data: &[u8]) -> Result<usize, ProtocolError> {
    let end = data.iter().position(|byte| *byte != b'\r');
    match end.map(|at| (at, data[at])) {
        Some((at, b'\n')) if at <= DATA_END_MOST => Ok(at + 1),
        None if data.len() <= DATA_END_MOST => Ok(0),
        _ => Err(ProtocolError::malformed(
            "a chunk is longer than its size says",
        )),
    }
}

/// Takes up to `left` bytes from the front of `data`, and reduces `left` by their number.
fn take<'a>(data: &'a [u8], left: &mut u64) -> Piece<'a> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let content = &data[..data.len().min(most)];
    *left -= content.len() as u64;
    Piece {
        content,
        taken: content.len(),
    }
}

/// Parses the size that a line announces: hexadecimal digits, which end at an extension or a blank.
/// Anything may follow a blank.
fn chunk_size(line: &[u8]) -> Result<u64, ProtocolError> {
    let is_end = |byte: &u8| matches!(byte, b';' | b' ' | b'\t');
    let digits = line.split(is_end).next().unwrap_or_default();
    let problem = || {
        let line = String::from_utf8_lossy(line);
        ProtocolError::malformed(format!("expected the size of a chunk, got \"{line}\""))
    };

    // `from_str_radix` also accepts a sign.
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(problem());
    }

    let digits = std::str::from_utf8(digits).map_err(|_| problem())?;
    let size = u64::from_str_radix(digits, 16).map_err(|_| problem())?;

    // No file can be larger.
    if i64::try_from(size).is_err() {
        return Err(problem());
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the content of a whole body, decoded byte by byte as a session would.
    fn content(mut body: Body, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let (mut content, mut from) = (Vec::new(), 0);
        for to in 1..=bytes.len() {
            while from < to {
                let piece = body
                    .decode(&bytes[from..to])
                    .map_err(|error| error.to_string())?;
                content.extend_from_slice(piece.content);
                from += piece.taken;
                if piece.taken == 0 {
                    break;
                }
            }
        }

        body.end().map_err(|error| error.to_string())?;
        Ok(content)
    }

    fn chunked(bytes: &str) -> Result<String, String> {
        content(Body::chunked(), bytes.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn chunks_are_joined() {
        let hello = Ok("hello, world".to_owned());
        assert_eq!(chunked("5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"), hello);
        assert_eq!(
            chunked("C;name=\"v\";x\r\nhello, world\r\n000\r\n\r\n"),
            hello
        );
        assert_eq!(
            chunked("c  \r\nhello, world\r\n0;last\r\nDigest: 1\r\nMore: 2\r\n\r\n"),
            hello
        );
        assert_eq!(chunked("C what is this\nhello, world\n0\n\n"), hello);
        assert_eq!(
            chunked("C\r\r\nhello, world\r\r\n0\r\r\nA: b\r\r\n\r\r\n"),
            hello
        );

        assert_eq!(chunked("0\r\n\r\n"), Ok(String::new()));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for size in [
            "-5",
            "+5",
            "0x5",
            "five",
            " 5",
            "FFFFFFFFFFFFFFFF",
            "8000000000000000",
            "10000000000000000",
        ] {
            let error = chunked(&format!("{size}\r\nhello\r\n")).unwrap_err();
            assert!(
                error.contains(&format!("expected the size of a chunk, got \"{size}\"")),
                "{error}"
            );
        }

        assert!(
            chunked("\r\n")
                .unwrap_err()
                .contains("expected the size of a chunk")
        );
        assert!(
            chunked("5\r\nhello!\r\n")
                .unwrap_err()
                .contains("longer than its size says")
        );
        let error = chunked(&format!("5\r\nhello{}", "\r".repeat(20))).unwrap_err();
        assert!(error.contains("longer than its size says"), "{error}");
    }

    /// Decodes everything at once, since going byte by byte would take too long.
    #[test]
    fn what_is_no_content_has_a_limit_that_nobody_meets() {
        let end = |bytes: &str| {
            let (mut body, mut rest) = (Body::chunked(), bytes.as_bytes());
            while !rest.is_empty() {
                let piece = body.decode(rest).map_err(|error| error.to_string())?;
                if piece.taken == 0 {
                    break;
                }
                rest = &rest[piece.taken..];
            }
            body.end().map_err(|error| error.to_string())
        };

        let extension = "x".repeat(SIZE_LINE_MOST - 2);
        let trailers = "a: b\r\n".repeat(5_000);
        assert_eq!(
            end(&format!("5;{extension}\r\nhello\r\n0\r\n{trailers}\r\n")),
            Ok(())
        );

        let error = end(&format!("5;{extension}xx")).unwrap_err();
        assert!(error.contains("is longer than"), "{error}");
        let error = end(&format!(
            "0\r\n{}",
            "a: b\r\n".repeat(TRAILERS_MOST / 4 + 1)
        ));
        let error = error.unwrap_err();
        assert!(error.contains("after the last chunk"), "{error}");
    }

    #[test]
    fn an_end_that_comes_early_is_told() {
        for bytes in ["", "5\r\nhel", "5\r\nhello\r\n", "0\r\n", "5"] {
            let error = chunked(bytes).unwrap_err();
            assert_eq!(error, "the connection ended before the last chunk");
        }
        assert_eq!(content(Body::Sized(5), b"hello").unwrap(), b"hello");
        let error = content(Body::Sized(5), b"hel").unwrap_err();
        assert_eq!(
            error,
            "the connection ended 2 bytes before the end of the body"
        );
        assert_eq!(content(Body::ToEnd, b"hel").unwrap(), b"hel");
    }
}

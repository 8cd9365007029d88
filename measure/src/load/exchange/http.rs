//! Replies of HTTP/1.1. The head may change from reply to reply, as the date does; the body may not.

use crate::load::exchange::{Check, Step, Talk, Wrong, quoted};

/// The longest head, and the longest line of a chunked body, in bytes.
const HEAD_MOST: usize = 64 * 1024;

/// The part of the reply that comes next.
#[derive(Clone, Copy, Debug, Default)]
enum Part {
    #[default]
    Head,
    /// This many bytes of a body with a length.
    Body(u64),
    ChunkSize,
    /// This many bytes of a chunk.
    Chunk(u64),
    /// The line end behind a chunk.
    ChunkEnd,
    Trailer,
}

#[derive(Debug, Default)]
pub(super) struct HttpReader(Part);

/// The head of a reply.
#[derive(Debug)]
pub(super) struct Head<'a> {
    pub(super) status: u16,
    fields: &'a str,
    /// How many bytes it has.
    pub(super) size: usize,
}

/// Returns a request for `path`, with the lines of `more`.
pub(super) fn get(host: &str, path: &str, more: &str) -> Result<Vec<u8>, String> {
    let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !path.starts_with('/') || !is_plain(path) {
        return Err(
            "a path begins with a slash and has no spaces, for example /index.html".to_owned(),
        );
    }
    if !is_plain(host) {
        return Err(format!(
            "{} cannot be the host of a request",
            quoted(host.as_bytes())
        ));
    }
    let host = if host.is_empty() { "localhost" } else { host };
    Ok(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n").into_bytes())
}

impl<'a> Head<'a> {
    /// Parses the head at the start of `data`. Returns `None` if its end has yet to come.
    pub(super) fn parse(data: &'a [u8]) -> Result<Option<Self>, Wrong> {
        let shown = &data[..data.len().min(HEAD_MOST)];
        let Some(end) = shown.windows(4).position(|four| four == b"\r\n\r\n") else {
            return match data.len() < HEAD_MOST {
                true if b"HTTP/1.".starts_with(&data[..data.len().min(7)]) => Ok(None),
                true => Err(format!("{} is no reply of HTTP/1.1", quoted(data))),
                false => Err("a reply with a head of more than 64 KiB".to_owned()),
            };
        };

        let malformed = || format!("{} is no reply of HTTP/1.1", quoted(data));
        let text = str::from_utf8(&data[..end + 2]).map_err(|_| malformed())?;
        let (line, fields) = text.split_once("\r\n").ok_or_else(malformed)?;
        let version = line.strip_prefix("HTTP/1.").ok_or_else(malformed)?;
        let status = version.get(2..5).and_then(|digits| digits.parse().ok());
        Ok(Some(Self {
            status: status.ok_or_else(malformed)?,
            fields,
            size: end + 4,
        }))
    }

    /// Returns the value of a field, which is given in lower case.
    pub(super) fn field(&self, name: &str) -> Option<&'a str> {
        self.fields.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Returns what follows the head.
    fn body(&self) -> Result<Part, Wrong> {
        if let Some(coding) = self.field("transfer-encoding") {
            return match coding.eq_ignore_ascii_case("chunked") {
                true => Ok(Part::ChunkSize),
                false => Err(format!(
                    "a reply with an unknown Transfer-Encoding, {coding:?}"
                )),
            };
        }
        if self.status == 204 {
            return Ok(Part::Body(0));
        }
        match self.field("content-length").map(str::parse) {
            Some(Ok(length)) => Ok(Part::Body(length)),
            Some(Err(_)) => Err("a reply with a Content-Length that is no number".to_owned()),
            None => Err("a reply without a length, which ends only with its connection".to_owned()),
        }
    }
}

impl HttpReader {
    pub(super) fn read(
        &mut self,
        data: &[u8],
        check: &mut Check,
        talk: &Talk,
    ) -> Result<Step, Wrong> {
        let taken = match self.0 {
            Part::Head => return self.head(data, check, talk),
            Part::Body(rest) => {
                let taken = content(rest, data, check, talk)?;
                self.0 = Part::Body(rest - taken as u64);
                return self.step(taken, check, talk);
            }
            Part::Chunk(rest) => {
                let taken = content(rest, data, check, talk)?;
                self.0 = match rest - taken as u64 {
                    0 => Part::ChunkEnd,
                    rest => Part::Chunk(rest),
                };
                taken
            }
            Part::ChunkSize | Part::ChunkEnd | Part::Trailer => {
                return self.line(data, check, talk);
            }
        };
        Ok(Step {
            taken,
            ended: false,
        })
    }

    fn head(&mut self, data: &[u8], check: &mut Check, talk: &Talk) -> Result<Step, Wrong> {
        let Some(head) = Head::parse(data)? else {
            return Ok(Step::default());
        };
        match head.status {
            // What comes before the reply, such as 103.
            100 | 102..200 => {}
            200..300 => self.0 = head.body()?,
            status => {
                return Err(format!(
                    "a reply with the status {status}, which is not from 200 to 299"
                ));
            }
        }
        self.step(head.size, check, talk)
    }

    /// Reads a line of a chunked body.
    fn line(&mut self, data: &[u8], check: &mut Check, talk: &Talk) -> Result<Step, Wrong> {
        let Some(end) = data.iter().position(|byte| *byte == b'\n') else {
            return match data.len() < HEAD_MOST {
                true => Ok(Step::default()),
                false => Err("a chunk with a line of more than 64 KiB".to_owned()),
            };
        };

        let line = data[..end].trim_ascii();
        let is_done = line.is_empty() && matches!(self.0, Part::Trailer);
        self.0 = match self.0 {
            Part::ChunkSize => match chunk_size(line)? {
                0 => Part::Trailer,
                size => Part::Chunk(size),
            },
            Part::ChunkEnd if !line.is_empty() => {
                return Err("a chunk that is longer than it says".to_owned());
            }
            Part::ChunkEnd => Part::ChunkSize,
            _ if is_done => Part::Body(0),
            part => part,
        };
        self.step(end + 1, check, talk)
    }

    /// Ends the reply if nothing of it is missing.
    fn step(&mut self, taken: usize, check: &mut Check, talk: &Talk) -> Result<Step, Wrong> {
        let ended = matches!(self.0, Part::Body(0));
        if ended {
            self.0 = Part::Head;
            check.end(talk)?;
        }
        Ok(Step { taken, ended })
    }
}

/// Checks what is there of the `rest` bytes of a part. Returns how many those are.
fn content(rest: u64, data: &[u8], check: &mut Check, talk: &Talk) -> Result<usize, Wrong> {
    let taken = usize::try_from(rest).map_or(data.len(), |rest| rest.min(data.len()));
    check.content(&data[..taken], talk)?;
    Ok(taken)
}

fn chunk_size(line: &[u8]) -> Result<u64, Wrong> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let digits = str::from_utf8(digits.trim_ascii()).ok();
    let size = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
    size.ok_or_else(|| format!("{} is not the size of a chunk", quoted(line)))
}

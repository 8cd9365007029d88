//! The head of a request: where it ends, and whether it keeps to the rules.
//!
//! What two programs could read differently is refused, because one of them may be a proxy that
//! decides where a request ends (request smuggling).

use std::mem::MaybeUninit;

use httparse::{Error, Header};
use memchr::memchr;
use serveloop::Limits;
use serveloop::protocols::counted;

use crate::body::Framing;
use crate::rejection::Rejection;
use crate::request::{Headers, Version, authority, list};
use crate::settings::{FIELDS_MOST, Settings};

/// How far the head that is arriving has been read, so that no byte is looked at twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scan {
    /// Where the line begins that is not complete.
    line: usize,
    /// How many bytes have been searched.
    seen: usize,
}

impl Scan {
    /// Returns whether a head has begun.
    pub(crate) fn has_begun(self) -> bool {
        self.seen > 0
    }

    /// Returns whether the request line is there, which only one empty line may precede.
    fn has_request_line(self) -> bool {
        self.line > b"\r\n".len()
    }

    /// Returns the length of the head at the start of `data`, if it is complete. `data` begins with
    /// the same bytes in each call, until a head was found.
    pub(crate) fn find_end(
        &mut self,
        data: &[u8],
        settings: &Settings,
        limits: &Limits,
    ) -> Result<Option<usize>, Rejection> {
        if let Some(first) = data.first().filter(|_| self.seen == 0) {
            check_first(*first)?;
        }

        while let Some(at) = memchr(b'\n', &data[self.seen..]) {
            let end = self.seen + at;
            let line = &data[self.line..end];
            self.check_length(line.len(), end + 1, settings, limits)?;
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(Rejection::bad("a line of the head ends without a CR"));
            };

            let has_request_line = self.has_request_line();
            (self.line, self.seen) = (end + 1, end + 1);
            if line.is_empty() && has_request_line {
                *self = Self::default();
                return Ok(Some(end + 1));
            }
            if line.is_empty() && end > 1 {
                return Err(Rejection::bad("empty lines come before the request"));
            }
        }

        self.seen = data.len();
        self.check_length(data.len() - self.line, data.len(), settings, limits)?;
        Ok(None)
    }

    /// Checks the length of a line, with its CR if that has arrived, which ends at byte `end`.
    fn check_length(
        &self,
        line: usize,
        end: usize,
        settings: &Settings,
        limits: &Limits,
    ) -> Result<(), Rejection> {
        let longest = limits.max_line;
        let most = settings.max_head_within(limits);
        let line_most = longest.saturating_add(1);
        // Of two limits the one that was passed first, so that the answer does not depend on how the
        // stream is cut.
        let is_line_first = self.line.saturating_add(line_most) <= most;

        match (line > line_most, end > most) {
            (true, is_too_much) if is_line_first || !is_too_much => Err(self.too_long(longest)),
            (_, true) => Err(Rejection::new(
                431,
                format!("the head has more than {}", counted(most, "byte", "bytes")),
            )),
            _ => Ok(()),
        }
    }

    fn too_long(&self, most: usize) -> Rejection {
        let most = counted(most, "byte", "bytes");
        match self.has_request_line() {
            false => Rejection::new(414, format!("the request line has more than {most}")),
            true => Rejection::new(431, format!("a header field has more than {most}")),
        }
    }
}

/// Refuses what cannot be a request at its first byte, such as TLS, so that its sender need not wait
/// for a deadline.
fn check_first(first: u8) -> Result<(), Rejection> {
    match first.is_ascii_graphic() || first == b'\r' || first == b'\n' {
        true => Ok(()),
        false => Err(Rejection::bad("the stream does not begin with a method")),
    }
}

/// Room for the fields of a head.
pub(crate) type Fields<'a> = [MaybeUninit<Header<'a>>; FIELDS_MOST];

/// The parts of a valid head.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    pub(crate) method: &'a str,
    pub(crate) target: &'a str,
    pub(crate) version: Version,
    pub(crate) headers: Headers<'a>,
    pub(crate) framing: Framing,
    /// Whether the client would like the connection to go on after the response.
    pub(crate) keeps_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// The protocols that the client would like to change to.
    pub(crate) upgrade: Option<&'a str>,
}

/// Reads a complete head, including the empty line at its end.
pub(crate) fn parse_head<'h, 'a: 'h>(
    bytes: &'a [u8],
    fields: &'h mut Fields<'a>,
    settings: &Settings,
) -> Result<Head<'h>, Rejection> {
    let most = settings.max_fields.min(FIELDS_MOST);
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut fields[..most]) {
        Ok(status) if status.is_complete() => {}
        Ok(_) => return Err(Rejection::bad("the head is not complete")),
        Err(error) => return Err(explain(error, bytes, most)),
    }

    let version = match request.version {
        Some(0) => Version::Http10,
        _ => Version::Http11,
    };
    let (method, target) = (request.method.unwrap_or(""), request.path.unwrap_or(""));
    check_target(method, target)?;

    let mut found = Found::default();
    for field in request.headers.iter() {
        found.note(field)?;
    }
    found.judge(version, method, target, Headers(request.headers))
}

/// What a head says about its connection and its body.
#[derive(Default)]
struct Found<'a> {
    length: Option<u64>,
    transfer: Option<&'a [u8]>,
    host: Option<&'a [u8]>,
    expect: Option<&'a [u8]>,
    upgrade: Option<&'a str>,
    closes: bool,
    keeps_alive: bool,
    upgrades: bool,
}

impl<'a> Found<'a> {
    fn note(&mut self, field: &Header<'a>) -> Result<(), Rejection> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            4 if is("host") => once(&mut self.host, field.value, "Host"),
            6 if is("expect") => once(&mut self.expect, field.value, "Expect"),
            7 if is("upgrade") => {
                self.upgrade = std::str::from_utf8(field.value).ok();
                Ok(())
            }
            10 if is("connection") => {
                self.note_connection(field.value);
                Ok(())
            }
            14 if is("content-length") => once(
                &mut self.length,
                parse_length(field.value)?,
                "Content-Length",
            ),
            17 if is("transfer-encoding") => {
                once(&mut self.transfer, field.value, "Transfer-Encoding")
            }
            _ => Ok(()),
        }
    }

    fn note_connection(&mut self, value: &[u8]) {
        for option in list(value) {
            self.closes |= option.eq_ignore_ascii_case(b"close");
            self.keeps_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrades |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }

    fn judge<'h>(
        self,
        version: Version,
        method: &'h str,
        target: &'h str,
        headers: Headers<'h>,
    ) -> Result<Head<'h>, Rejection>
    where
        'a: 'h,
    {
        let is_current = version == Version::Http11;
        self.check_host(is_current)?;
        let framing = self.framing(is_current)?;

        let expects_continue = match self.expect {
            Some(value) if is_current && !value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(Rejection::new(417, "the only expectation is 100-continue"));
            }
            expect => is_current && expect.is_some() && framing != Framing::Length(0),
        };

        let may_upgrade = is_current && self.upgrades && framing == Framing::Length(0);
        Ok(Head {
            method,
            target,
            version,
            headers,
            framing,
            keeps_alive: !self.closes && (is_current || self.keeps_alive),
            expects_continue,
            upgrade: self.upgrade.filter(|_| may_upgrade),
        })
    }

    fn check_host(&self, is_current: bool) -> Result<(), Rejection> {
        let is_allowed =
            |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
        match self.host {
            None if is_current => Err(Rejection::bad("the field Host is missing")),
            Some(host) if !host.iter().all(is_allowed) => {
                Err(Rejection::bad("the field Host is not a host"))
            }
            _ => Ok(()),
        }
    }

    fn framing(&self, is_current: bool) -> Result<Framing, Rejection> {
        let Some(transfer) = self.transfer else {
            return Ok(Framing::Length(self.length.unwrap_or(0)));
        };
        if self.length.is_some() {
            return Err(Rejection::bad(
                "Content-Length and Transfer-Encoding exclude each other",
            ));
        }
        if !is_current {
            return Err(Rejection::bad("HTTP/1.0 has no Transfer-Encoding"));
        }

        let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        let mut codings = list(transfer);
        match (codings.next(), codings.next()) {
            (Some(only), None) if is_chunked(only) && transfer.len() == only.len() => {
                Ok(Framing::Chunked)
            }
            (None, _) => Err(Rejection::bad("Transfer-Encoding names no coding")),
            // A list with commas at its ends, or a body that is chunked in another coding.
            _ if list(transfer).any(is_chunked) && !is_last_chunked(transfer) => Err(
                Rejection::bad("chunked is not the last coding, or not the only one of its kind"),
            ),
            _ => Err(Rejection::new(501, "the only transfer coding is chunked")),
        }
    }
}

/// Returns whether chunked is the last coding of a list, and only there.
fn is_last_chunked(transfer: &[u8]) -> bool {
    let count = list(transfer)
        .filter(|coding| coding.eq_ignore_ascii_case(b"chunked"))
        .count();
    let last = transfer.rsplit(|byte| *byte == b',').next().unwrap_or(b"");
    count == 1 && list(transfer).count() > 1 && last.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Keeps the value of a field that may come only once, even if the values are the same.
fn once<T>(place: &mut Option<T>, value: T, name: &str) -> Result<(), Rejection> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Rejection::bad(format!("the field {name} comes twice"))),
    }
}

/// Reads the value of Content-Length, which is digits and nothing else.
fn parse_length(value: &[u8]) -> Result<u64, Rejection> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Rejection::bad("Content-Length is not a number"));
    }

    let text = std::str::from_utf8(value).unwrap_or("");
    text.parse()
        .map_err(|_| Rejection::new(413, "Content-Length is too large"))
}

/// Checks that the target has one of the forms that the method allows.
fn check_target(method: &str, target: &str) -> Result<(), Rejection> {
    if !target.bytes().all(|byte| byte.is_ascii_graphic()) || target.contains('#') {
        return Err(Rejection::bad(
            "the target has a character that a URI cannot have",
        ));
    }
    if method == "CONNECT" {
        return Err(Rejection::new(501, "this server is not a proxy"));
    }

    let is_whole =
        || authority(target).is_some_and(|(host, _)| !host.is_empty() && !host.contains('@'));
    match target.starts_with('/') || target == "*" && method == "OPTIONS" || is_whole() {
        true => Ok(()),
        false => Err(Rejection::bad("the target is not a path")),
    }
}

/// Says what is wrong with a head that is not one.
#[cold]
fn explain(error: Error, bytes: &[u8], most: usize) -> Rejection {
    match error {
        Error::TooManyHeaders => {
            let most = counted(most, "header field", "header fields");
            Rejection::new(431, format!("there are more than {most}"))
        }
        Error::HeaderName => Rejection::bad("the name of a header field is not valid"),
        Error::HeaderValue => Rejection::bad("the value of a header field is not valid"),
        Error::NewLine => Rejection::bad("a CR or LF is where no line ends"),
        Error::Version if names_other_version(bytes) => {
            Rejection::new(505, "the version is not HTTP/1.1 or HTTP/1.0")
        }
        Error::Version | Error::Token | Error::Status => {
            Rejection::bad("the request line is not METHOD TARGET HTTP/1.1")
        }
    }
}

/// Returns whether the request line ends like one of another version of HTTP.
fn names_other_version(bytes: &[u8]) -> bool {
    let bytes = bytes.trim_ascii_start();
    let line = &bytes[..memchr(b'\r', bytes).unwrap_or(bytes.len())];
    let words: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let version = match words[..] {
        [_, _, version] => version.strip_prefix(b"HTTP/"),
        _ => None,
    };
    matches!(version, Some([major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

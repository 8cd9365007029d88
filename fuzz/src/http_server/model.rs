//! What RFC 9112 says of a whole stream, read as text by text, without regard to speed.

use super::{MAX_BODY, MAX_FIELDS, MAX_HEAD, MAX_LINE, Outcome};

/// What is left of a stream, or the status of a refusal.
type Parsed<T> = Result<T, u16>;

pub(super) fn read(stream: &[u8]) -> Outcome {
    let mut outcome = Outcome {
        shown: Vec::new(),
        refusal: None,
    };
    let mut rest = stream;
    loop {
        match read_one(rest) {
            Ok(None) => return outcome,
            Ok(Some(read)) => {
                // The body of a POST is only shown when it is there.
                outcome.shown.extend(read.shown);
                if let Some(status) = read.refusal {
                    outcome.refusal = Some(status);
                    return outcome;
                }
                if read.is_last {
                    return outcome;
                }
                rest = read.rest;
            }
            Err(status) => {
                outcome.refusal = Some(status);
                return outcome;
            }
        }
    }
}

struct Read<'a> {
    shown: Option<String>,
    refusal: Option<u16>,
    is_last: bool,
    rest: &'a [u8],
}

/// Reads one request. `None` if nothing is left.
fn read_one(stream: &[u8]) -> Parsed<Option<Read<'_>>> {
    if stream.iter().all(u8::is_ascii_whitespace) && is_blank_end(stream)? {
        return Ok(None);
    }
    let (lines, rest) = head(stream)?;
    let head = Head::of(&lines)?;

    if head.length > Some(MAX_BODY) {
        return Err(413);
    }
    // Whether such a client sends its body is unclear, so it is not read.
    let is_held_back = head.expects && head.method != "POST";
    let mut read = Read {
        shown: None,
        refusal: None,
        is_last: head.closes || is_held_back,
        rest,
    };
    let line = format!("{} {}", head.method, head.target);
    if head.method != "POST" {
        read.shown = Some(line);
        if read.is_last {
            return Ok(Some(read));
        }
        // A body that is wrong after the answer ends the connection.
        match body(rest, head.length) {
            Ok((_, after)) => read.rest = after,
            Err(_) => read.is_last = true,
        }
        return Ok(Some(read));
    }

    let (content, after) = body(rest, head.length)?;
    let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    // A header's value has no blanks at its end.
    read.shown = Some(format!("{line} {hex}").trim_end().to_owned());
    read.rest = after;
    Ok(Some(read))
}

/// Returns whether a stream of blanks only is at most the one empty line that may come before a
/// request, or its beginning.
fn is_blank_end(stream: &[u8]) -> Parsed<bool> {
    match stream {
        b"" | b"\r" | b"\r\n" | b"\r\n\r" => Ok(true),
        _ => Ok(false),
    }
}

/// Returns the lines of a head without their ends, and what follows the empty line.
fn head(stream: &[u8]) -> Parsed<(Vec<&[u8]>, &[u8])> {
    if !(stream[0].is_ascii_graphic() || stream[0] == b'\r' || stream[0] == b'\n') {
        return Err(400);
    }
    let mut lines: Vec<&[u8]> = Vec::new();
    let mut at = 0;
    loop {
        let end = stream[at..]
            .iter()
            .position(|byte| *byte == b'\n')
            .map(|end| at + end);
        let until = end.unwrap_or(stream.len());
        // With its CR, a line may have one byte more.
        let passes_line = at + MAX_LINE + 1 < until;
        let passes_head = end.map_or(stream.len(), |end| end + 1) > MAX_HEAD;
        let is_line_first = at + MAX_LINE < MAX_HEAD;
        if passes_line && (is_line_first || !passes_head) {
            return Err(if lines.is_empty() { 414 } else { 431 });
        }
        if passes_head {
            return Err(431);
        }
        let Some(end) = end else {
            return Err(400);
        };
        let line = stream[at..end].strip_suffix(b"\r").ok_or(400_u16)?;
        let is_first = at == 0;
        at = end + 1;
        match (line.is_empty(), lines.is_empty()) {
            (true, true) if is_first => {}
            (true, true) => return Err(400),
            (true, false) => return Ok((lines, &stream[at..])),
            (false, _) => lines.push(line),
        }
    }
}

struct Head {
    method: String,
    target: String,
    /// `None` for chunks.
    length: Option<u64>,
    expects: bool,
    closes: bool,
}

impl Head {
    fn of(lines: &[&[u8]]) -> Parsed<Self> {
        let (method, target, is_current) = request_line(lines[0])?;
        let fields: Vec<_> = fields(&lines[1..])?;
        if target.contains('#') || !target.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(400);
        }
        if method == "CONNECT" {
            return Err(501);
        }
        let authority = target.split_once("://").filter(|(scheme, _)| {
            ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str())
        });
        let host = authority.map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or(""));
        let is_whole = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
        if !(target.starts_with('/') || target == "*" && method == "OPTIONS" || is_whole) {
            return Err(400);
        }

        let all = |name: &str| -> Vec<&str> {
            let named = fields.iter().filter(|(field, _)| field == name);
            named.map(|(_, value)| value.as_str()).collect()
        };
        let length = in_order(&fields)?;
        let (host, expect, transfer) = (all("host"), all("expect"), all("transfer-encoding"));
        if host.is_empty() && is_current {
            return Err(400);
        }
        let is_host =
            |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte);
        if host.iter().any(|host| !host.bytes().all(is_host)) {
            return Err(400);
        }

        let is_chunked = match transfer[..] {
            [] => false,
            _ if length.is_some() || !is_current => return Err(400),
            [one] => chunked(one)?,
            _ => return Err(400),
        };
        let expects = expect.first().filter(|_| is_current);
        if expects.is_some_and(|expect| !expect.eq_ignore_ascii_case("100-continue")) {
            return Err(417);
        }
        let options: Vec<String> = all("connection")
            .join(",")
            .split(',')
            .map(trimmed)
            .collect();
        let has = |option: &str| options.iter().any(|other| other == option);
        let length = if is_chunked {
            None
        } else {
            Some(length.unwrap_or(0))
        };
        Ok(Self {
            method,
            target,
            length,
            expects: expects.is_some() && length != Some(0),
            closes: has("close") || !is_current && !has("keep-alive"),
        })
    }
}

fn trimmed(text: &str) -> String {
    text.trim().to_ascii_lowercase()
}

/// Whether it is chunked and nothing else. Another coding is not known, unless chunked is there in a
/// place where it cannot be.
fn chunked(value: &str) -> Parsed<bool> {
    let parts: Vec<String> = value.split(',').map(trimmed).collect();
    let named: Vec<&str> = parts
        .iter()
        .map(String::as_str)
        .filter(|part| !part.is_empty())
        .collect();
    let count = named.iter().filter(|part| **part == "chunked").count();
    match (named.len(), count) {
        (0, _) => Err(400),
        (1, 1) if parts.len() == 1 => Ok(true),
        (_, 0) => Err(501),
        (2.., 1) if parts.last().is_some_and(|last| last == "chunked") => Err(501),
        _ => Err(400),
    }
}

/// Finds what is wrong with single fields, in their order, and returns the value of Content-Length.
fn in_order(fields: &[(String, String)]) -> Parsed<Option<u64>> {
    let mut found = None;
    for (at, (name, value)) in fields.iter().enumerate() {
        if name == "content-length" {
            if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(400);
            }
            found = Some(value.parse().map_err(|_| 413_u16)?);
        }
        let is_single =
            ["host", "expect", "content-length", "transfer-encoding"].contains(&name.as_str());
        if is_single && fields[..at].iter().any(|(before, _)| before == name) {
            return Err(400);
        }
    }
    Ok(found)
}

fn request_line(line: &[u8]) -> Parsed<(String, String, bool)> {
    let text = String::from_utf8(line.to_vec()).map_err(|_| 400_u16)?;
    let words: Vec<&str> = text.split(' ').collect();
    let [method, target, version] = words[..] else {
        return Err(400);
    };
    let is_visible =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte > 32 && byte != 127);
    if method.is_empty() || !method.bytes().all(is_token) || !is_visible(target) {
        return Err(400);
    }
    let is_current = match version.as_bytes() {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(505);
        }
        _ => return Err(400),
    };
    Ok((method.to_owned(), target.to_owned(), is_current))
}

fn fields(lines: &[&[u8]]) -> Parsed<Vec<(String, String)>> {
    let mut fields = Vec::new();
    for line in lines {
        // A line that begins like the end of the head is no field too many.
        if fields.len() == MAX_FIELDS && line[0] != b'\r' {
            return Err(431);
        }
        fields.push(field(line).ok_or(400_u16)?);
    }
    Ok(fields)
}

fn field(line: &[u8]) -> Option<(String, String)> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_name = !name.is_empty() && name.iter().copied().all(is_token);
    let is_value = value
        .iter()
        .all(|byte| *byte == b'\t' || *byte >= 32 && *byte != 127);
    // A byte becomes a character of the same number, so that nothing is lost.
    let text = |bytes: &[u8]| -> String { bytes.iter().copied().map(char::from).collect() };
    let value = text(value).trim_matches([' ', '\t']).to_owned();
    (is_name && is_value).then(|| (text(name).to_ascii_lowercase(), value))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Returns the content of a body and what follows it.
fn body(stream: &[u8], length: Option<u64>) -> Parsed<(Vec<u8>, &[u8])> {
    let Some(length) = length else {
        return chunks(stream);
    };
    let length = usize::try_from(length).map_err(|_| 413_u16)?;
    match stream.split_at_checked(length) {
        Some((content, rest)) => Ok((content.to_vec(), rest)),
        None => Err(400),
    }
}

fn chunks(mut stream: &[u8]) -> Parsed<(Vec<u8>, &[u8])> {
    let mut content = Vec::new();
    loop {
        let (size, rest) = line(stream, 256)?;
        let digits = size
            .iter()
            .take_while(|byte| byte.is_ascii_hexdigit())
            .count();
        if digits == 0 || digits > 15 || !is_extension_list(&size[digits..]) {
            return Err(400);
        }
        let text = std::str::from_utf8(&size[..digits]).expect("digits");
        let size = u64::from_str_radix(text, 16).expect("a number");
        if size > MAX_BODY - content.len() as u64 {
            return Err(413);
        }
        if size == 0 {
            return Ok((content, trailers(rest)?));
        }
        let (chunk, rest) = rest.split_at_checked(size as usize).ok_or(400_u16)?;
        content.extend_from_slice(chunk);
        stream = rest.strip_prefix(b"\r\n").ok_or(400_u16)?;
    }
}

fn trailers(mut stream: &[u8]) -> Parsed<&[u8]> {
    let mut room = MAX_LINE;
    loop {
        let (text, rest) = line(stream, room)?;
        if text.is_empty() {
            return Ok(rest);
        }
        field(text).ok_or(400_u16)?;
        room -= (text.len() + 2).min(room);
        stream = rest;
    }
}

/// Returns a line without its end, and what follows.
fn line(stream: &[u8], most: usize) -> Parsed<(&[u8], &[u8])> {
    let end = stream.iter().position(|byte| *byte == b'\n');
    if end.unwrap_or(stream.len()) > most + 1 {
        return Err(431);
    }
    let end = end.ok_or(400_u16)?;
    let line = stream[..end].strip_suffix(b"\r").ok_or(400_u16)?;
    Ok((line, &stream[end + 1..]))
}

/// Whether these are extensions of a chunk's size: `;name`, `;name=token` or `;name="text"`.
fn is_extension_list(bytes: &[u8]) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Place {
        Start,
        Name(bool),
        Value(bool),
        Quoted,
        Escaped,
    }
    let mut place = Place::Start;
    for byte in bytes.iter().copied() {
        place = match (place, byte) {
            (Place::Start | Place::Name(true) | Place::Value(true), b';') => Place::Name(false),
            (Place::Name(true), b'=') => Place::Value(false),
            (Place::Name(_), byte) if is_token(byte) => Place::Name(true),
            (Place::Value(false), b'"') => Place::Quoted,
            (Place::Value(_), byte) if is_token(byte) => Place::Value(true),
            (Place::Quoted, b'"') => Place::Start,
            (Place::Quoted, b'\\') => Place::Escaped,
            (Place::Quoted | Place::Escaped, byte)
                if byte == b'\t' || byte >= 32 && byte != 127 =>
            {
                Place::Quoted
            }
            _ => return false,
        };
    }
    matches!(place, Place::Start | Place::Name(true) | Place::Value(true))
}

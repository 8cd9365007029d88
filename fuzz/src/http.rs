//! HTTP responses, compared with a reader that sees each of them as a whole.

#[path = "../../cli/src/fetch/body.rs"]
mod body;
#[path = "../../cli/src/fetch/head.rs"]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "whom else to ask is not for a reader")
)]
mod head;
#[path = "../../cli/src/fetch/lines.rs"]
mod lines;

use httparse::{EMPTY_HEADER, Response};
use serveloop::ProtocolError;

use crate::input::{Input, pieces, spelled};
use body::Body;
use head::Head;
use lines::HeadEnd;

/// What some bytes mean in a response.
const WORDS: [&str; 8] = [
    "HTTP/1.1 200 OK\r\n",
    "Content-Length: ",
    "Transfer-Encoding: chunked\r\n",
    "\r\n",
    "\r\n\r\n",
    "HTTP/1.1 204 \r\n",
    "0\r\n\r\n",
    "5;a=b\r\nhello\r\n",
];

/// The content, and whether it is complete; none if the response is not what it should be.
type Content = Option<(Vec<u8>, bool)>;

/// The places of the cuts, and a response. However that is cut, its content is that of the model, and
/// its head cannot command a terminal.
///
/// # Panics
/// When it is otherwise.
pub fn target(data: &[u8]) {
    let mut input = Input::new(data);
    let is_chunked = input.below(2) == 0;
    let sizes = input.sizes();
    let stream = spelled(input.rest(), &WORDS);
    if is_chunked {
        let expected = chunks(&stream);
        assert_eq!(read(Body::chunked(), &stream, &[stream.len()]), expected);
        assert_eq!(read(Body::chunked(), &stream, &sizes), expected);
        return;
    }
    let found = find_end(&stream, &sizes);
    assert_eq!(found, find_end(&stream, &[stream.len()]));
    let Some(end) = found else {
        return;
    };
    assert_eq!(Some(end), last_line(&stream), "where the head ends");
    let Ok(head) = Head::parse(&stream[..end]) else {
        return;
    };
    is_harmless(&head);
    is_as_others_read_it(&stream[..end], &head);
    let stream = &stream[end..];
    let expected = match head.body() {
        Body::Sized(length) => sized(length, stream),
        Body::Chunked(_) => chunks(stream),
        Body::ToEnd => Some((stream.to_vec(), true)),
    };
    assert_eq!(read(head.body(), stream, &sizes), expected);
}

/// Where a session would find the end of the head that gets `stream` in pieces; none if it has none, or
/// is no head.
fn find_end(stream: &[u8], sizes: &[usize]) -> Option<usize> {
    let (mut head_end, mut arrived) = (HeadEnd::default(), 0);
    for piece in pieces(stream, sizes) {
        arrived += piece.len();
        if let Some(end) = head_end.find(&stream[..arrived]).ok()? {
            return Some(end);
        }
    }
    None
}

/// The model of a head's end: the first empty line after one that is not.
fn last_line(mut stream: &[u8]) -> Option<usize> {
    let (whole, mut has_status) = (stream.len(), false);
    while let Some((line, rest)) = line(stream) {
        stream = rest;
        if line.is_empty() && has_status {
            return Some(whole - stream.len());
        }
        has_status |= !line.is_empty();
    }
    None
}

/// A head that is as it should be says the same to a stricter reader.
fn is_as_others_read_it(text: &[u8], head: &Head) {
    let mut headers = [EMPTY_HEADER; 64];
    let mut response = Response::new(&mut headers);
    if !response
        .parse(text)
        .is_ok_and(|parsed| parsed.is_complete())
    {
        return;
    }
    let code = response.code.expect("a complete head has one");
    let status = head.to_string();
    assert!(status.starts_with(&code.to_string()), "{status:?}");
    let length = response.headers.iter();
    let length = length.filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.filter_map(|header| std::str::from_utf8(header.value).ok());
    let length: Vec<u64> = length.filter_map(|value| value.parse().ok()).collect();
    assert!(
        length.iter().all(|length| head.length == Some(*length)),
        "{length:?}"
    );
}

fn is_harmless(head: &Head) {
    let is_plain = |text: &str| !text.chars().any(char::is_control);
    for line in head.lines() {
        assert!(is_plain(&line.to_string()), "{line:?}");
    }
    let told = ProtocolError::other(head.to_string()).to_string();
    assert!(is_plain(&told), "{told:?}");
}

/// What a session would find that gets `stream` in pieces.
fn read(mut body: Body, stream: &[u8], sizes: &[usize]) -> Content {
    let mut content = Vec::new();
    let (mut from, mut arrived) = (0, 0);
    for piece in pieces(stream, sizes) {
        arrived += piece.len();
        while from < arrived && !body.is_complete() {
            let piece = body.decode(&stream[from..arrived]).ok()?;
            assert!(piece.taken <= arrived - from);
            content.extend_from_slice(piece.content);
            from += piece.taken;
            if piece.taken == 0 {
                break;
            }
        }
    }
    let is_complete = body.end().is_ok();
    Some((content, is_complete))
}

/// The model of a body with a length.
fn sized(length: u64, stream: &[u8]) -> Content {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let there = stream.len().min(length);
    Some((stream[..there].to_vec(), there == length))
}

/// The model of a body in chunks.
fn chunks(mut stream: &[u8]) -> Content {
    let mut content = Vec::new();
    loop {
        let Some((line, rest)) = line(stream) else {
            return at_end(stream, 300 << 10, content);
        };
        let size = size(line)?;
        stream = rest;
        if size == 0 {
            return trailers(stream, content);
        }
        let there = stream.len().min(size);
        content.extend_from_slice(&stream[..there]);
        stream = &stream[there..];
        let returns = stream.iter().take_while(|byte| **byte == b'\r').count();
        match stream.get(returns) {
            _ if returns > 16 => return None,
            None => return Some((content, false)),
            Some(b'\n') => stream = &stream[returns + 1..],
            Some(_) => return None,
        }
    }
}

fn trailers(mut stream: &[u8], content: Vec<u8>) -> Content {
    let mut left: usize = 300 << 10;
    while let Some((line, rest)) = line(stream) {
        if line.is_empty() {
            return Some((content, true));
        }
        left = left.checked_sub(line.len())?;
        stream = rest;
    }
    at_end(stream, left, content)
}

/// The stream ends inside a line, which may be so long and have half of its end.
fn at_end(stream: &[u8], most: usize, content: Vec<u8>) -> Content {
    (stream.len() <= most + 1).then_some((content, false))
}

fn line(stream: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = stream.iter().position(|byte| *byte == b'\n')?;
    let returns = stream[..end]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\r');
    Some((&stream[..end - returns.count()], &stream[end + 1..]))
}

/// The size in a line of at most 300 KiB: hexadecimal digits, a blank and anything, extensions.
fn size(line: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(line);
    let digits = text.split([';', ' ', '\t']).next()?;
    let is_short = line.len() <= 300 << 10;
    let is_number = digits.chars().all(|digit| digit.is_ascii_hexdigit());
    let size = i64::from_str_radix(digits, 16).ok()?;
    (is_short && is_number).then_some(usize::try_from(size).ok()?)
}

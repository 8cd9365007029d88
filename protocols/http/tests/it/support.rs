//! Sessions for tests, and a reader of responses that accepts nothing but valid ones.

use std::sync::Arc;

use serveloop::testing::MemorySession;
use serveloop_http::{Dates, Handler, Http, Settings};

/// A response as a client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) status: u16,
    /// The names in small letters.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut named = self.fields.iter().filter(|(field, _)| field == name);
        let value = named.next().map(|(_, value)| value.as_str());
        assert!(named.next().is_none(), "{name} comes twice");
        value
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text")
    }
}

/// Reads all responses. `heads` says which of them, counted from 0, answer HEAD.
///
/// # Panics
/// Panics if the stream is not a sequence of whole, valid responses.
pub(crate) fn read_responses(mut stream: &[u8], heads: &[usize]) -> Vec<Seen> {
    let mut all = Vec::new();
    while !stream.is_empty() {
        let is_head = heads.contains(&all.len());
        let (seen, rest) = read_response(stream, is_head);
        all.push(seen);
        stream = rest;
    }
    all
}

fn read_response(stream: &[u8], is_head: bool) -> (Seen, &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut fields);
    let status = response.parse(stream).expect("a valid head");
    let httparse::Status::Complete(end) = status else {
        panic!("a whole head: {:?}", String::from_utf8_lossy(stream));
    };
    assert_eq!(response.version, Some(1));
    let head = std::str::from_utf8(&stream[..end]).expect("a head of text");
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count());

    let owned = |field: &httparse::Header<'_>| {
        let value = String::from_utf8(field.value.to_vec()).expect("a text");
        (field.name.to_ascii_lowercase(), value)
    };
    let mut seen = Seen {
        status: response.code.expect("a status"),
        fields: response.headers.iter().map(owned).collect(),
        body: Vec::new(),
    };

    let rest = &stream[end..];
    if is_head || matches!(seen.status, 100 | 101 | 204 | 304) {
        return (seen, rest);
    }
    if seen.field("transfer-encoding").is_some() {
        assert_eq!(seen.field("content-length"), None);
        let (body, rest) = read_chunks(rest);
        seen.body = body;
        return (seen, rest);
    }
    let length = seen
        .field("content-length")
        .map(|length| length.parse().expect("a number"));
    let (body, rest) = rest.split_at(length.unwrap_or(rest.len()));
    seen.body = body.to_vec();
    (seen, rest)
}

fn read_chunks(mut stream: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut body = Vec::new();
    loop {
        let httparse::Status::Complete((at, size)) =
            httparse::parse_chunk_size(stream).expect("a size")
        else {
            panic!("a whole size");
        };
        let size = usize::try_from(size).expect("a size that fits");
        let (chunk, rest) = stream[at..].split_at(size);
        body.extend_from_slice(chunk);
        stream = rest.strip_prefix(b"\r\n").expect("an end");
        if size == 0 {
            return (body, stream);
        }
    }
}

/// Settings with which two runs give the same bytes.
pub(crate) fn dateless() -> Settings {
    Settings {
        dates: Dates::Omitted,
        ..Settings::default()
    }
}

pub(crate) fn http<H: Handler>(handler: H) -> Http<H> {
    Http::new(handler).with_settings(&Arc::new(dateless()))
}

pub(crate) fn session<H: Handler>(handler: H) -> MemorySession<Http<H>> {
    MemorySession::new(http(handler))
}

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";

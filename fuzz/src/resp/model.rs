//! The requests of a stream, found one after the other in all of it.

use super::Words;

/// The most bytes of a request, and of one that is a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub(crate) request: usize,
    pub(crate) line: usize,
}

/// What the rest of a stream begins with.
enum Next {
    Request(Words, usize),
    Incomplete,
    Broken,
}

/// Returns the requests, and whether something that is none follows them.
pub(crate) fn requests(mut stream: &[u8], most: Most) -> (Vec<Words>, bool) {
    let mut requests = Vec::new();
    while !stream.is_empty() {
        let next = match stream[0] {
            b'*' => array(stream, most),
            _ => line(stream, most),
        };
        match next {
            Next::Request(words, length) => {
                if !words.is_empty() {
                    requests.push(words);
                }
                stream = &stream[length..];
            }
            Next::Incomplete => break,
            Next::Broken => return (requests, true),
        }
    }
    (requests, false)
}

fn array(stream: &[u8], most: Most) -> Next {
    let (count, mut at) = match number(stream, 0) {
        Ok(Some((Some(count), at))) => (count, at),
        Ok(None) => return Next::Incomplete,
        _ => return Next::Broken,
    };
    if count > (most.request / 6) as i128 {
        return Next::Broken;
    }

    let mut words = Vec::new();
    for _ in 0..count.max(0) {
        let (length, start) = match number(stream, at) {
            Ok(Some((length, start))) if stream[at] == b'$' => (length, start),
            Ok(None) => return Next::Incomplete,
            _ => return Next::Broken,
        };
        let Some(length) = length.filter(|length| *length >= 0) else {
            return Next::Broken;
        };
        if start as i128 + length + 2 > most.request as i128 {
            return Next::Broken;
        }
        let end = start + length as usize;
        if stream.len() < end + 2 {
            return Next::Incomplete;
        }
        if &stream[end..end + 2] != b"\r\n" {
            return Next::Broken;
        }
        words.push(stream[start..end].to_vec());
        at = end + 2;
    }
    Next::Request(words, at)
}

/// Returns the number in a line of at most 64 bytes, if it is one, and the place behind the line.
fn number(stream: &[u8], at: usize) -> Result<Option<(Option<i128>, usize)>, ()> {
    let rest = &stream[at..];
    let Some(end) = rest.iter().take(64).position(|byte| *byte == b'\r') else {
        return if rest.len() < 64 { Ok(None) } else { Err(()) };
    };
    match rest.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(()),
    }
    let digits = rest.get(1..end).unwrap_or_default();
    let text = String::from_utf8_lossy(digits);
    // The only spelling of a number is how it is written.
    let number = text
        .parse::<i128>()
        .ok()
        .filter(|number| number.to_string() == text);
    let number = number.filter(|number| i64::try_from(*number).is_ok());
    Ok(Some((number, at + end + 2)))
}

fn line(stream: &[u8], most: Most) -> Next {
    let shown = &stream[..stream.len().min(most.line + 1)];
    let Some(end) = shown.iter().position(|byte| *byte == b'\n') else {
        return if stream.len() > most.line {
            Next::Broken
        } else {
            Next::Incomplete
        };
    };
    let text = &stream[..end];
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    match words(text) {
        Some(words) => Next::Request(words, end + 1),
        None => Next::Broken,
    }
}

/// Splits a line as the C function of Redis does, one state and one byte at a time.
fn words(line: &[u8]) -> Option<Words> {
    let is_blank = |byte: u8| matches!(byte, b' ' | 9..=13);
    if line
        .first()
        .is_some_and(|byte| *byte < 32 && !is_blank(*byte))
    {
        return None;
    }

    // Behind the end there are zeros, as in C.
    let byte = |at: usize| line.get(at).copied().unwrap_or(0);
    let (mut words, mut at) = (Words::new(), 0);
    loop {
        while is_blank(byte(at)) {
            at += 1;
        }
        if byte(at) == 0 {
            break;
        }
        let (mut word, mut quote) = (Vec::new(), None);
        loop {
            let (here, next) = (byte(at), byte(at + 1));
            let hex = |at: usize| char::from(byte(at)).to_digit(16);
            match quote {
                Some(_) if here == 0 => return None,
                Some(b'"')
                    if here == b'\\'
                        && next == b'x'
                        && hex(at + 2).is_some()
                        && hex(at + 3).is_some() =>
                {
                    word.push((hex(at + 2)? * 16 + hex(at + 3)?) as u8);
                    at += 3;
                }
                Some(b'"') if here == b'\\' && next != 0 => {
                    word.push(unescaped(next));
                    at += 1;
                }
                Some(b'\'') if here == b'\\' && next == b'\'' => {
                    word.push(b'\'');
                    at += 1;
                }
                Some(mark) if here == mark => {
                    if next != 0 && !is_blank(next) {
                        return None;
                    }
                    at += 1;
                    break;
                }
                Some(_) => word.push(here),
                None if matches!(here, b' ' | b'\n' | b'\r' | b'\t' | 0) => break,
                None if matches!(here, b'"' | b'\'') => quote = Some(here),
                None => word.push(here),
            }
            at += 1;
        }
        words.push(word);
    }

    (!is_http(&words)).then_some(words)
}

fn unescaped(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn is_http(words: &[Vec<u8>]) -> bool {
    let [first, .., last] = words else {
        return false;
    };
    let is_head = first.ends_with(b":") || first.eq_ignore_ascii_case(b"post");
    is_head || last.starts_with(b"HTTP/1.")
}

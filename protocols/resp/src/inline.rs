//! Inline requests: a line of words, as a person types it.

use crate::request::Span;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadLine {
    UnbalancedQuotes,
    /// A request of HTTP, which a web page makes a browser send, or a binary protocol.
    Foreign,
}

/// Splits a line without its end into words, as a shell does. Appends their bytes to `text` and
/// where they are in it to `words`.
///
/// Between double quotes, `\n`, `\r`, `\t`, `\b`, `\a` and `\xFF` have their usual meaning, and a
/// backslash takes the meaning from any other character. Between single quotes only `\'` is special.
pub(crate) fn split(line: &[u8], text: &mut Vec<u8>, words: &mut Vec<Span>) -> Result<(), BadLine> {
    // TLS and other binary protocols begin like this. What follows in them may be lines that
    // another program has chosen.
    if line
        .first()
        .is_some_and(|byte| *byte < b' ' && !is_blank(*byte))
    {
        return Err(BadLine::Foreign);
    }

    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let start = text.len() as u32;
        rest = word(rest, text).ok_or(BadLine::UnbalancedQuotes)?;
        let end = text.len() as u32;
        words.push(Span { start, end });
        rest = skip_blanks(rest);
    }

    let of = |span: &Span| &text[span.start as usize..span.end as usize];
    if words.len() > 1 && is_http(of(&words[0]), of(&words[words.len() - 1])) {
        return Err(BadLine::Foreign);
    }
    Ok(())
}

/// Returns whether a line with these words is the first of a request of HTTP, or a header line of
/// one. No command has such a name.
fn is_http(first: &[u8], last: &[u8]) -> bool {
    first.ends_with(b":") || first.eq_ignore_ascii_case(b"post") || last.starts_with(b"HTTP/1.")
}

/// Appends the first word of `rest`, and returns what follows it.
fn word<'a>(mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => return Some(rest),
            [quote @ (b'"' | b'\''), quoted @ ..] => {
                let after = until_quote(*quote, quoted, text)?;
                let is_end = after
                    .first()
                    .is_none_or(|byte| is_blank(*byte) || *byte == 0);
                return is_end.then_some(after);
            }
            [byte, others @ ..] => {
                text.push(*byte);
                rest = others;
            }
        }
    }
}

/// Appends what is before the closing quote, and returns what is behind it.
fn until_quote<'a>(quote: u8, mut rest: &'a [u8], text: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        let (byte, after) = match (quote, rest) {
            (_, [] | [0, ..] | [b'\\', 0, ..]) => return None,
            (_, [byte, after @ ..]) if *byte == quote => return Some(after),
            (b'"', [b'\\', b'x', high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (nibble(*high) << 4 | nibble(*low), after)
            }
            (b'"', [b'\\', byte, after @ ..]) => (unescaped(*byte), after),
            (b'\'', [b'\\', b'\'', after @ ..]) => (b'\'', after),
            (_, [byte, after @ ..]) => (*byte, after),
        };
        text.push(byte);
        rest = after;
    }
}

fn nibble(digit: u8) -> u8 {
    char::from(digit)
        .to_digit(16)
        .map_or(0, |value| value as u8)
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

fn skip_blanks(mut rest: &[u8]) -> &[u8] {
    while let [byte, others @ ..] = rest {
        if !is_blank(*byte) {
            // A zero ends the line, as the end of a text in C.
            return if *byte == 0 { &[] } else { rest };
        }
        rest = others;
    }
    rest
}

/// The blanks of C.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_up(line: &str) -> Result<Vec<String>, BadLine> {
        let (mut text, mut words) = (Vec::new(), Vec::new());
        split(line.as_bytes(), &mut text, &mut words)?;
        let word = |span: &Span| &text[span.start as usize..span.end as usize];
        let words = words.iter().map(word);
        Ok(words.map(|word| word.escape_ascii().to_string()).collect())
    }

    #[test]
    fn words_are_split_as_by_a_shell() {
        for (line, expected) in [
            ("", vec![]),
            (" \t ", vec![]),
            ("PING", vec!["PING"]),
            ("  set  a\tb ", vec!["set", "a", "b"]),
            (r#"set a "b c""#, vec!["set", "a", "b c"]),
            (r#"set a "\x41\n\"\q\xg""#, vec!["set", "a", "A\\n\\\"qxg"]),
            (r"set a 'b\'c\n'", vec!["set", "a", r"b\'c\\n"]),
            (r#"set a"b""#, vec!["set", "ab"]),
            (r#"set "" ''"#, vec!["set", "", ""]),
        ] {
            assert_eq!(
                split_up(line),
                Ok(expected.iter().map(|it| (*it).to_owned()).collect()),
                "{line}"
            );
        }
    }

    #[test]
    fn a_quote_ends_its_word() {
        for line in [
            "\"",
            "'",
            "set a\"b",
            "set \"a\"b",
            "set 'a'b",
            "set \"a\\\"",
            "'\\'",
        ] {
            assert_eq!(split_up(line), Err(BadLine::UnbalancedQuotes), "{line}");
        }
    }

    #[test]
    fn what_browsers_send_is_recognised() {
        for line in [
            "POST / HTTP/1.1",
            "post x",
            "GET / HTTP/1.1",
            "Host: localhost",
            "\x16\x03\x01 set a b",
        ] {
            assert_eq!(split_up(line), Err(BadLine::Foreign), "{line}");
        }
        for line in ["GET key", "get http://a/", "POST", "set a: b"] {
            assert!(split_up(line).is_ok(), "{line}");
        }
    }
}

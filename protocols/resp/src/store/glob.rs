//! Patterns of names: `*`, `?`, `[a-z]`, `[^a]`, and `\` before a character without its meaning.

use crate::error_reply::ErrorReply;

/// The longest pattern, in bytes. Matching takes as many steps as the product of the lengths of a pattern
/// and a name, and holds up everybody meanwhile.
const PATTERN_MOST: usize = 1_024;

/// Returns a pattern that a client has sent, if it is short enough.
pub(super) fn checked(pattern: &[u8]) -> Result<&[u8], ErrorReply> {
    if pattern.len() > PATTERN_MOST {
        let message = format!("a pattern has at most {PATTERN_MOST} bytes");
        return Err(ErrorReply::new(message));
    }
    Ok(pattern)
}

/// Returns whether the whole `text` matches `pattern`. Takes at most as many steps as the product of
/// their lengths.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Behind the last star, and the text that it has not taken.
    let mut again: Option<(&[u8], &[u8])> = None;

    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            again = Some((rest, text));
            continue;
        }
        if let [byte, others @ ..] = text {
            if let Some(rest) = one(pattern, *byte) {
                (pattern, text) = (rest, others);
                continue;
            }
        } else if pattern.is_empty() {
            return true;
        }

        // The last star takes one more.
        match again {
            Some((rest, [_, others @ ..])) => {
                again = Some((rest, others));
                (pattern, text) = (rest, others);
            }
            _ => return false,
        }
    }
}

/// Returns the rest of a pattern whose first part, which is no star, matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', class @ ..] => of_class(class, byte),
        [b'\\', escaped, rest @ ..] => (*escaped == byte).then_some(rest),
        [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

/// Returns what is behind a class that contains `byte`. A class without an end ends with the pattern.
fn of_class(class: &[u8], byte: u8) -> Option<&[u8]> {
    let (is_negated, mut class) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };

    let mut is_in = false;
    loop {
        match class {
            [] => break,
            [b']', rest @ ..] => {
                class = rest;
                break;
            }
            [b'\\', escaped, rest @ ..] => {
                is_in |= *escaped == byte;
                class = rest;
            }
            [from, b'-', to, rest @ ..] => {
                let (from, to) = (from.min(to), from.max(to));
                is_in |= (*from..=*to).contains(&byte);
                class = rest;
            }
            [literal, rest @ ..] => {
                is_in |= *literal == byte;
                class = rest;
            }
        }
    }
    (is_in != is_negated).then_some(class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_a_limit() {
        assert!(checked(&[b'*'; PATTERN_MOST]).is_ok());
        assert!(checked(&[b'*'; PATTERN_MOST + 1]).is_err());
    }

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, yes, no) in [
            ("", vec![""], vec!["a"]),
            ("abc", vec!["abc"], vec!["ab", "abcd", ""]),
            ("*", vec!["", "a", "a*b"], vec![]),
            ("a*", vec!["a", "ab"], vec!["", "ba"]),
            ("*a*b*", vec!["ab", "xaxbx", "aabb"], vec!["ba", "a"]),
            ("a**b", vec!["ab", "axb"], vec!["a"]),
            ("h?llo", vec!["hello", "hallo"], vec!["hllo", "heello"]),
            ("h[ae]llo", vec!["hello", "hallo"], vec!["hillo", "hllo"]),
            ("h[^e]llo", vec!["hallo"], vec!["hello", "hllo"]),
            ("h[a-c]llo", vec!["hbllo"], vec!["hdllo"]),
            ("h[c-a]llo", vec!["hbllo"], vec!["hdllo"]),
            (r"h\?llo", vec!["h?llo"], vec!["hello"]),
            (r"[\]a]", vec!["]", "a"], vec!["\\", "b"]),
            ("[a", vec!["a"], vec!["b"]),
            ("[]a", vec![], vec!["]", "a", "]a"]),
            ("[^]", vec!["x"], vec!["", "xx"]),
            (r"a\", vec![r"a\"], vec!["a"]),
            ("*?", vec!["a", "ab"], vec![""]),
        ] {
            for text in yes {
                assert!(
                    matches(pattern.as_bytes(), text.as_bytes()),
                    "{pattern} {text}"
                );
            }
            for text in no {
                assert!(
                    !matches(pattern.as_bytes(), text.as_bytes()),
                    "{pattern} {text}"
                );
            }
        }
    }

    #[test]
    fn many_stars_take_little_time() {
        let pattern = "a*".repeat(300) + "b";
        assert!(!matches(pattern.as_bytes(), "a".repeat(1_000).as_bytes()));
    }
}

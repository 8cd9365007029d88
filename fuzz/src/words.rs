//! The words of a command line, compared with the splitter of another crate.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use shlex::bytes as shell;

#[path = "../../protocols/command/src/shlex.rs"]
mod splitter;

use splitter::{Unsplit, split};

/// A command line. It has the words that a shell would find, were nothing special to it but quotes
/// and spaces; quoted, they are found again; what has none is refused where it goes wrong.
///
/// # Panics
/// When it is otherwise.
pub fn target(data: &[u8]) {
    let split = split(data);
    if !data.contains(&0) {
        let expected = shell::split(&plain(data)).filter(|words| !words.is_empty());
        let words = split.as_ref().ok();
        let words = words.map(|words| words.iter().map(|word| plain(word.as_bytes())).collect());
        assert_eq!(words, expected);
    }
    match split {
        Ok(words) => found_again(&words),
        Err(problem) => refused(data, problem),
    }
}

/// Without what is ordinary to us, but special to a shell. Neither splits what the other does not.
fn plain(text: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| match byte {
        b'#' | b'$' | b'`' => b'x',
        b'\r' | b'\n' => b' ',
        byte => *byte,
    };
    text.iter().map(plain).collect()
}

fn found_again(words: &[OsString]) {
    let quoted: Vec<_> = words.iter().map(|word| quoted(word.as_bytes())).collect();
    assert_eq!(split(&quoted.join(&b' ')).as_deref(), Ok(words));
}

/// In quotes that keep everything but themselves.
fn quoted(word: &[u8]) -> Vec<u8> {
    assert!(!word.contains(&0), "no program can be given {word:?}");
    let mut quoted = vec![b'\''];
    for byte in word {
        match byte {
            b'\'' => quoted.extend_from_slice(br"'\''"),
            byte => quoted.push(*byte),
        }
    }
    quoted.push(b'\'');
    quoted
}

fn refused(data: &[u8], problem: Unsplit) {
    let is_right = match problem {
        Unsplit::Empty => data.iter().all(u8::is_ascii_whitespace),
        Unsplit::Nul(at) => data.iter().position(|byte| *byte == 0) == Some(at),
        Unsplit::Open(at) => matches!(data[at], b'\'' | b'"'),
        Unsplit::Backslash(at) => data[at..] == *b"\\",
    };
    assert!(is_right, "{problem}: {:?}", data.escape_ascii().to_string());
}

//! The error object of a reply.

use std::fmt::Display;

use serde::Serialize;
use serde_path_to_error::{Path, Segment};

/// The most bytes of a message or a pointer, since the client chooses parts of both.
const TEXT_MOST: usize = 256;

const CUT: &str = "...";

#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) code: &'static str,
    message: String,
    at: Place,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Place {
    /// A byte of the stream, counted from its start.
    Byte(u64),
    /// A JSON pointer into the value.
    Pointer(String),
}

impl Problem {
    /// Creates a problem with the text itself, at a byte of the stream.
    pub(crate) fn of_text(code: &'static str, message: impl Display, byte: u64) -> Self {
        Self {
            code,
            message: shortened(message.to_string()),
            at: Place::Byte(byte),
        }
    }

    /// Creates a problem with the meaning of a value, at a JSON pointer.
    pub(crate) fn of_value(code: &'static str, message: impl Display, pointer: String) -> Self {
        Self {
            code,
            message: shortened(message.to_string()),
            at: Place::Pointer(shortened(pointer)),
        }
    }

    pub(crate) fn at(mut self, pointer: String) -> Self {
        self.at = Place::Pointer(shortened(pointer));
        self
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

/// Formats a path as a JSON pointer (RFC 6901).
pub(crate) fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        let token = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };

        pointer.push('/');
        pointer.push_str(&token);
    }
    pointer
}

fn shortened(mut text: String) -> String {
    if text.len() > TEXT_MOST {
        let mut end = TEXT_MOST - CUT.len();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(CUT);
    }
    text
}

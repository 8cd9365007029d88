//! The errors that clients are told.

use std::borrow::Cow;
use std::fmt;

/// An error that a client is told, such as `ERR syntax error`. The connection stays open.
///
/// The first word is a code for programs, in capitals; the rest is a message for people.
///
/// ```
/// use serveloop_resp::ErrorReply;
///
/// assert_eq!(ErrorReply::SYNTAX.to_string(), "ERR syntax error");
/// let full = ErrorReply::new("no seat left").with_code("FULL");
/// assert_eq!(full.to_string(), "FULL no seat left");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    code: &'static str,
    /// Bytes, because a message may repeat what a client has sent.
    message: Cow<'static, [u8]>,
}

impl ErrorReply {
    /// The arguments make no sense together, or one is missing.
    pub const SYNTAX: Self = Self::constant("ERR", "syntax error");
    /// An argument or a value is not a whole number of 64 bits.
    pub const NOT_AN_INTEGER: Self =
        Self::constant("ERR", "value is not an integer or out of range");
    /// An argument or a value is not a number.
    pub const NOT_A_FLOAT: Self = Self::constant("ERR", "value is not a valid float");
    /// The result of an addition has no room in 64 bits.
    pub const OVERFLOW: Self = Self::constant("ERR", "increment or decrement would overflow");
    /// The key holds something else than what the command works on.
    pub const WRONG_TYPE: Self = Self::constant(
        "WRONGTYPE",
        "Operation against a key holding the wrong kind of value",
    );
    /// There is no room for more data.
    pub const OUT_OF_MEMORY: Self =
        Self::constant("OOM", "command not allowed when used memory > 'maxmemory'.");

    /// Creates an error of a server's own constants.
    #[must_use]
    pub const fn constant(code: &'static str, message: &'static str) -> Self {
        Self {
            code,
            message: Cow::Borrowed(message.as_bytes()),
        }
    }

    /// Creates an error with the code `ERR`. Line ends in the message are sent as spaces.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self::of_bytes(message.into().into_bytes())
    }

    /// The same with a message that need not be text.
    pub(crate) fn of_bytes(message: Vec<u8>) -> Self {
        Self {
            code: "ERR",
            message: Cow::Owned(message),
        }
    }

    /// Sets the code: one word in capitals.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// Creates the error for a command called with too few or too many arguments. The name of a
    /// subcommand is `client|kill`.
    #[must_use]
    pub fn wrong_number_of_arguments(command: &str) -> Self {
        Self::new(format!("wrong number of arguments for '{command}' command"))
    }

    /// Creates the error for a subcommand that `command` does not have.
    #[must_use]
    pub fn unknown_subcommand(command: &str, subcommand: &[u8]) -> Self {
        let shown = &subcommand[..subcommand.len().min(SHOWN_MOST)];
        let hint = format!("'. Try {} HELP.", command.to_ascii_uppercase());
        Self::of_bytes([b"unknown subcommand '", shown, hint.as_bytes()].concat())
    }

    /// Creates the error for a command that is not in the table.
    pub(crate) fn unknown_command<'a>(
        name: &[u8],
        arguments: impl Iterator<Item = &'a [u8]>,
    ) -> Self {
        let shown = &name[..name.len().min(SHOWN_MOST)];
        let mut message = [
            b"unknown command '",
            shown,
            b"', with args beginning with: ",
        ]
        .concat();

        let mut room = SHOWN_MOST;
        for argument in arguments {
            let shown = &argument[..argument.len().min(room)];
            message.extend([b"'", shown, b"' "].concat());
            room = room.saturating_sub(shown.len() + 3);
            if room == 0 {
                break;
            }
        }
        Self::of_bytes(message)
    }

    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    pub(crate) fn message(&self) -> &[u8] {
        &self.message
    }
}

/// How many bytes of what a client has sent an error repeats.
const SHOWN_MOST: usize = 128;

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = String::from_utf8_lossy(&self.message);
        write!(f, "{} {message}", self.code)
    }
}

impl std::error::Error for ErrorReply {}

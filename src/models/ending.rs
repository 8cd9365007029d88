//! The wire format in which a child process tells its parent why a connection ended.

use std::io;

use crate::error::{CloseReason, Deadline, ProtocolError};

/// Followed by a text.
const TEXT: u8 = 0;
/// Followed by the `errno` of the connection's error.
const IO: u8 = 1;
/// Followed by nothing. No complete first message came in time.
const SILENT: u8 = 2;
/// Followed by the number of bytes of an incomplete message at the end of the stream.
const TRUNCATED: u8 = 3;

/// Encodes a reason. Ordinary reasons keep their kind, so that the parent logs them as every model
/// does. Any other reason is reduced to its text.
pub(super) fn describe(reason: &CloseReason) -> Vec<u8> {
    match reason {
        CloseReason::TimedOut(Deadline::FirstMessage) => vec![SILENT],
        CloseReason::Protocol(ProtocolError::Truncated { unread }) => {
            tagged(TRUNCATED, &(*unread as u64).to_le_bytes())
        }
        CloseReason::Io(error) if reason.is_ordinary() => match error.raw_os_error() {
            Some(number) => tagged(IO, &number.to_le_bytes()),
            None => tagged(TEXT, reason.to_string().as_bytes()),
        },
        _ => tagged(TEXT, reason.to_string().as_bytes()),
    }
}

/// Decodes a reason that a child encoded. Returns `None` if it is empty.
pub(super) fn understand(described: &[u8]) -> Option<CloseReason> {
    let (tag, rest) = described.split_first()?;
    let reason = match *tag {
        SILENT => Some(CloseReason::TimedOut(Deadline::FirstMessage)),
        TRUNCATED => rest.try_into().ok().map(|bytes| {
            let unread = usize::try_from(u64::from_le_bytes(bytes)).unwrap_or(usize::MAX);
            CloseReason::Protocol(ProtocolError::Truncated { unread })
        }),
        IO => rest.try_into().ok().map(|bytes| {
            let number = i32::from_le_bytes(bytes);
            CloseReason::Io(io::Error::from_raw_os_error(number))
        }),
        _ => None,
    };

    let text = || CloseReason::Process(String::from_utf8_lossy(rest).into_owned());
    Some(reason.unwrap_or_else(text))
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(reason: &CloseReason, expected: &str, is_ordinary: bool) {
        let understood = understand(&describe(reason)).expect("a reason");
        assert_eq!(understood.to_string(), expected);
        assert_eq!(understood.is_ordinary(), is_ordinary);
    }

    #[test]
    fn the_parent_understands_what_the_child_describes() {
        let reset = CloseReason::Io(io::Error::from_raw_os_error(libc::ECONNRESET));
        check(&reset, &reset.to_string(), true);
        let silent = CloseReason::TimedOut(Deadline::FirstMessage);
        check(&silent, &silent.to_string(), true);
        let truncated = CloseReason::Protocol(ProtocolError::Truncated { unread: 7 });
        check(&truncated, &truncated.to_string(), true);
        let other = CloseReason::Panicked;
        check(&other, "in its own process: the protocol panicked", false);
        assert!(understand(b"").is_none());
    }
}

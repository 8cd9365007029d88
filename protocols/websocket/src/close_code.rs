//! Why a WebSocket is closed, as a number.

use std::fmt;

/// Why a WebSocket is closed: the number in a close frame (RFC 6455, section 7.4).
///
/// ```
/// use serveloop_websocket::CloseCode;
///
/// assert_eq!(CloseCode::GOING_AWAY.number(), 1001);
/// assert_eq!(CloseCode::private(4000).unwrap().to_string(), "4000");
///
/// // Others are registered, or mean what no frame says.
/// assert_eq!(CloseCode::private(1006), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// 1000: the purpose of the connection is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server shuts down, or the user leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: a message of this type is not accepted, for example binary.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: the peer's close frame had no code. Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a close frame of the peer. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: text is not UTF-8, or a message does not hold what its type says.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: a message breaks a rule of the application.
    pub const POLICY: Self = Self(1008);
    /// 1009: a message is too long.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: the server has failed.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts, and the client may come back.
    pub const SERVICE_RESTART: Self = Self(1012);
    /// 1013: the server is overloaded, and the client may come back later.
    pub const TRY_AGAIN_LATER: Self = Self(1013);

    /// Returns a code for the application's own use, if `number` is one: 3000 to 4999. Those below
    /// 4000 can be registered.
    #[must_use]
    pub fn private(number: u16) -> Option<Self> {
        matches!(number, 3000..=4999).then_some(Self(number))
    }

    /// Returns the code that a close frame says, if it may say it.
    pub(crate) fn received(number: u16) -> Option<Self> {
        matches!(number, 1000..=1003 | 1007..=1014 | 3000..=4999).then_some(Self(number))
    }

    /// Returns whether a close frame may say this code.
    pub(crate) fn is_sendable(self) -> bool {
        Self::received(self.0).is_some()
    }

    /// Returns the number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_codes_a_frame_may_say() {
        let allowed: Vec<u16> = (0..=u16::MAX)
            .filter(|number| CloseCode::received(*number).is_some())
            .collect();
        let expected: Vec<u16> = (1000..=1003)
            .chain(1007..=1014)
            .chain(3000..=4999)
            .collect();
        assert_eq!(allowed, expected);
        assert!(!CloseCode::NO_STATUS.is_sendable());
        assert!(!CloseCode::ABNORMAL.is_sendable());
    }
}

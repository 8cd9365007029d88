//! Why a datagram of a recorded session did not arrive, as it is written.

use std::io;

use crate::error::DeliveryError;

const REPORTED: u8 = 0;
const TOO_LONG: u8 = 1;
const NOT_SENT: u8 = 2;

/// The [`DeliveryError`] of a recorded session of datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedFailure {
    pub(super) code: u8,
    /// The number of the error, or the MTU. 0 is unknown.
    pub(super) number: u32,
}

impl RecordedFailure {
    pub(super) fn of(error: &DeliveryError) -> Self {
        let number_of = |error: &io::Error| {
            let number = error.raw_os_error().unwrap_or_default();
            u32::try_from(number).unwrap_or_default()
        };
        let (code, number) = match error {
            DeliveryError::Reported(error) => (REPORTED, number_of(error)),
            DeliveryError::TooLong { mtu } => (TOO_LONG, mtu.unwrap_or_default()),
            DeliveryError::NotSent(error) => (NOT_SENT, number_of(error)),
        };
        Self { code, number }
    }

    /// Returns the failure with this code in a file, if there is one.
    pub(super) fn read(code: u8, number: u32) -> Option<Self> {
        let is_known = [REPORTED, TOO_LONG, NOT_SENT].contains(&code);
        is_known.then_some(Self { code, number })
    }

    /// Returns the error as the protocol was told it.
    #[must_use]
    pub fn error(&self) -> DeliveryError {
        let error = || match i32::try_from(self.number) {
            Ok(number) if number != 0 => io::Error::from_raw_os_error(number),
            _ => io::Error::other("unknown"),
        };
        match self.code {
            REPORTED => DeliveryError::Reported(error()),
            TOO_LONG => DeliveryError::TooLong {
                mtu: Some(self.number).filter(|mtu| *mtu > 0),
            },
            _ => DeliveryError::NotSent(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_again_as_it_was() {
        let refused = || io::Error::from_raw_os_error(libc::ECONNREFUSED);
        for error in [
            DeliveryError::Reported(refused()),
            DeliveryError::NotSent(refused()),
            DeliveryError::TooLong { mtu: Some(1_280) },
            DeliveryError::TooLong { mtu: None },
        ] {
            let failure = RecordedFailure::of(&error);
            let read = RecordedFailure::read(failure.code, failure.number);
            assert_eq!(read, Some(failure));
            assert_eq!(failure.error().to_string(), error.to_string());
        }
        assert_eq!(RecordedFailure::read(3, 1), None);
    }
}

//! Why a request is refused before a handler sees it, or while its body arrives.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use serveloop::ProtocolError;
use serveloop::protocols::counted;

/// A request that this crate refuses: the status that the client is answered with, and a sentence
/// that says what is wrong and where. The connection ends after the answer, because it is unclear
/// where the next request begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    pub(crate) status: u16,
    pub(crate) problem: Cow<'static, str>,
}

impl Rejection {
    pub(crate) fn new(status: u16, problem: impl Into<Cow<'static, str>>) -> Self {
        let problem = problem.into();
        Self { status, problem }
    }

    pub(crate) fn bad(problem: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, problem)
    }

    /// Returns what the client is told because of `error`, which ended its connection.
    pub(crate) fn of(error: &ProtocolError) -> Self {
        match error {
            ProtocolError::Other(other) => match other.downcast_ref::<Self>() {
                Some(rejection) => rejection.clone(),
                None => Self::new(500, "the connection failed"),
            },
            ProtocolError::TooLong { limit, .. } => {
                let limit = counted(*limit, "byte", "bytes");
                Self::new(431, format!("the head has more than {limit}"))
            }
            error => Self::bad(error.to_string()),
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.problem)
    }
}

impl Error for Rejection {}

impl From<Rejection> for ProtocolError {
    fn from(rejection: Rejection) -> Self {
        Self::other(rejection)
    }
}

use crate::error::ProtocolError;
use crate::session::{Protocol, Transport};

/// Takes all input and sends nothing (RFC 863).
///
/// ```
/// use serveloop::{protocols::Discard, testing::MemorySession};
///
/// let mut session = MemorySession::new(Discard);
/// session.receive(b"hello");
/// assert_eq!(session.sent(), b"");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Discard;

impl Protocol for Discard {
    fn data_received(
        &mut self,
        data: &[u8],
        _: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        Ok(data.len())
    }
}

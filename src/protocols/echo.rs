use crate::error::ProtocolError;
use crate::session::{Protocol, Transport};

/// Sends back what it receives (RFC 862).
///
/// ```
/// use serveloop::{protocols::Echo, testing::MemorySession};
///
/// let mut session = MemorySession::new(Echo);
/// session.receive(b"hello");
/// assert_eq!(session.sent(), b"hello");
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Protocol for Echo {
    #[inline]
    fn data_received(
        &mut self,
        data: &[u8],
        transport: &mut Transport<'_>,
    ) -> Result<usize, ProtocolError> {
        transport.write(data);
        Ok(data.len())
    }

    fn hand_over(&mut self, _: &Transport<'_>) -> Option<Vec<u8>> {
        Some(Vec::new())
    }

    fn take_over(&mut self, state: &[u8], _: &mut Transport<'_>) -> bool {
        state.is_empty()
    }
}

use crate::error::ProtocolError;
use crate::session::{Protocol, Transport};

/// Sends back what it receives (RFC 862).
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
}

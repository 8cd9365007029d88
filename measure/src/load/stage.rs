//! How far a connection of a load came.

/// How far a connection of a load came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Its TLS handshake is not complete.
    Handshake,
    /// It is established.
    Open,
    /// The server has sent a message back.
    Answered,
}

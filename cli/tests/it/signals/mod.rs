//! What signals do to a server.

mod dispositions;
pub(crate) mod shutdown;

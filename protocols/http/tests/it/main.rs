//! Tests of the protocol, in memory.

mod corpus;
mod replies;
mod support;

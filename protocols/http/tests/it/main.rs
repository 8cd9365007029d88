//! Tests of the protocol, in memory.

mod corpus;
mod files;
mod replies;
mod simulated;
mod support;

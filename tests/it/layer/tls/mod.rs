//! TLS as a layer.

mod cases;
pub(crate) mod certificates;
mod configuration;
mod ends;
mod foreign;
mod handshake;
mod models;
mod nesting;
mod noise;
mod pair;
pub(crate) mod programs;
mod stream;

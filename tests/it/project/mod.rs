//! The project itself: its source, its documents and examples, faults that were found, and
//! models of what it is made of.

mod documented;
#[cfg(target_os = "linux")]
mod examples;
mod properties;
mod regression;
mod scenarios;
mod socketserver;
mod tidy;

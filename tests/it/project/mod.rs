//! The project itself: its source, its documents and examples, faults that were found, and
//! models of what it is made of.

mod counts;
mod documented;
mod documents;
#[cfg(target_os = "linux")]
mod examples;
mod pictures;
mod properties;
mod regression;
mod scenarios;
mod socketserver;
mod tidy;

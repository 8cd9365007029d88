//! Runs programs for clients, within limits and without a shell: a [`serveloop`] protocol.
//!
//! A request is a command line: words, with quotes as in Python's `shlex.split`. The first word must be
//! a program that was [allowed](Allowed) when the server started. The other words are its arguments,
//! passed unchanged. Variables, wildcards, pipes and `;` have no special meaning. The reply is what the
//! program writes to standard output and standard error, in the order in which it arrives. If something
//! went wrong, a last line in brackets says what, such as `[exit status 1]` or `[timed out after 30s]`.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! use serveloop::{Config, Server};
//! use serveloop_command::{Allowed, Commands, Settings, become_program};
//!
//! fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
//!     // Programs are started through this binary.
//!     if let Some(failed) = become_program() {
//!         return Ok(failed);
//!     }
//!
//!     let config = Config::default();
//!     let allowed = vec![Allowed::find("ls")?, Allowed::find("date")?];
//!     let settings = Settings { allowed, ..Settings::default() };
//!     let commands = Commands::new(settings, &config)?;
//!
//!     let server = Server::bind(&["unix:///run/example/commands.sock".parse()?], config)?;
//!     let served = server.with(commands.clone()).serve_forever();
//!     commands.end();
//!     served?;
//!     Ok(ExitCode::SUCCESS)
//! }
//! ```
//!
//! - [`Settings`] has the wire format and every limit, with a default.
//! - [`Commands`] is the factory of a server.
//! - [`Wire`] has the three formats of requests and replies.
//!
//! # What this protects from, and what not
//! A program runs in the directory `/`, with only `PATH` and `LANG` in its environment, an empty
//! standard input, and no other open descriptors. It has its own session, gains no rights by
//! set-user-ID, and is killed when its connection ends. When it ends, the processes that it left behind
//! are killed. When the server is killed, the program is killed too on Linux, but not what it started.
//!
//! None of this protects from what an allowed program can be told to do. Allowing a shell, an
//! interpreter, `env`, `find`, `xargs` or an editor allows everything, with the rights of the server.
//! Memory, the number of processes and the network are not limited.
//!
//! **Clients are not authenticated.** Any client that can connect can run the programs, so listen on
//! loopback or, better, on a Unix socket: the permissions of its directory decide who can connect.
//!
//! # Processes
//! A program begins as the server's own binary, whose `main` calls [`become_program`] first. It sets
//! the limits, leaves the server's session, closes all descriptors but three, and becomes the program:
//! no code runs between `fork` and `exec` among threads.
//!
//! Log lines have the target `serveloop`, like those of the library. A line for each request has the
//! level debug.

mod allowed;
mod commands;
mod confinement;
mod job;
mod launcher;
mod memory_quota;
mod outcome;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(not(target_os = "linux"), path = "other_systems.rs")]
mod platform;
mod pool;
mod quoted;
mod reply;
mod requests;
mod running;
mod service;
mod settings;
mod shlex;
mod size;
mod sys;
mod tally;
mod wire;

pub use allowed::{AllowError, Allowed};
pub use commands::Commands;
pub use launcher::become_program;
pub use requests::Requests;
pub use settings::Settings;
pub use tally::Tally;
pub use wire::{READY, Wire};

/// The target of every log line, which is the library's, so that one filter shows both.
const LOG_TARGET: &str = "serveloop";

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

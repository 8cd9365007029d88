//! The other ways of serving a connection that was accepted: on the loop's own thread, one at a time
//! (`sequential`), on a thread each (`threads`), in a process each (`processes`); and several loops
//! (`workers`).
//!
//! The first three are a `Model` around one blocking driver, `blocking`. What comes in here is how a
//! connection gets its thread or process, and how that is ended and counted. Accepting, refusing and
//! limits are the reactor's, and no model calls a protocol.
//!
//! This room imports `reactor` and what is below it.

mod blocking;
mod ending;
mod interrupt;
mod processes;
mod report;
mod self_pipe;
mod sequential;
mod threads;
pub(crate) mod workers;

pub(crate) use self::processes::Processes;
pub(crate) use self::sequential::Sequential;
pub(crate) use self::threads::Threads;

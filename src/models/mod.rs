//! The room `models`.

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

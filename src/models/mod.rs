//! Ways of serving an accepted connection other than on the event loop: one at a time on the loop's
//! own thread (`sequential`), one thread each (`threads`) or one process each (`processes`). A
//! fourth way runs several loops (`workers`).
//!
//! The first three implement `Model` around one blocking driver, `blocking`. This room holds how a
//! connection gets its thread or process, and how that is ended and counted. The reactor accepts,
//! refuses and enforces limits. Protocols are called only through their session. What the driver asks
//! of the system is in one trait (`blocking/stream`), so that a simulation can serve with it too.
//!
//! This room imports `reactor` and what is below it.

mod blocking;
mod ending;
mod interrupt;
mod naming;
mod processes;
mod report;
mod self_pipe;
mod sequential;
mod served;
mod threads;
pub(crate) mod workers;

#[cfg(feature = "testing")]
pub(crate) use self::blocking::{Blocking, BlockingStream};
#[cfg(feature = "testing")]
pub(crate) use self::interrupt::Interrupt;
pub(crate) use self::processes::Processes;
pub(crate) use self::sequential::Sequential;
pub(crate) use self::threads::Threads;

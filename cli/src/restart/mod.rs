//! Restarts without a lost client: SIGUSR2 starts the program anew, which goes on with the same sockets.
//!
//! The old process copies its listening sockets and starts the program that it was started by, with the
//! same arguments. A variable says which descriptors are which listener's (`manifest`). The new process
//! makes its listeners of them (`former`), and says when every loop serves. Then the old one retires
//! (`hook`): it listens no more, and ends with its last connection. If the new one does not get so far,
//! the old one goes on (`attempt`, `restarts`). With `--handover` open connections move too (`transfer`).
//!
//! This room imports no protocol and nothing of `serve` or `serving`.

mod attempt;
mod former;
mod hook;
mod manifest;
mod moving;
mod options;
mod pid_file;
mod program;
mod restarts;
mod setting;
mod transfer;

pub(crate) use self::former::{Former, Word};
pub(crate) use self::hook::RestartHook;
pub(crate) use self::manifest::PlaceName;
pub(crate) use self::moving::Moving;
pub(crate) use self::options::RestartOptions;
pub(crate) use self::program::Program;
pub(crate) use self::restarts::Restarts;
pub(crate) use self::setting::{Setting, SideListeners};

//! What `serve` and its protocols share: the model that serves connections, message framings, limits that
//! move along with others, the budgets of the log, standard output that clients write to, descriptors
//! that a service manager passed.
//!
//! Something comes in here if more than one protocol, or a protocol and `serve`, needs it. This room
//! imports neither.

mod access_log;
#[cfg_attr(not(target_os = "linux"), path = "activation_other_systems.rs")]
pub(crate) mod activation;
mod execution;
mod implied_limits;
mod log_budget;
mod messages;
pub(crate) mod shared_log_budget;
mod stdout_queue;

pub(crate) use self::access_log::AccessLog;
pub(crate) use self::activation::VARIABLES;
pub(crate) use self::execution::Execution;
pub(crate) use self::implied_limits::{Need, make_room};
pub(crate) use self::log_budget::LogBudget;
pub(crate) use self::messages::{MessageKind, Messages};
pub(crate) use self::shared_log_budget::SharedLogBudget;
pub(crate) use self::stdout_queue::{Outflow, StdoutQueue};

//! The command's logger, which writes lines of the library and of the command under one target, as
//! text or JSON, and the budget of lines about connections.
//!
//! Records of the crate `log` come in. This room imports `unblocked` only.

mod json;
mod level;
mod log_budget;
mod shared_log_budget;

use std::cell::Cell;
use std::io::Stderr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use env_filter::Filter;
use log::kv::Key;
use log::{Level, Log, Metadata, Record};

use crate::logger::log_budget::LogBudget;
use crate::logger::shared_log_budget::SharedLogBudget;
use crate::unblocked::{LAST_WAIT, Unblocked};

pub(crate) use self::json::{describe_server, dropped_line};
pub(crate) use self::level::{configure_level, set_level};
pub(crate) use self::log_budget::LINES_PER_SECOND;
pub(crate) use self::shared_log_budget::share_log_budget;

use serveloop::protocols::counted;

/// The target of every line, including the library's.
pub(crate) const TARGET: &str = "serveloop";

/// The key that marks lines about one connection: that it was accepted, that it ended in order, and
/// what its protocol notes.
const EVENT: &str = "event";

/// The modules whose lines on a thread that is aside are about the server.
const OWN_MODULES: &str = concat!(env!("CARGO_CRATE_NAME"), "::monitoring");

thread_local! {
    static IS_ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// Takes lines of the library on this thread for details: what they report is shown at the debug level,
/// and warnings as everywhere. For a server that is not the one that the log is about.
pub(crate) fn be_aside() {
    IS_ASIDE.set(true);
}

/// Writes the lines that the filter lets through. Lines about connections are logged at the debug
/// level. Where the filter only allows info, they are raised to info, up to a limit per second.
pub(crate) struct Logger {
    filter: Filter,
    lines: env_logger::Logger,
    out: Unblocked<Stderr>,
    budget: Mutex<LogBudget>,
}

impl Logger {
    pub(crate) fn new(filter: Filter, lines: env_logger::Logger, out: Unblocked<Stderr>) -> Self {
        let budget = Mutex::default();
        Self {
            filter,
            lines,
            out,
            budget,
        }
    }

    /// Installs this as the logger of the process. A process has one, so a second call does
    /// nothing.
    pub(crate) fn start(self) {
        let wanted = self.filter.filter();
        if log::set_boxed_logger(Box::new(self)).is_ok() {
            level::set_usual(wanted);
        }
    }

    /// Returns whether lines like this are written.
    fn shows(&self, metadata: &Metadata<'_>) -> bool {
        match level::given() {
            Some(level) => metadata.level() <= level,
            None => self.filter.enabled(metadata),
        }
    }

    /// Returns whether this line is written.
    fn lets_through(&self, record: &Record<'_>) -> bool {
        match level::given() {
            Some(level) => record.level() <= level,
            None => self.filter.matches(record),
        }
    }

    /// Writes a line of a thread that is aside, if details are shown.
    fn log_aside(&self, record: &Record<'_>) {
        let level = match record.level() {
            Level::Info => Level::Debug,
            level => level,
        };
        let lowered = Record::builder()
            .args(*record.args())
            .level(level)
            .target(record.target())
            .key_values(record.key_values())
            .build();
        if self.lets_through(&lowered) {
            self.lines.log(&lowered);
        }
    }

    /// Writes a line about a connection at the info level, if the budget of this second allows it.
    fn note(&self, record: &Record<'_>) {
        if self.spend() {
            self.tell_left_out();
            self.lines.log(record);
        }
    }

    /// Logs how many lines about connections were left out here.
    fn tell_left_out(&self) {
        let shared = shared_log_budget::shared().map_or(0, SharedLogBudget::take_left_out);
        let count = shared + self.budget().take_left_out();
        if count > 0 {
            let left_out = counted(
                count,
                "line about a connection was left out",
                "lines about connections were left out",
            );
            self.lines.log(&at_info(
                &Record::builder().args(format_args!("({left_out})")).build(),
            ));
        }
    }

    /// Takes one line from the budget, which forked processes share where the system can do that.
    /// Returns false if the budget of this second is spent.
    fn spend(&self) -> bool {
        match shared_log_budget::shared() {
            Some(shared_log_budget) => shared_log_budget.spend(),
            None => self.budget().spend(Instant::now()),
        }
    }

    fn budget(&self) -> MutexGuard<'_, LogBudget> {
        // No panic leaves the budget half changed, so a poisoned lock is still good.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes `lines` write each record as an object of JSON.
pub(crate) fn format_as_json(lines: &mut env_logger::Builder) {
    lines.format(json::write_record);
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let may_be_event = metadata.level() == Level::Debug && metadata.target() == TARGET;
        let raised = Metadata::builder()
            .level(Level::Info)
            .target(TARGET)
            .build();
        self.shows(metadata) || (may_be_event && self.shows(&raised))
    }

    fn log(&self, record: &Record<'_>) {
        let is_own = |path: &str| path.starts_with(OWN_MODULES);
        if IS_ASIDE.get() && !record.module_path().is_some_and(is_own) {
            return self.log_aside(record);
        }
        if self.lets_through(record) {
            self.tell_left_out();
            return self.lines.log(record);
        }

        let is_event = record.key_values().get(Key::from(EVENT)).is_some();
        if is_event && record.level() == Level::Debug && record.target() == TARGET {
            let raised = at_info(record);
            if self.lets_through(&raised) {
                self.note(&raised);
            }
        }
    }

    /// Logs how many lines were left out, and waits at most [`LAST_WAIT`] for a slow reader.
    fn flush(&self) {
        self.tell_left_out();
        self.out.finish(LAST_WAIT);
    }
}

fn at_info<'a>(record: &'a Record<'a>) -> Record<'a> {
    Record::builder()
        .args(*record.args())
        .level(Level::Info)
        .target(TARGET)
        .key_values(record.key_values())
        .build()
}

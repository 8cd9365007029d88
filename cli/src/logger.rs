//! The log of the command: the lines of the library and of the command itself, under one name.

use std::io::Stderr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use env_filter::Filter;
use log::kv::Key;
use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::serving::{LogBudget, SharedLogBudget, shared_log_budget};
use crate::unblocked::{LAST_WAIT, Unblocked};

/// What every line is filtered by, the library's lines included, wherever it comes from.
pub(crate) const TARGET: &str = "serveloop";

/// The key that marks the lines about one connection: that it was accepted, that it ended in order,
/// and what a protocol has to say of it.
const EVENT: &str = "event";

/// Writes what the filter lets through. Lines about connections are logged at the level debug, all
/// of them; where only the level info is wanted, they are written as such, up to a limit in each
/// second.
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

    /// Logs from now on. There is one log in a process.
    pub(crate) fn start(self) {
        let wanted = self.filter.filter();
        let most = if wanted >= LevelFilter::Info {
            wanted.max(LevelFilter::Debug)
        } else {
            wanted
        };
        if log::set_boxed_logger(Box::new(self)).is_ok() {
            log::set_max_level(most);
        }
    }

    /// Writes a line about a connection at the level info, if there is room for it this second.
    fn note(&self, record: &Record<'_>) {
        if self.spend() {
            self.tell_left_out();
            self.lines.log(record);
        }
    }

    /// Says how many lines about connections are missing here.
    fn tell_left_out(&self) {
        let shared = shared_log_budget::shared().map_or(0, SharedLogBudget::take_left_out);
        let count = shared + self.budget().take_left_out();
        if count > 0 {
            self.lines.log(&at_info(
                &Record::builder()
                    .args(format_args!("(and {count} more)"))
                    .build(),
            ));
        }
    }

    /// Asks for a line, from the budget that all processes share if they do.
    fn spend(&self) -> bool {
        match shared_log_budget::shared() {
            Some(shared_log_budget) => shared_log_budget.spend(),
            None => self.budget().spend(Instant::now()),
        }
    }

    fn budget(&self) -> MutexGuard<'_, LogBudget> {
        // The budget is whole whenever a panic may come.
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let may_be_event = metadata.level() == Level::Debug && metadata.target() == TARGET;
        let raised = Metadata::builder()
            .level(Level::Info)
            .target(TARGET)
            .build();
        self.filter.enabled(metadata) || (may_be_event && self.filter.enabled(&raised))
    }

    fn log(&self, record: &Record<'_>) {
        if self.filter.matches(record) {
            self.tell_left_out();
            return self.lines.log(record);
        }
        let is_event = record.key_values().get(Key::from(EVENT)).is_some();
        if is_event && record.level() == Level::Debug && record.target() == TARGET {
            let raised = at_info(record);
            if self.filter.matches(&raised) {
                self.note(&raised);
            }
        }
    }

    /// Says what was left out, and waits a moment for a reader that is slow.
    fn flush(&self) {
        self.tell_left_out();
        self.out.finish(LAST_WAIT);
    }
}

fn at_info<'a>(record: &Record<'a>) -> Record<'a> {
    Record::builder()
        .args(*record.args())
        .level(Level::Info)
        .target(TARGET)
        .build()
}

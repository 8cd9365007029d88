//! The level of the log while the program runs.

use std::sync::atomic::{AtomicUsize, Ordering};

use log::LevelFilter;

/// The level that goes before the filter, by its place in [`LevelFilter::iter`] plus one. Zero means that
/// there is none.
static GIVEN: AtomicUsize = AtomicUsize::new(0);

/// The level that the command line and its file asked for last, like [`GIVEN`].
static CONFIGURED: AtomicUsize = AtomicUsize::new(0);

/// The most that the filter lets through, by its place.
static USUAL: AtomicUsize = AtomicUsize::new(0);

/// Writes lines up to this level, whatever the filter says. `None` goes back to the filter.
pub(crate) fn set_level(level: Option<LevelFilter>) {
    GIVEN.store(place(level), Ordering::Relaxed);
    take_effect();
}

/// Works like [`set_level`], for the level that the command line and its file ask for. If they asked for the
/// same before, nothing changes: an administrator may have set another one since.
pub(crate) fn configure_level(level: Option<LevelFilter>) {
    if CONFIGURED.swap(place(level), Ordering::Relaxed) != place(level) {
        set_level(level);
    }
}

/// Returns the place of a level plus one.
fn place(level: Option<LevelFilter>) -> usize {
    level.map_or(0, |level| level as usize + 1)
}

/// Notes the most that the filter lets through.
pub(super) fn set_usual(level: LevelFilter) {
    USUAL.store(level as usize, Ordering::Relaxed);
    take_effect();
}

/// Returns the level that goes before the filter.
pub(super) fn given() -> Option<LevelFilter> {
    let place = GIVEN.load(Ordering::Relaxed).checked_sub(1)?;
    LevelFilter::iter().nth(place)
}

/// Lets the records through that are written, and those about connections, which are raised to info.
fn take_effect() {
    let usual = LevelFilter::iter().nth(USUAL.load(Ordering::Relaxed));
    let wanted = given().or(usual).unwrap_or(LevelFilter::Off);
    log::set_max_level(match wanted {
        LevelFilter::Info => LevelFilter::Debug,
        other => other,
    });
}

//! The parts that a message passes through, without a system below them: what is in a file is measured
//! by the smallest public thing that contains it, and each benchmark says what that is.
//!
//! `cargo bench --bench micro`, with a part of a name to run only some.

mod buffers;
mod framings;
mod network;
mod sessions;
mod turns;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    sessions::measure(&mut criterion);
    framings::measure(&mut criterion);
    buffers::measure(&mut criterion);
    turns::measure(&mut criterion);
    criterion.final_summary();
}

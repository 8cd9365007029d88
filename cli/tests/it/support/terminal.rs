//! A terminal for a program, with the test in the person's place.

use std::fs::File;
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Where the person types and reads, and what the program has for its standard input or output.
pub(crate) fn terminal() -> (File, Stdio) {
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&person).expect("a terminal");
    unlockpt(&person).expect("a terminal");
    let name = ptsname(&person, Vec::new()).expect("a terminal");
    let terminal = File::options()
        .read(true)
        .write(true)
        .open(name.to_str().expect("a path"));
    (
        File::from(person),
        Stdio::from(terminal.expect("a terminal")),
    )
}

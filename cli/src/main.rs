//! The command `serveloop`.

fn main() {}

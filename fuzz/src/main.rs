//! libFuzzer on the target that the environment variable `FUZZ_TARGET` names. See README.md.
#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use serveloop_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("FUZZ_TARGET").unwrap_or_default();
    serveloop_fuzz::target(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?}: no such target"))
});

fuzz_target!(|data: &[u8]| TARGET(data));

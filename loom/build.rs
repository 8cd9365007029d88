//! Replaces the module of the library that has the system's threads: see `src/waker/mod.rs` there.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(serveloop_loom)");
    println!("cargo::rustc-cfg=serveloop_loom");
    println!("cargo::rerun-if-changed=build.rs");
}

//! Tests that need interfaces and addresses of their own: they run again in a network namespace.

use std::process::{Command, Stdio};

use crate::support::again;
use crate::support::outside::skip;

/// Interface `d0` with several addresses of each family, all of this machine, when they can be used:
/// the system sets them up a moment later.
pub(crate) const ADDRESSES: &str = "
    ip link set lo up
    ip link add d0 type veth peer name d1
    ip link set d0 addrgenmode none
    ip link set d1 up
    ip link set d0 up
    ip addr add 10.9.0.1/24 dev d0
    ip addr add 10.9.0.2/24 dev d0
    ip addr add fd00:9::1/64 dev d0 nodad
    ip addr add fd00:9::2/64 dev d0 nodad
    ip addr add fe80::9:1/64 dev d0 nodad
    ip addr add fe80::9:2/64 dev d0 nodad
    for ip in fd00:9::1 fd00:9::2 fe80::9:1 fe80::9:2; do
        tries=0
        until ip -6 route show table local | grep -q \"^local $ip \"; do
            tries=$((tries + 1))
            [ $tries -lt 500 ]
            sleep 0.01
        done
    done
";

/// Runs the test `name` again in a network namespace that `setup` prepares, and checks that it
/// succeeds there. True inside of it, where the test is to do its work.
#[track_caller]
pub(crate) fn is_inside(name: &str, setup: &str) -> bool {
    if again::is_inside() {
        return true;
    }
    let mut trial = unshared(setup);
    trial.stdout(Stdio::null()).stderr(Stdio::null());
    if !trial.status().is_ok_and(|status| status.success()) {
        skip("network namespace");
        return false;
    }
    let mut command = unshared(&format!("ulimit -n 256\n{setup}\nexec \"$@\""));
    command.arg("sh").arg(again::itself().get_program());
    again::run(command, name);
    false
}

/// Runs a script in a namespace of its own, whose end is the script's.
fn unshared(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-ec", script]);
    command
}

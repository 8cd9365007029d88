//! Addresses that cannot be had say so, at once and by name.

use rustix::io::Errno;

use crate::project::scenarios::{can, run_by};
use crate::support::outside::skip;
use crate::support::served::{Served, number_of};

/// Runs a server that cannot listen on `uri`. Returns the line that says why.
#[track_caller]
fn refused(before: &[&str], uri: &str) -> String {
    let served = Served::spawn_unheard(run_by(before, &["echo", "--listen", uri]));
    let (status, log) = served.end();
    assert_eq!(status.code(), Some(1), "{log:?}");
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains(uri), "{log:?}");
    log[0].clone()
}

#[test]
fn a_privileged_port_is_refused_by_name() {
    let powerless = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let is_free = first.is_ok_and(|first| first.trim().parse().is_ok_and(|first: u16| first <= 81));
    if is_free || !can(powerless[0], &[powerless[1], powerless[2], "true"]) {
        return skip("port that is for root alone");
    }
    let line = refused(&powerless, "tcp://127.0.0.1:81");
    assert!(line.contains("Permission denied"), "{line}");
}

/// A network of its own, whose interfaces are all down: there is no `::1`.
#[test]
fn an_address_of_a_family_that_is_off_is_refused_by_name() {
    let elsewhere = ["unshare", "-n"];
    if !can(elsewhere[0], &[elsewhere[1], "true"]) {
        return;
    }
    let line = refused(&elsewhere, "tcp://[::1]:0");
    assert!(line.contains(&number_of(Errno::ADDRNOTAVAIL)), "{line}");
}

//! How often the system probes whether the peer of a silent TCP connection is still there.

use std::time::Duration;

use socket2::TcpKeepalive;

/// How many probes without an answer end a connection.
const PROBES: u32 = 4;

/// The longest time between two probes, which is the default of most systems.
const INTERVAL_MOST: u64 = 75;

/// Returns the probes of a connection that has been silent for `idle`. They come every quarter of
/// that time, so that a dead peer is found after about twice that time.
pub(super) fn probes(idle: Duration) -> TcpKeepalive {
    let (idle, interval) = seconds(idle);
    let probes = TcpKeepalive::new().with_time(Duration::from_secs(idle));
    repeated(probes, Duration::from_secs(interval))
}

/// Returns the time before the first probe, and the time between two, in whole seconds as the
/// system counts.
fn seconds(idle: Duration) -> (u64, u64) {
    let whole = idle.as_secs() + u64::from(idle.subsec_nanos() > 0);
    (whole.max(1), (whole / 4).clamp(1, INTERVAL_MOST))
}

#[cfg(any(
    target_os = "android",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "illumos",
    target_os = "linux",
    target_os = "netbsd",
    target_vendor = "apple"
))]
fn repeated(probes: TcpKeepalive, interval: Duration) -> TcpKeepalive {
    probes.with_interval(interval).with_retries(PROBES)
}

/// Other systems set these for all connections together.
#[cfg(not(any(
    target_os = "android",
    target_os = "dragonfly",
    target_os = "freebsd",
    target_os = "illumos",
    target_os = "linux",
    target_os = "netbsd",
    target_vendor = "apple"
)))]
fn repeated(probes: TcpKeepalive, _: Duration) -> TcpKeepalive {
    probes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_peer_is_found_after_about_twice_the_time() {
        for (idle, expected) in [
            (Duration::from_millis(1), (1, 1)),
            (Duration::from_secs(1), (1, 1)),
            (Duration::from_millis(1_001), (2, 1)),
            (Duration::from_secs(60), (60, 15)),
            (Duration::from_secs(300), (300, 75)),
            (Duration::from_secs(32_767), (32_767, 75)),
        ] {
            assert_eq!(seconds(idle), expected, "{idle:?}");
        }
    }
}

//! Each kind of fault by itself and often, without others that would end a connection before it shows.

use serveloop::testing::Faults;

use crate::blocking;
use crate::layers::some;

type Choose = fn(&mut Faults);

const KINDS: [(&str, Choose); 35] = [
    ("short_reads", |it| it.short_reads = OFTEN),
    ("short_writes", |it| it.short_writes = OFTEN),
    ("would_block", |it| it.would_block = OFTEN),
    ("interrupted", |it| it.interrupted = OFTEN),
    ("interrupted_waits", |it| it.interrupted_waits = OFTEN),
    ("delayed_events", |it| it.delayed_events = OFTEN),
    ("spurious_events", |it| it.spurious_events = OFTEN),
    ("duplicate_events", |it| it.duplicate_events = OFTEN),
    ("stale_events", |it| it.stale_events = OFTEN),
    ("shuffled_events", |it| it.shuffled_events = OFTEN),
    ("small_batches", |it| it.small_batches = OFTEN),
    ("tiny_buffers", |it| it.tiny_buffers = OFTEN),
    ("client_resets", |it| it.client_resets = OFTEN),
    ("client_vanishes", |it| it.client_vanishes = OFTEN),
    ("slow_clients", |it| it.slow_clients = OFTEN),
    ("clock_jumps", |it| it.clock_jumps = SELDOM),
    ("accept_errors", |it| it.accept_errors = OFTEN),
    ("out_of_descriptors", |it| it.out_of_descriptors = 1_000),
    ("register_errors", |it| it.register_errors = OFTEN),
    ("read_errors", |it| it.read_errors = SELDOM),
    ("write_errors", |it| it.write_errors = SELDOM),
    ("out_of_memory", |it| it.out_of_memory = OFTEN),
    ("finish_errors", |it| it.finish_errors = OFTEN),
    ("connect_errors", |it| it.connect_errors = OFTEN),
    ("lost_datagrams", |it| it.lost_datagrams = OFTEN),
    ("doubled_datagrams", |it| it.doubled_datagrams = OFTEN),
    ("forged_datagrams", |it| it.forged_datagrams = OFTEN),
    ("datagram_errors", |it| it.datagram_errors = OFTEN),
    ("datagram_reports", |it| it.datagram_reports = OFTEN),
    ("small_limits", |it| it.small_limits = 1_000),
    ("shutdowns", |it| it.shutdowns = 1_000),
    ("passed_descriptors", |it| it.passed_descriptors = OFTEN),
    ("stuck_calls", |it| it.stuck_calls = 1_000),
    ("slow_handlers", |it| it.slow_handlers = SELDOM),
    ("truncations", |it| it.truncations = OFTEN),
];

/// Of 1,000 occasions.
const OFTEN: u16 = 400;
const SELDOM: u16 = 50;
/// Some of the systems inside a layer, too.
const LAYERED: [&str; 4] = [
    "echo/tls",
    "finishing/tls12",
    "proxy/tls",
    "echo/proxied-tls",
];

/// Of each kind and system. Half of the seeds switch the only fault off.
const SEEDS: u64 = 8;

/// Runs every system under each kind of fault. Returns how many runs that made.
pub(crate) fn each_kind_alone() -> u64 {
    let mut runs = 0;
    for (kind, choose) in KINDS {
        let mut faults = Faults::none();
        choose(&mut faults);
        let blocking = blocking::plain(|plain| plain.faults(faults.clone()));
        let all = some(&LAYERED, |plain| plain.faults(faults.clone())).chain(blocking);
        for (name, mut system) in all {
            for seed in 0..SEEDS {
                if let Err(failure) = system.check(seed) {
                    panic!("{name} under {kind} alone: {failure}");
                }
            }
            runs += SEEDS;
        }
    }
    runs
}

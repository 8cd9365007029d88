//! `Reactor` on a network without a system: a whole turn, and what timers cost in it. Timers are not
//! public; each connection has a deadline, so one that comes and goes enters and leaves their heap.

use criterion::{Criterion, Throughput};
use serveloop::protocols::Echo;
use serveloop::{Config, Factory, Peer, Reactor};

use crate::network::{Plan, Planned};

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("turn");
    for (busy, open) in [(1, 1), (1, 10_000), (100, 100), (100, 10_000)] {
        let plan = Plan::default();
        let mut reactor = serving(&plan, open);
        group.throughput(Throughput::Elements(busy as u64));
        group.bench_function(format!("{busy} messages, {open} open"), |bencher| {
            bencher.iter(|| {
                plan.send(busy);
                turn(&mut reactor);
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    for open in [1, 100, 10_000] {
        let plan = Plan::default();
        let mut reactor = serving(&plan, open);
        let name = format!("a connection comes and goes, {open} open");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                plan.connect(1);
                turn(&mut reactor);
                plan.end_last();
                turn(&mut reactor);
                assert_eq!(reactor.connections(), open);
            });
        });
    }
    group.finish();
}

/// A loop with this many connections, which have deadlines.
fn serving(plan: &Plan, open: usize) -> Reactor<impl Factory<Protocol = Echo>, Planned> {
    let config = Config {
        max_connections: open + 1,
        accepts_per_turn: open,
        ..Config::default()
    };
    let reactor = Reactor::with_net(Planned::new(plan), |_: &Peer| Some(Echo), config);
    let mut reactor = reactor.expect("the configuration makes sense");
    let at = "tcp://127.0.0.1:1".parse().expect("an address");
    reactor.listen(&at).expect("nothing is asked of a system");
    plan.connect(open);
    turn(&mut reactor);
    turn(&mut reactor);
    assert_eq!(reactor.connections(), open);
    reactor
}

fn turn<F: Factory>(reactor: &mut Reactor<F, Planned>) {
    reactor.turn(None).expect("a network without errors");
}

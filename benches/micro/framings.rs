//! Framings: finding a frame in what has arrived, and making one.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use serveloop::framing::{Decoder, Delimited, Encoder, LengthPrefix, Lines};

const MOST: usize = 1 << 20;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("framing");
    for size in [16, 60, 1 << 10, 64 << 10] {
        group.throughput(Throughput::Bytes(size as u64));
        both(&mut group, "length", size, LengthPrefix::u32(MOST));
        both(&mut group, "line", size, Lines::new(MOST));
        both(
            &mut group,
            "delimiter",
            size,
            Delimited::new(*b"\r\n.\r\n", MOST),
        );
    }
    trickle(&mut group);
    group.finish();
}

fn both(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    size: usize,
    mut framing: impl Decoder + Encoder,
) {
    let payload = vec![b'x'; size];
    let mut frame = Vec::new();
    let made = framing.encode(&payload, |piece| frame.extend_from_slice(piece));
    assert!(made.is_ok(), "the payload fits");
    group.bench_function(format!("{name}, decode {size} B"), |bencher| {
        bencher.iter(|| {
            let found = framing.decode(black_box(&frame));
            assert!(matches!(black_box(found), Ok(Some(_))));
        });
    });
    group.bench_function(format!("{name}, encode {size} B"), |bencher| {
        bencher.iter(|| {
            let written = framing.encode(black_box(&payload), |piece| {
                black_box(piece);
            });
            assert!(written.is_ok());
        });
    });
}

/// A line whose bytes come by ones: the search must not begin anew each time.
fn trickle(group: &mut BenchmarkGroup<'_, WallTime>) {
    const LENGTH: usize = 8 << 10;
    let mut line = vec![b'x'; LENGTH];
    line.push(b'\n');
    group.throughput(Throughput::Bytes(LENGTH as u64));
    group.bench_function("line, 8 KiB byte by byte", |bencher| {
        bencher.iter(|| {
            let mut framing = Lines::new(MOST);
            for end in 1..LENGTH {
                assert!(matches!(framing.decode(&line[..end]), Ok(None)));
            }
            assert!(matches!(framing.decode(&line), Ok(Some(_))));
        });
    });
}

//! `Buffer`: what waits to be read or sent.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use serveloop::driver::Buffer;

pub(crate) fn measure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("buffer");
    for size in [64, 1 << 10, 64 << 10] {
        let data = vec![b'x'; size];
        let mut buffer = Buffer::new();
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(format!("push and consume {size} B"), |bencher| {
            bencher.iter(|| {
                buffer.push(black_box(&data));
                let count = black_box(buffer.as_slice()).len();
                buffer.consume(count);
            });
        });
    }
    let data = [b'x'; 1_000];
    let mut buffer = Buffer::new();
    buffer.push(&[b'x'; 30_000]);
    group.throughput(Throughput::Bytes(1_000));
    group.bench_function("1,000 B on, 1,000 B off, 30,000 B waiting", |bencher| {
        bencher.iter(|| {
            buffer.push(black_box(&data));
            buffer.consume(1_000);
        });
    });
    group.finish();
}

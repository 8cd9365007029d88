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
    cliff(criterion);
}

/// Copies of 64 KiB by how far, modulo a page, the destination is behind the source. Some processors
/// take twenty times as long for 1 to 31 bytes. The loop's buffers begin at 64, 1,088 and 2,112, and
/// large heap blocks at 16: the last ones are the distances between them.
fn cliff(criterion: &mut Criterion) {
    const PAGE: usize = 4_096;
    const SIZE: usize = 64 << 10;
    let source = vec![b'x'; SIZE + PAGE];
    let mut target = vec![0; SIZE + 2 * PAGE];
    let mut group = criterion.benchmark_group("copy of 64 KiB");
    group.throughput(Throughput::Bytes(SIZE as u64));
    for behind in [0, 1, 16, 31, 32, 48, 1_024, 2_048, PAGE - 48, PAGE - 16] {
        let source = &source[..SIZE];
        let aligned = source.as_ptr().addr().wrapping_add(behind);
        let start = aligned.wrapping_sub(target.as_ptr().addr()) % PAGE;
        group.bench_function(format!("{behind} bytes behind"), |bencher| {
            bencher.iter(|| {
                target[start..start + SIZE].copy_from_slice(black_box(source));
                black_box(&mut target);
            });
        });
    }
    group.finish();
}

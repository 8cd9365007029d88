//! The pool, wakers and a shutdown.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serveloop::service::{Job, Offload, OffloadLimits};
use serveloop::{Config, Protocol, Result, Server, Transport};

use crate::Outcome;

const CLIENTS: usize = 4;
const MESSAGES: usize = 500;

/// Adds one to each byte, on the pool.
struct Increment {
    pool: Offload,
    job: Option<Job<u8>>,
}

impl Protocol for Increment {
    fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
        let byte = data[0];
        let job = self
            .pool
            .submit(transport.waker(), move || byte.wrapping_add(1));
        self.job = Some(job?);
        transport.pause_reading();
        Ok(1)
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let Some(Ok(byte)) = self.job.as_mut().and_then(Job::take) else {
            return;
        };
        self.job = None;
        transport.write(&[byte]);
        transport.resume_reading();
    }
}

fn pool(idle_timeout: Duration) -> Offload {
    Offload::new(OffloadLimits {
        max_threads: 3,
        max_waiting: 10_000,
        idle_timeout: Some(idle_timeout),
        ..OffloadLimits::default()
    })
}

/// Two loops and their clients share a pool, whose threads come and go.
pub(crate) fn serve() -> Outcome {
    let config = Config {
        reuse_port: true,
        ..Config::default()
    };
    let server = Server::bind(&["tcp://127.0.0.1:0".parse()?], config)?;
    let (at, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
    let at = at.socket_addr().ok_or("an address of TCP")?;
    let pool = pool(Duration::from_micros(50));
    let shared = pool.clone();
    let build = move |_: &_| {
        let pool = shared.clone();
        Some(Increment { pool, job: None })
    };
    let serving = thread::spawn(move || server.with(build).serve_workers(2));

    let clients = (0..CLIENTS).map(|number| {
        thread::spawn(move || -> std::io::Result<()> {
            let mut stream = TcpStream::connect(at)?;
            let sent = vec![u8::try_from(number).unwrap_or(0); MESSAGES];
            stream.write_all(&sent)?;
            stream.shutdown(Shutdown::Write)?;
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            let expected: Vec<u8> = sent.iter().map(|byte| byte + 1).collect();
            assert_eq!(received, expected);
            Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.join().map_err(|_| "a client panicked")??;
    }
    handle.shutdown();
    serving.join().map_err(|_| "the server panicked")??;
    assert!(pool.end(Duration::from_secs(10)));
    Ok(())
}

/// Threads submit, wait for, drop and cancel jobs, and at last the pool ends under them.
pub(crate) fn submit() {
    let pool = pool(Duration::from_micros(20));
    let ran = Arc::new(AtomicUsize::new(0));
    let threads = (0..CLIENTS).map(|number| {
        let (pool, ran) = (pool.clone(), Arc::clone(&ran));
        thread::spawn(move || {
            for turn in 0..MESSAGES {
                let ran = Arc::clone(&ran);
                let work = move || ran.fetch_add(1, Ordering::Relaxed);
                let Ok(mut job) = pool.submit(|| (), work) else {
                    return;
                };
                match turn % 4 {
                    0 => drop(job),
                    1 => drop(job.cancel()),
                    _ => drop(job.wait(Some(Duration::from_secs(10)))),
                }
                if number == 0 && turn == MESSAGES - 10 {
                    pool.end(Duration::from_secs(10));
                }
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        assert!(thread.join().is_ok());
    }
    assert!(ran.load(Ordering::Relaxed) > 0);
}

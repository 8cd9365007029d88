//! Foreign descriptors: a pipe wakes a connection and a factory, in every model that has them in one process.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use serveloop::service::{Watch, Watcher};
use serveloop::{Peer, Protocol, Result, Transport};

use crate::support::model_server::{Model, ModelServer};
use crate::support::{PATIENCE, expect, millis, panic_quietly, timeless};

const TCP: &str = "tcp://127.0.0.1:0";

/// A stream that does not block, and its other end.
fn pair() -> (UnixStream, UnixStream) {
    let (other, mine) = UnixStream::pair().unwrap();
    mine.set_nonblocking(true).unwrap();
    (other, mine)
}

fn watched(watcher: &Watcher, source: &impl AsFd) -> (Watch, Receiver<()>) {
    let (sender, woken) = channel();
    let watch = watcher
        .watch(source, move || {
            let _ = sender.send(());
        })
        .unwrap();
    (watch, woken)
}

/// Sends its client what comes from elsewhere.
struct Forward {
    watcher: Watcher,
    source: Arc<UnixStream>,
    watch: Option<Watch>,
}

impl Protocol for Forward {
    fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
        let watch = self.watcher.watch(&self.source, transport.waker());
        self.watch = Some(watch?);
        Ok(())
    }

    fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
        self.watch = None;
        Ok(data.len())
    }

    fn woken(&mut self, transport: &mut Transport<'_>) {
        let mut room = [0; 100];
        while let Ok(count @ 1..) = (&*self.source).read(&mut room) {
            transport.write(&room[..count]);
        }
    }
}

#[test]
fn a_pipe_wakes_a_connection() {
    for model in Model::ALL {
        let (mut other, mine) = pair();
        let (watcher, mine) = (Watcher::new().unwrap(), Arc::new(mine));
        let build = move |_: &Peer| {
            let (watcher, source) = (watcher.clone(), Arc::clone(&mine));
            let watch = None;
            Some(Forward {
                watcher,
                source,
                watch,
            })
        };
        let server = ModelServer::new(model, &[TCP], timeless(), build);
        let mut client = server.client();
        for text in ["one", "two"] {
            other.write_all(text.as_bytes()).unwrap();
            expect(&mut client, text.as_bytes());
        }
        drop(client);
        server.end();
    }
}

#[test]
fn each_source_wakes_its_own_until_its_watch_is_dropped() {
    let watcher = Watcher::new().unwrap();
    let ((mut first, mut one), (mut second, two)) = (pair(), pair());
    let (one_watch, one_woken) = watched(&watcher, &one);
    let (two_watch, two_woken) = watched(&watcher, &two);
    assert!(format!("{watcher:?}").contains("watched: 2"));

    first.write_all(b"x").unwrap();
    one_woken.recv_timeout(PATIENCE).unwrap();
    assert!(two_woken.try_recv().is_err());
    // An edge: nothing more comes before it was read and written again.
    assert!(one_woken.recv_timeout(millis(50)).is_err());
    assert_eq!(one.read(&mut [0; 9]).unwrap(), 1);
    assert!(one.read(&mut [0; 9]).is_err());
    first.write_all(b"x").unwrap();
    one_woken.recv_timeout(PATIENCE).unwrap();

    drop(one_watch);
    // The waker went with it.
    assert!(one_woken.recv().is_err());
    first.write_all(b"x").unwrap();
    drop(two);
    second.write_all(b"x").unwrap();
    two_woken.recv_timeout(PATIENCE).unwrap();
    drop((two_watch, first, second));
    assert!(format!("{watcher:?}").contains("watched: 0"));
}

#[test]
fn the_thread_outlives_the_watcher_for_a_watch_and_a_panic() {
    let watcher = Watcher::new().unwrap();
    let ((mut first, one), (mut second, two)) = (pair(), pair());
    let nervous = watcher.watch(&one, || panic_quietly()).unwrap();
    let (_watch, woken) = watched(&watcher, &two);
    drop(watcher);
    first.write_all(b"x").unwrap();
    second.write_all(b"x").unwrap();
    woken.recv_timeout(PATIENCE).unwrap();
    drop(nervous);
}

#[test]
fn a_file_on_a_disk_is_refused() {
    let watcher = Watcher::new().unwrap();
    let file = std::fs::File::open("Cargo.toml").unwrap();
    let error = watcher.watch(&file, || ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(format!("{watcher:?}").contains("watched: 0"));
}

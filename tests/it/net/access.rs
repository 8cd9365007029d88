//! Permissions and group of the file of a Unix socket, which are right from its first moment.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serveloop::protocols::Echo;
use serveloop::{Config, Peer, Server};

use crate::support::model_server::{Model, ModelServer, connect};
use crate::support::outside::skip;
use crate::support::{Scratch, echoes};

const KINDS: [&str; 2] = ["unix", "unixgram"];

/// A group that is not this process's own. Only a privileged process may give files to any group.
const OTHER: u32 = 54_321;

fn bind(uri: &str, config: Config) -> std::io::Result<Server> {
    Server::bind_with(&[uri.parse().unwrap()], config)
}

/// The permissions of a file, and its group.
fn access(path: &Path) -> Option<(u32, u32)> {
    let found = fs::symlink_metadata(path).ok()?;
    Some((found.mode() & 0o777, found.gid()))
}

fn is_privileged(scratch: &Scratch) -> bool {
    let path = scratch.path("probe");
    fs::write(&path, "").unwrap();
    let may = std::os::unix::fs::chown(&path, None, Some(OTHER)).is_ok();
    if !may {
        skip("right to give files to another group");
    }
    may
}

/// Looks at a file all the time while it is made again and again, and checks that it never has other
/// permissions or another group.
#[track_caller]
fn check_always(path: &Path, expected: (u32, u32), make: impl Fn(usize)) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut sightings = 0;
            while !ended.load(Ordering::Relaxed) {
                if let Some((mode, group)) = access(path) {
                    assert_eq!((mode, group), expected, "{mode:o}");
                    sightings += 1;
                }
            }
            sightings
        });
        (0..700).for_each(make);
        ended.store(true, Ordering::Relaxed);
        assert!(watch.join().unwrap() > 0, "it was seen");
    });
}

/// The usual umask takes the rights to write from group and others.
#[test]
fn permissions_are_right_from_the_first_moment() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    let own = fs::metadata(scratch.path("")).unwrap().gid();
    for mode in [0o777, 0o660, 0o606, 0o400, 0] {
        check_always(&path, (mode, own), |round| {
            let uri = scratch.uri(KINDS[round % 2], "socket");
            drop(bind(&format!("{uri}?mode={mode:o}"), Config::default()).unwrap());
        });
    }
}

#[test]
fn the_group_is_right_from_the_first_moment() {
    let scratch = Scratch::new();
    if !is_privileged(&scratch) {
        return;
    }
    let path = scratch.path("socket");
    check_always(&path, (0o660, OTHER), |round| {
        let uri = scratch.uri(KINDS[round % 2], "socket");
        drop(bind(&format!("{uri}?mode=0660&group={OTHER}"), Config::default()).unwrap());
    });
}

/// In such a directory a new file has the directory's group, which gets no permissions before the
/// file is given to the right one.
#[test]
fn the_group_of_the_directory_gets_no_permissions() {
    let scratch = Scratch::new();
    if !is_privileged(&scratch) {
        return;
    }
    let directory = scratch.path("directory");
    fs::create_dir(&directory).unwrap();
    std::os::unix::fs::chown(&directory, None, Some(OTHER + 1)).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o2777)).unwrap();
    let path = directory.join("socket");
    let uri = format!("unix://{}?mode=0660&group={OTHER}", path.display());

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                let Some((mode, group)) = access(&path) else {
                    continue;
                };
                // Linux reads the group before the mode, and both may change in between. Twice they do not.
                if mode & 0o070 != 0 && access(&path) == Some((mode, group)) {
                    assert_eq!(group, OTHER, "{mode:o}");
                }
            }
        });
        for _ in 0..500 {
            let server = bind(&uri, Config::default()).unwrap();
            assert_eq!(access(&path), Some((0o660, OTHER)));
            drop(server);
        }
        ended.store(true, Ordering::Relaxed);
    });
}

/// The umask of the process is the same after and meanwhile: what other threads write has the usual
/// permissions.
#[test]
fn other_files_have_their_usual_permissions() {
    let scratch = Scratch::new();
    let plain = scratch.path("plain");
    fs::write(&plain, "").unwrap();
    let usual = access(&plain).unwrap().0;

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                fs::remove_file(&plain).unwrap();
                fs::write(&plain, "").unwrap();
                assert_eq!(access(&plain).unwrap().0, usual);
            }
        });
        let uri = scratch.uri("unix", "socket");
        for _ in 0..500 {
            drop(bind(&format!("{uri}?mode=0666"), Config::default()).unwrap());
        }
        ended.store(true, Ordering::Relaxed);
    });
}

#[test]
fn the_configuration_is_for_listeners_without_options() {
    let scratch = Scratch::new();
    let config = Config {
        socket_mode: 0o640,
        ..Config::default()
    };
    let (one, other) = (scratch.uri("unix", "one"), scratch.uri("unixgram", "other"));
    let listens = [one, format!("{other}?mode=0604")];
    let listens = listens.map(|uri| uri.parse().unwrap());
    let _server = Server::bind_with(&listens, config).unwrap();
    assert_eq!(access(&scratch.path("one")).unwrap().0, 0o640);
    assert_eq!(access(&scratch.path("other")).unwrap().0, 0o604);
}

#[test]
fn the_file_is_served_in_every_model_and_goes_with_the_server() {
    let scratch = Scratch::new();
    let path = scratch.path("socket");
    for model in Model::ALL {
        let uri = format!("{}?mode=0666&backlog=9", scratch.uri("unix", "socket"));
        let config = Config {
            reuse_port: model == Model::Workers,
            ..Config::default()
        };
        let server = bind(&uri, config).unwrap();
        let server = ModelServer::with(model, server, |_: &Peer| Some(Echo));
        assert_eq!(access(&path).unwrap().0, 0o666, "{model:?}");
        echoes(&mut connect(&server.addresses[0]), b"hello");
        server.end();
        assert!(!path.exists(), "{model:?}");
    }
}

#[test]
fn a_group_that_does_not_exist_is_named_and_nothing_is_left() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unix", "socket");
    // The largest number would leave the group as it is, and a number has digits only.
    for group in ["nobody-knows", "4294967295", "4294967296", "+5", "-1"] {
        let error = bind(&format!("{uri}?group={group}"), Config::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let said = format!("cannot listen on {uri}: there is no group {group:?}");
        assert_eq!(error.to_string(), said);
        assert!(!scratch.path("socket").exists());
    }
}

/// The kernel's errors arrive through the child that binds.
#[test]
fn a_path_that_cannot_be_bound_is_named_whatever_its_permissions() {
    let scratch = Scratch::new();
    let uri = scratch.uri("unix", "no/such/directory");
    let error = bind(&format!("{uri}?mode=0660"), Config::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains(&uri), "{error}");
}

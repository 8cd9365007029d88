//! `serveloop bench`: what was measured is kept, however the benchmark ends.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::outside::{require_that, skip};
use crate::support::served::{Outcome, PATIENCE, Served, copy_program, is_ignored, serveloop};
use crate::support::sockets::{Directory, clogged};

/// Two short loads; the file for the results follows.
const LOADS: [&str; 10] = [
    "bench",
    "--compare",
    "event-loop",
    "--connections",
    "1,2",
    "--rounds",
    "1",
    "--duration",
    "50ms",
    "--json",
];

#[track_caller]
fn parsed(path: &Path) -> Value {
    let text = fs::read_to_string(path).expect("a file of results");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name();
    let mut names: Vec<_> = entries
        .map(|entry| name(entry).to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The target's name goes away during the first load, so that the second finds no server.
#[test]
fn a_later_load_that_fails_leaves_the_earlier_results() {
    let directory = Directory::new();
    let socket = directory.path("socket");
    let uri = directory.uri("unix", "socket");
    let server = Served::new(&["echo", "--listen", &uri]);
    let before = sockets(&server);
    let [json, page] = ["results.json", "page.html"].map(|name| directory.path(name));
    let mut command = serveloop(&["bench", "--target", &uri, "--connections", "1,2"]);
    command.args(["--rounds", "1", "--duration", "500ms", "--json"]);
    command.arg(&json).arg("--report").arg(&page);
    let running = Served::spawn_unheard(command);
    // Established connections outlive the name.
    let begun = Instant::now();
    while sockets(&server) == before {
        assert!(begun.elapsed() < PATIENCE, "no client connects");
        thread::sleep(Duration::from_millis(2));
    }
    fs::remove_file(&socket).expect("the socket's name");
    let (status, stderr, stdout) = running.all();
    assert_eq!(status.code(), Some(1), "{stderr:?}");
    assert!(stderr[0].contains("cannot connect"), "{stderr:?}");
    let all = parsed(&json);
    assert!(all["ended"].as_str().unwrap().contains("cannot connect"));
    let [first, second] = [&all["results"][0], &all["results"][1]];
    assert!(first["measured"]["per_second"]["median"].as_f64() > Some(0.0));
    assert_eq!(first["skipped"], Value::Null);
    assert_eq!(second["measured"], Value::Null);
    let reason = second["skipped"].as_str().expect("a reason");
    assert!(reason.contains("cannot connect"), "{reason}");
    let page = fs::read_to_string(page).expect("a page");
    assert!(page.ends_with("</html>\n") && page.contains("cannot connect"));
    assert!(
        stdout.iter().any(|line| line.starts_with("1 connection,")),
        "{stdout:?}"
    );
}

/// Below `/dev` there are files, too.
#[test]
fn a_file_in_shared_memory_is_a_file() {
    let place = Path::new("/dev/shm");
    let Ok(directory) = tempfile_in(place) else {
        return skip("directory in /dev/shm");
    };
    let json = directory.0.join("results.json");
    for old in [None, Some("old, and in the way")] {
        if let Some(old) = old {
            fs::write(&json, old).unwrap();
        }
        let mut command = serveloop(&LOADS);
        command.arg(&json);
        let outcome = Outcome::of(command);
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        assert_eq!(parsed(&json)["format"], 1);
        assert_eq!(names(&directory.0), ["results.json"]);
    }
}

/// A directory that goes away with its content.
struct Made(std::path::PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tempfile_in(place: &Path) -> std::io::Result<Made> {
    let made = place.join(format!("serveloop-test-{}", std::process::id()));
    fs::create_dir(&made).map(|()| Made(made))
}

/// Both names are of one file, before and after, and it is its owner's.
#[test]
fn results_leave_a_file_its_names_its_owner_and_its_attributes() {
    let directory = Directory::new();
    let [json, page] = ["results.json", "page.html"].map(|name| directory.path(name));
    fs::write(&json, "old").unwrap();
    fs::hard_link(&json, directory.path("other")).unwrap();
    fs::write(&page, "old").unwrap();
    let _ = std::os::unix::fs::chown(&page, Some(65_534), Some(65_534));
    let owner = fs::metadata(&page).unwrap().uid();
    let none = rustix::fs::XattrFlags::empty();
    let is_set = rustix::fs::setxattr(&page, "user.origin", b"here", none).is_ok();
    let mut command = serveloop(&LOADS);
    command.arg(&json).arg("--report").arg(&page);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(parsed(&directory.path("other"))["format"], 1);
    assert_eq!(fs::metadata(&page).unwrap().uid(), owner);
    let mut value = [0; 9];
    let kept = rustix::fs::getxattr(&page, "user.origin", &mut value[..]);
    assert_eq!(kept.is_ok(), is_set, "{kept:?}");
    assert!(fs::read_to_string(page).unwrap().ends_with("</html>\n"));
}

#[test]
fn results_make_the_file_that_a_link_leads_to() {
    let directory = Directory::new();
    symlink("made", directory.path("link")).unwrap();
    let mut command = serveloop(&LOADS);
    command.arg(directory.path("link"));
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(parsed(&directory.path("made"))["format"], 1);
    assert!(directory.path("link").is_symlink());
}

/// Ctrl-C, the end that a service manager asks for, the terminal that closes, and whatever else ends
/// a program that does nothing about it.
#[test]
fn a_signal_leaves_the_results_so_far() {
    for (signal, code, name) in [
        (Signal::INT, 130, "SIGINT"),
        (Signal::TERM, 143, "SIGTERM"),
        (Signal::HUP, 129, "SIGHUP"),
        (Signal::QUIT, 131, "SIGQUIT"),
        (Signal::USR1, 138, "SIGUSR1"),
        (Signal::USR2, 140, "SIGUSR2"),
        (Signal::ALARM, 142, "SIGALRM"),
        (Signal::XCPU, 152, "SIGXCPU"),
    ] {
        if is_ignored(signal) {
            skip(&format!("{name} with its default action"));
            continue;
        }
        let directory = Directory::new();
        let [json, page] = ["results.json", "page.html"].map(|name| directory.path(name));
        let mut command = serveloop(&["bench", "--compare", "event-loop,threaded"]);
        command.args(["--connections", "1", "--duration", "300ms"]);
        command.args(["--rounds", "1000", "--json"]);
        command.arg(&json).arg("--report").arg(&page);
        let running = Served::spawn_unheard(command);
        let begun = Instant::now();
        // A server for each measurement: with the third, two are done.
        let mut seen = std::collections::BTreeSet::new();
        while seen.len() < 3 {
            seen.extend(children(running.process_id()));
            assert!(begun.elapsed() < PATIENCE, "no server");
            thread::sleep(Duration::from_millis(2));
        }
        // Some senders send it twice.
        running.signal(signal);
        running.signal(signal);
        let (status, stderr, _) = running.all();
        assert_eq!(status.code(), Some(code), "{stderr:?}");
        let all = parsed(&json);
        assert_eq!(all["ended"], format!("ended by {name}"));
        let first = &all["results"][0];
        assert!(first["measured"]["rounds"].as_u64() >= Some(1), "{first}");
        assert!(first["measured"]["rounds"].as_u64() < Some(1000), "{first}");
        for result in all["results"].as_array().expect("a list") {
            let reason = result["skipped"].as_str().expect("a reason");
            assert!(reason.contains(name), "{reason}");
        }
        assert!(fs::read_to_string(page).expect("a page").contains(name));
        assert_eq!(names(&directory.path(".")), ["page.html", "results.json"]);
    }
}

/// Also on standard output, in place of the table.
#[test]
fn a_failure_before_the_first_result_is_told_as_data_too() {
    let directory = Directory::new();
    let uri = directory.uri("unix", "nobody");
    let outcome = Outcome::new(&["bench", "--target", &uri, "--connections", "1,2", "--json"]);
    assert_eq!(outcome.code, Some(1));
    let all: Value = serde_json::from_str(&outcome.stdout).expect("one object of JSON");
    for place in 0..2 {
        let result = &all["results"][place];
        assert_eq!(result["measured"], Value::Null);
        assert!(
            result["skipped"]
                .as_str()
                .unwrap()
                .contains("cannot connect")
        );
    }
}

/// Nothing is made, and nothing of what is there is touched, before there are results.
#[test]
fn results_are_written_as_a_whole() {
    let directory = Directory::new();
    let json = directory.path("results.json");
    fs::write(&json, "old").unwrap();
    fs::set_permissions(&json, fs::Permissions::from_mode(0o640)).unwrap();
    let link = directory.path("link.json");
    symlink("results.json", &link).unwrap();
    let mut command = serveloop(&["bench", "--compare", "event-loop", "--duration", "1h"]);
    command.arg("--json").arg(&link);
    command.arg("--report").arg(directory.path("page.html"));
    let running = Served::spawn_unheard(command);
    let begun = Instant::now();
    while children(running.process_id()).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "no server");
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(fs::read_to_string(&json).unwrap(), "old");
    assert_eq!(names(&directory.path(".")), ["link.json", "results.json"]);
    running.signal(Signal::KILL);
    running.status();
    assert_eq!(fs::read_to_string(&json).unwrap(), "old");

    let mut command = serveloop(&LOADS);
    command.arg(&link);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(parsed(&json)["format"], 1);
    let mode = fs::metadata(&json).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    assert!(link.is_symlink());
}

#[test]
fn a_pipe_or_a_device_is_written_as_it_is() {
    let directory = Directory::new();
    let fifo = directory.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let mut command = serveloop(&LOADS);
    command.arg(&fifo).args(["--report", "/dev/null"]);
    let running = Served::spawn_unheard(command);
    let all = parsed(&fifo);
    assert_eq!(all["results"].as_array().unwrap().len(), 2);
    assert_eq!(running.status().code(), Some(0));
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
}

#[test]
fn files_that_cannot_be_written_are_refused_before_anything_is_measured() {
    let directory = Directory::new();
    let path = |name: &str| directory.path(name).to_str().unwrap().to_owned();
    symlink("no/thing", directory.path("dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    let long = path(&"x".repeat(300));
    for option in ["--json", "--report"] {
        for (target, problem) in [
            (path("."), "directory"),
            (path("no/such/file"), "No such file or directory"),
            (path("new/"), "no such directory"),
            (path("dangling"), "No such file or directory"),
            (path("socket"), "a socket"),
            ("/dev/fd/77".to_owned(), "no such open descriptor"),
            (long.clone(), "name too long"),
            ("/proc/nothing".to_owned(), "/proc/nothing: "),
        ] {
            let outcome = Outcome::new(&["bench", "--duration", "1h", option, &target]);
            assert_eq!(outcome.code, Some(1), "{target}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(&target), "{}", outcome.stderr);
            let lower = outcome.stderr.to_lowercase();
            assert!(
                lower.contains(&problem.to_lowercase()),
                "{}",
                outcome.stderr
            );
        }
    }
    assert_eq!(names(&directory.path(".")), ["dangling", "socket"]);
    let same = path("both");
    symlink("both", directory.path("link")).unwrap();
    fs::write(directory.path("one"), "").unwrap();
    fs::hard_link(directory.path("one"), directory.path("two")).unwrap();
    for [json, report] in [
        [&same, &same],
        [&path("link"), &same],
        [&path("one"), &path("two")],
    ] {
        let outcome = Outcome::new(&["bench", "--json", json, "--report", report]);
        assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
        let told = outcome.stderr.contains("the same file");
        assert!(told, "{}", outcome.stderr);
    }
}

/// A file that its user may write, in a directory where that user may not make another.
#[test]
fn a_file_in_a_directory_of_others_is_written_in_place() {
    let directory = Directory::new();
    let json = directory.path("results.json");
    fs::write(&json, "old, and longer than nothing").unwrap();
    let open_to = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open_to(&json, 0o666);
    open_to(&directory.path("."), 0o755);
    // The binary lies where others may not get at it.
    let copy = directory.path("serveloop");
    copy_program(env!("CARGO_BIN_EXE_serveloop"), &copy);
    let others = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let others = |program: &Path| {
        let mut command = Command::new("setpriv");
        command.args(others).arg(program);
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let probe = others(&copy).arg("--version").output();
    let possible = probe.is_ok_and(|output| output.status.success());
    if !require_that(possible, "setpriv, and the right to use it") {
        return;
    }
    let mut command = others(&copy);
    command.args(LOADS).arg(&json);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(parsed(&json)["format"], 1);

    open_to(&json, 0o644);
    let mut command = others(&copy);
    command.args(LOADS).arg(&json);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("results.json: Permission denied"),
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.stdout, "");
}

/// As containers have single files of their hosts.
#[test]
fn a_file_that_is_mounted_on_its_own_is_written_in_place() {
    let directory = Directory::new();
    let [json, host] = ["results.json", "host.json"].map(|name| directory.path(name));
    fs::write(&json, "below").unwrap();
    fs::write(&host, "old").unwrap();
    let mounted = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--user", "--map-root-user", "sh", "-ec"]);
        command.arg(format!("mount --bind \"$1\" \"$2\"; shift 2; {script}"));
        command.arg("sh").args([&host, &json]);
        command.stdin(Stdio::null()).env_remove("RUST_LOG");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let possible = mounted("true").output();
    let possible = possible.is_ok_and(|output| output.status.success());
    if !require_that(possible, "unshare and mount, and the right to use them") {
        return;
    }
    let mut command = mounted("exec \"$@\"");
    command.arg(env!("CARGO_BIN_EXE_serveloop"));
    command.args(LOADS).arg(&json);
    let outcome = Outcome::of(command);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert_eq!(parsed(&host)["format"], 1);
    assert_eq!(fs::read_to_string(&json).unwrap(), "below");
}

/// Results are safe by then, so that a signal ends it although it waits for its reader.
#[test]
fn a_table_that_nobody_reads_does_not_keep_it_from_ending() {
    let directory = Directory::new();
    let json = directory.path("results.json");
    let (_reader, clogged) = clogged();
    let mut command = serveloop(&LOADS);
    command.arg(&json).stdout(clogged);
    let running = Served::spawn_unheard(command);
    let begun = Instant::now();
    while !json.exists() {
        assert!(begun.elapsed() < PATIENCE, "no results");
        thread::sleep(Duration::from_millis(2));
    }
    // Until the signal has its default action again it is only noted.
    while begun.elapsed() < PATIENCE && !is_zombie(running.process_id()) {
        running.signal(Signal::TERM);
        thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(running.status().signal(), Some(Signal::TERM.as_raw()));
    assert_eq!(parsed(&json)["ended"], Value::Null);
}

/// Whether a child of ours has ended, and was not looked at yet.
fn is_zombie(process: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
    state.is_none_or(|state| state.starts_with('Z'))
}

/// The one must not be lost because of the other, nor the table because of both.
#[test]
fn a_result_that_cannot_be_written_loses_no_other() {
    let directory = Directory::new();
    let page = directory.path("page.html");
    let mut command = serveloop(&LOADS);
    command.arg("/dev/full").arg("--report").arg(&page);
    let (status, stderr, stdout) = Served::spawn_unheard(command).all();
    assert_eq!(status.code(), Some(1));
    assert!(stderr[0].contains("/dev/full: "), "{stderr:?}");
    assert!(fs::read_to_string(page).unwrap().ends_with("</html>\n"));
    assert!(stdout.iter().any(|line| line.starts_with("2 connections,")));
}

/// The processes that `process` has started.
fn children(process: u32) -> Vec<u32> {
    let path = format!("/proc/{process}/task/{process}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect()
}

/// How many sockets a server has.
fn sockets(server: &Served) -> usize {
    let entries = fs::read_dir(format!("/proc/{}/fd", server.process_id()));
    let targets = entries
        .expect("a running server")
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

//! Where `serveloop fetch` saves: what it refuses, what it leaves behind, and how long it waits.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::process::Signal;

use crate::support::outside::skip;
use crate::support::running::{Running, run};
use crate::support::scripts::Scripted;
use crate::support::served::{PATIENCE, by_script, copy_program, is_ignored, serveloop};
use crate::support::sockets::{Directory, clogged};

/// Reads a request to its end, which is an empty line.
#[track_caller]
fn skip_request(stream: &TcpStream) {
    let lines = BufReader::new(stream).lines();
    for line in lines {
        if line.expect("a request").is_empty() {
            return;
        }
    }
}

/// A server that answers one request with `begin`, and then with nothing until the client leaves.
fn stalling(begin: &'static str) -> Scripted {
    Scripted::new(move |mut stream| {
        skip_request(&stream);
        stream.write_all(begin.as_bytes()).expect("a client");
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[test]
fn a_replaced_file_gives_no_rights_of_its_owner() {
    let directory = Directory::new();
    let path = directory.path("file");
    fs::write(&path, "old").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o6755)).unwrap();
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    run(&["fetch", &url, "-o", path.to_str().unwrap()], "").well();
    server.end();
    assert_eq!(fs::read(&path).unwrap(), b"hello");
    assert_eq!(
        fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

/// No server listens on that port, so only a problem that is noticed before can be reported.
#[track_caller]
fn refused(path: &Path, problem: &str) {
    let path = path.to_str().expect("a path");
    let text = run(&["fetch", "http://127.0.0.1:1/", "-o", path], "").badly();
    assert!(text.starts_with(&format!("serveloop: {path}: ")), "{text}");
    assert!(text.contains(problem), "{text}");
}

#[test]
fn where_nothing_can_be_saved_is_told_before_anybody_is_asked() {
    let directory = Directory::new();
    let link = directory.path("link");
    symlink(directory.path("no/thing"), &link).unwrap();
    refused(&link, "No such file or directory");
    symlink("new/", directory.path("other")).unwrap();
    refused(&directory.path("other"), "no such directory");
    fs::remove_file(directory.path("other")).unwrap();
    refused(&directory.path("new/"), "no such directory");
    refused(Path::new("/proc/nothing"), "No such file or directory");
    refused(Path::new("/dev/fd/77"), "no such open descriptor");
    refused(&directory.path("no/file"), "No such file or directory");
    assert_eq!(names(&directory), ["link"]);
}

/// What is in the directory.
fn names(directory: &Directory) -> Vec<String> {
    let entries = fs::read_dir(directory.path(".")).expect("a directory");
    let names = entries.map(|entry| entry.expect("a file").file_name());
    names
        .map(|name| name.to_string_lossy().into_owned())
        .collect()
}

/// Begins to save what never ends. Returns when the first of it is in a file.
fn half_saved(directory: &Directory, prepare: impl FnOnce(&mut Command)) -> (Running, Scripted) {
    let at = directory.path(".");
    let (begun, begins) = mpsc::channel();
    let server = Scripted::new(move |mut stream| {
        skip_request(&stream);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            .expect("a client");
        while fs::read_dir(&at).expect("a directory").next().is_none() {
            stream.write_all(b".").expect("a client");
        }
        begun.send(()).expect("a test");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let path = directory.path("file");
    let url = format!("http://{}/", server.at());
    let mut command = serveloop(&["fetch", &url, "-o", path.to_str().expect("a path")]);
    prepare(&mut command);
    let client = Running::spawn(command);
    begins.recv_timeout(PATIENCE).expect("a file");
    (client, server)
}

#[test]
fn a_terminal_that_goes_away_leaves_no_file() {
    if is_ignored(Signal::HUP) {
        return skip("SIGHUP with its default action");
    }
    let directory = Directory::new();
    let (mut client, server) = half_saved(&directory, |_| ());
    client.signal(Signal::HUP);
    assert_eq!(client.end().code, Some(129));
    assert_eq!(names(&directory), [""; 0]);
    server.end();
}

/// What ends a program ends this one too, but not before its file is gone.
#[test]
fn no_signal_leaves_a_half_file() {
    let mut signals: Vec<i32> = vec![
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGXCPU,
    ];
    if cfg!(target_os = "linux") {
        signals.extend([libc::SIGIO, libc::SIGPWR, libc::SIGSTKFLT, 40]);
    }
    for signal in signals {
        let directory = Directory::new();
        let (mut client, server) = half_saved(&directory, |_| ());
        let sent = Command::new("kill")
            .args([format!("-{signal}"), client.id().to_string()])
            .status();
        assert!(sent.expect("a program that is everywhere").success());
        let code = client.end().code;
        assert!(
            code.is_none() || code == Some(128 + signal),
            "{signal}: {code:?}"
        );
        assert_eq!(names(&directory), [""; 0], "{signal}");
        server.end();
    }
}

#[test]
fn nohup_is_respected() {
    let directory = Directory::new();
    let (mut client, server) = half_saved(&directory, |command| {
        let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let program = command.get_program().to_owned();
        let mut under = Command::new("nohup");
        under.arg(program).args(arguments).env_remove("RUST_LOG");
        under
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        *command = under;
    });
    client.signal(Signal::HUP);
    client.signal(Signal::TERM);
    assert_eq!(client.end().code, Some(143));
    assert_eq!(names(&directory), [""; 0]);
    server.end();
}

#[test]
fn an_output_that_nobody_reads_does_not_outlast_the_limit() {
    let directory = Directory::new();
    let pipe = directory.path("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let limit = ["--max-time", "100ms"];
    let arguments = ["fetch", &url, "-o", pipe.to_str().unwrap()];
    let text = run(&[&arguments[..], &limit].concat(), "").badly();
    assert_eq!(
        text,
        format!("serveloop: {url}: the download was not complete within --max-time\n")
    );
    server.end();

    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let (_reader, stdout) = clogged();
    let mut command = serveloop(&["fetch", &url]);
    command.args(limit).stdout(stdout);
    let text = Running::spawn(command).end().badly();
    assert_eq!(
        text,
        format!("serveloop: {url}: the download was not complete within --max-time\n")
    );
    server.end();
}

/// A user other than root, where root runs the tests.
const NOBODY: u32 = 65_534;

/// Makes `command` run as the user nobody. False where that is not possible, or that user cannot find the command.
fn by_nobody(command: &mut Command) -> bool {
    command.uid(NOBODY).gid(NOBODY);
    let mut probe = Command::new(command.get_program());
    probe
        .arg("--version")
        .stdout(Stdio::null())
        .uid(NOBODY)
        .gid(NOBODY);
    let is_possible = probe.status().is_ok_and(|status| status.success());
    if !is_possible {
        skip("root, or the user nobody cannot find the command");
    }
    is_possible
}

/// Saves `hello` to `path` by a command that was prepared.
#[track_caller]
fn saved(path: &Path, prepare: impl FnOnce(&mut Command)) {
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let mut command = serveloop(&["fetch", &url, "-o", path.to_str().expect("a path")]);
    prepare(&mut command);
    Running::spawn(command).end().well();
    server.end();
    assert_eq!(fs::read(path).expect("a file"), b"hello");
}

/// A file with that content, owner and mode.
fn file(path: &Path, owner: u32, mode: u32) {
    fs::write(path, "what was there, and is longer").expect("a file");
    let _ = chown(path, Some(owner), Some(owner));
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("our file");
}

fn directory(mode: u32) -> Directory {
    let directory = Directory::new();
    fs::set_permissions(directory.path("."), Permissions::from_mode(mode)).expect("ours");
    directory
}

#[test]
fn a_writable_file_in_an_unwritable_directory_is_written() {
    let directory = directory(0o755);
    let path = directory.path("file");
    file(&path, 0, 0o666);
    let mut probe = serveloop(&[]);
    if !by_nobody(&mut probe) {
        return;
    }
    let before = fs::metadata(&path).unwrap();
    saved(&path, |command| {
        command.env("TMPDIR", "/nothing");
        assert!(by_nobody(command));
    });
    let after = fs::metadata(&path).unwrap();
    assert_eq!(
        (after.ino(), after.uid()),
        (before.ino(), 0),
        "another file"
    );
    assert_eq!(after.mode() & 0o7777, 0o666);
    assert_eq!(names(&directory), ["file"]);
}

/// As in /tmp: one may write there, but not replace what belongs to others.
#[test]
fn a_file_of_somebody_else_stays_theirs() {
    for mode in [0o1777, 0o777] {
        let directory = directory(mode);
        let path = directory.path("file");
        file(&path, 0, 0o666);
        if !by_nobody(&mut serveloop(&[])) {
            return;
        }
        saved(&path, |command| assert!(by_nobody(command)));
        assert_eq!(fs::metadata(&path).unwrap().uid(), 0);
        assert_eq!(names(&directory), ["file"]);
    }
}

#[test]
fn root_leaves_a_file_its_owner_and_mode() {
    let directory = directory(0o755);
    let path = directory.path("file");
    file(&path, NOBODY, 0o640);
    let owner = fs::metadata(&path).unwrap().uid();
    saved(&path, |_| ());
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.uid(), after.gid()), (owner, after.uid()));
    assert_eq!(after.mode() & 0o7777, 0o640);
}

#[test]
fn a_file_that_may_not_be_written_is_not_replaced() {
    let directory = directory(0o777);
    let path = directory.path("file");
    file(&path, NOBODY, 0o444);
    let arguments = ["fetch", "http://127.0.0.1:1/", "-o", path.to_str().unwrap()];
    let mut command = serveloop(&arguments);
    if !by_nobody(&mut command) {
        return;
    }
    let text = Running::spawn(command).end().badly();
    assert_eq!(
        text,
        format!(
            "serveloop: {}: Permission denied (os error 13)\n",
            path.display()
        )
    );
    let new = directory.path("none/new");
    fs::create_dir(directory.path("none")).unwrap();
    let arguments = ["fetch", "http://127.0.0.1:1/", "-o", new.to_str().unwrap()];
    let mut command = serveloop(&arguments);
    assert!(by_nobody(&mut command));
    let text = Running::spawn(command).end().badly();
    assert!(text.contains("Permission denied"), "{text}");
}

/// Both names are of one file, before and after.
#[test]
fn a_file_with_two_names_keeps_both() {
    let directory = directory(0o755);
    let (path, other) = (directory.path("file"), directory.path("other"));
    file(&path, 0, 0o4755);
    fs::hard_link(&path, &other).unwrap();
    saved(&path, |_| ());
    assert_eq!(fs::read(&other).unwrap(), b"hello");
    let mode = fs::metadata(&path).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755, "it ran as its owner");
}

/// Tag, rights and user or group of each entry: the owner, nobody, the group, the mask, all others.
const ACCESS_LIST: [(u16, u16, u32); 5] = [
    (0x01, 6, u32::MAX),
    (0x02, 4, NOBODY),
    (0x04, 0, u32::MAX),
    (0x10, 4, u32::MAX),
    (0x20, 0, u32::MAX),
];

fn access_list() -> Vec<u8> {
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in ACCESS_LIST {
        list.extend(tag.to_le_bytes());
        list.extend(rights.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// The value of an attribute, if there is such a one.
fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1_024];
    let length = getxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// The directory gives its new files a list, with which the mode of the old file would mean more.
#[test]
fn a_replaced_file_has_no_access_list_of_its_directory() {
    let directory = directory(0o755);
    let default = "system.posix_acl_default";
    let list = access_list();
    if setxattr(directory.path("."), default, &list, XattrFlags::empty()).is_err() {
        return skip("access lists");
    }
    for mode in [0o640, 0o660, 0o600] {
        let path = directory.path("file");
        file(&path, 0, mode);
        rustix::fs::removexattr(&path, "system.posix_acl_access").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        saved(&path, |_| ());
        assert_eq!(attribute(&path, "system.posix_acl_access"), None);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
        fs::remove_file(&path).unwrap();
    }
    // A new file is one as any other.
    let new = directory.path("new");
    saved(&new, |_| ());
    assert!(attribute(&new, "system.posix_acl_access").is_some());
}

#[test]
fn attributes_of_the_user_are_not_lost() {
    let directory = directory(0o755);
    let path = directory.path("file");
    file(&path, 0, 0o640);
    if setxattr(&path, "user.origin", b"here", XattrFlags::empty()).is_err() {
        return skip("extended attributes");
    }
    let before = fs::metadata(&path).unwrap().ino();
    saved(&path, |_| ());
    assert_eq!(
        attribute(&path, "user.origin").as_deref(),
        Some(&b"here"[..])
    );
    assert_eq!(fs::metadata(&path).unwrap().ino(), before);
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_makes_it() {
    let directory = directory(0o755);
    fs::create_dir(directory.path("below")).unwrap();
    symlink("below/second", directory.path("first")).unwrap();
    symlink("../made", directory.path("below/second")).unwrap();
    saved(&directory.path("first"), |_| ());
    assert!(directory.path("first").is_symlink());
    assert!(directory.path("below/second").is_symlink());
    assert_eq!(fs::read(directory.path("made")).unwrap(), b"hello");
}

/// What is open already in another process gets the output, and not only its name.
#[test]
fn a_descriptor_by_its_number_is_written_at_its_end() {
    let directory = directory(0o755);
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let script = "exec 3>\"$1\"; echo before >&3; \"$0\" fetch \"$2\" -o \"/proc/$$/fd/3\"";
    let mut shell = by_script(script);
    shell.arg(directory.path("log")).arg(&url);
    Running::spawn(shell).end().well();
    server.end();
    let log = fs::read_to_string(directory.path("log")).unwrap();
    assert_eq!(log, "before\nhello");
    assert_eq!(names(&directory), ["log"]);
}

#[test]
fn a_pipe_that_nobody_opens_does_not_outlast_the_timeout() {
    let directory = directory(0o755);
    let pipe = directory.path("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let path = pipe.to_str().unwrap();
    let text = run(&["fetch", &url, "-o", path, "--timeout", "200ms"], "").badly();
    assert!(text.contains("pipe: no reader opened"), "{text}");
    assert!(text.contains("200ms"), "{text}");
    server.end();

    // One with a reader is written, however late that comes.
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let client = Running::new(&["fetch", &url, "-o", path, "--timeout", "20s"]);
    assert_eq!(fs::read(&pipe).unwrap(), b"hello");
    let mut client = client;
    client.end().well();
    server.end();
}

#[test]
fn an_access_list_is_not_lost() {
    let name = "system.posix_acl_access";
    let directory = directory(0o755);
    let path = directory.path("file");
    file(&path, 0, 0o640);
    let list = access_list();
    if setxattr(&path, name, &list, XattrFlags::empty()).is_err() {
        return skip("access lists");
    }
    saved(&path, |_| ());
    let mut kept = vec![0; 1_024];
    let length = getxattr(&path, name, &mut kept[..]).unwrap();
    assert_eq!(kept[..length], list);
}

/// Runs `script` with the command and its URL and file in a mount namespace of its own.
fn mounted(script: &str, url: &str, directory: &Directory) -> Option<Running> {
    let mut command = Command::new("unshare");
    let ours = serveloop(&[]);
    command
        .args(["-m", "sh", "-c", script])
        .arg(ours.get_program())
        .arg(url);
    command.arg(directory.path("."));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut probe = Command::new("unshare");
    probe
        .args(["-m", "mount", "--bind", "/etc", "/etc"])
        .stderr(Stdio::null());
    if !probe.status().is_ok_and(|status| status.success()) {
        skip("mount namespace");
        return None;
    }
    Some(Running::spawn(command))
}

#[test]
fn a_file_that_is_a_mount_point_is_written() {
    let directory = directory(0o755);
    for (name, content) in [("file", "short"), ("other", "what is there is longer")] {
        fs::write(directory.path(name), content).unwrap();
    }
    let server = stalling(SIZED);
    let url = format!("http://{}/", server.at());
    let script = "cd \"$2\" && mount --bind other file && exec \"$0\" fetch \"$1\" -o file";
    let Some(mut client) = mounted(script, &url, &directory) else {
        return;
    };
    client.end().well();
    server.end();
    assert_eq!(fs::read(directory.path("other")).unwrap(), b"hello");
    assert_eq!(fs::read(directory.path("file")).unwrap(), b"short");
}

/// What a full disk has no room for leaves what was there, wherever the body waited to be complete.
#[test]
fn a_full_disk_loses_nothing() {
    for mount in [
        "mount --bind disk/other file",
        "mount --bind disk . && cd \"$2\" && cp other file",
    ] {
        let directory = directory(0o755);
        fs::write(directory.path("file"), "old").unwrap();
        fs::create_dir(directory.path("disk")).unwrap();
        let body =
            Box::leak(format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(300_000)).into_boxed_str());
        let server = Scripted::new(|mut stream| {
            skip_request(&stream);
            let _ = stream.write_all(body.as_bytes());
        });
        let url = format!("http://{}/", server.at());
        let script = format!(
            "cd \"$2\" && mount -t tmpfs -o size=64k none disk && echo old > disk/other && {mount} || exit 3
            \"$0\" fetch \"$1\" -o file; echo \"$?\"; cat file; ls -A | grep part; true"
        );
        let Some(mut client) = mounted(&script, &url, &directory) else {
            return;
        };
        let said = client.end();
        assert_eq!(
            String::from_utf8_lossy(&said.stdout),
            "1\nold\n",
            "{said:?}"
        );
        assert!(said.stderr.contains("No space left on device"), "{said:?}");
        assert!(said.stderr.contains("file: "), "{said:?}");
        assert!(!said.stderr.contains("part"), "{said:?}");
        server.end();
    }
}

#[test]
fn a_program_that_runs_can_be_replaced() {
    let directory = directory(0o755);
    let path = directory.path("program");
    copy_program("/bin/cat", &path);
    let mut program = Command::new(&path);
    program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut program = Running::spawn(program);
    saved(&path, |_| ());
    program.stdin().write_all(b"it still runs").unwrap();
    assert_eq!(program.end().well(), "it still runs");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o755);
}

/// What else writes there before and after is left what it is.
#[test]
fn the_names_of_open_files_are_not_opened_anew() {
    for name in [
        "/dev/stdout",
        "/dev/fd/1",
        "/proc/self/fd/1",
        "/dev/stderr",
        "/proc/self/fd/2",
    ] {
        if fs::metadata(name).is_err() {
            skip(name);
            continue;
        }
        let directory = directory(0o755);
        let server = stalling(SIZED);
        let url = format!("http://{}/", server.at());
        let script =
            "exec >\"$3\" 2>&1; echo before; \"$0\" fetch \"$1\" -o \"$2\"; echo; echo after";
        let mut shell = by_script(script);
        shell.arg(&url).arg(name).arg(directory.path("log"));
        Running::spawn(shell).end().well();
        server.end();
        let log = fs::read_to_string(directory.path("log")).unwrap();
        assert_eq!(log, "before\nhello\nafter\n", "{name}");
        assert_eq!(names(&directory), ["log"], "{name}");
    }
}

/// During the download, only users that may read the complete file may read it.
#[test]
fn a_part_is_not_more_open_than_its_file() {
    for (mode, umask) in [(0o600, "0"), (0o640, "022"), (0o666, "0"), (0o400, "077")] {
        let directory = directory(0o755);
        let path = directory.path("file");
        file(&path, 0, mode);
        let at = directory.path(".");
        let server = Scripted::new(move |mut stream| {
            skip_request(&stream);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell")
                .expect("a client");
            let end = std::time::Instant::now() + PATIENCE;
            let part = loop {
                let entries = fs::read_dir(&at)
                    .expect("a directory")
                    .map_while(Result::ok);
                let found = entries
                    .map(|entry| entry.path())
                    .find(|path| !path.ends_with("file"));
                if let Some(found) = found {
                    break found;
                }
                assert!(std::time::Instant::now() < end, "no part");
            };
            let open = fs::metadata(part).expect("a part").mode() & 0o7777;
            assert_eq!(open & !0o600, 0, "{open:o} for {mode:o}");
            stream.write_all(b"o").expect("a client");
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let url = format!("http://{}/", server.at());
        let ours = serveloop(&["fetch", &url, "-o", path.to_str().unwrap()]);
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask \"$0\"; exec \"$@\"", umask]);
        shell.arg(ours.get_program()).args(ours.get_args());
        shell
            .env_remove("http_proxy")
            .env_remove("all_proxy")
            .env_remove("ALL_PROXY");
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let said = Running::spawn(shell).end();
        if mode == 0o400 && said.code == Some(1) {
            // Only root may write it.
            continue;
        }
        said.well();
        server.end();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, mode);
    }
}

//! `serve command`: what a program may not do, and what it cannot do to others.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::protocols::command::{Client, framed, serve};
#[cfg(target_os = "linux")]
use crate::support::memory::kib;
use crate::support::outside::skip;
use crate::support::served::{PATIENCE, Served, serveloop};
use crate::support::sockets::Directory;

/// Signals that the C library keeps for itself, and has ignored in what it starts.
const OF_THE_C_LIBRARY: u64 = 0b11 << 31;

#[test]
fn endless_output_is_cut_off() {
    let served = serve(&["yes", "head", "echo"], &["--max-commands", "2"]);
    let mut much = Client::new(&served);
    let mut other = Client::new(&served);
    for request in ["yes", "head -c 1000000000 /dev/zero"] {
        much.send(request);
        assert_eq!(other.ask("echo quick"), "quick\n");
        let reply = much.reply();
        let (output, end) = reply.split_at(1 << 20);
        assert_eq!(output.len(), 1 << 20);
        let end = String::from_utf8_lossy(end);
        assert_eq!(end.trim_start(), "[output cut off at 1MiB]\n");
    }
    let served = serve(&["echo"], &["--max-command-output", "6"]);
    let mut client = Client::new(&served);
    assert_eq!(client.ask("echo 12345"), "12345\n");
    let reply = client.ask("echo 123456");
    assert_eq!(reply, "123456\n[output cut off at 6]\n");
}

#[test]
fn a_long_command_delays_nobody() {
    let served = serve(&["sleep", "echo"], &["--max-commands", "4"]);
    let mut slow: Vec<_> = (0..3).map(|_| Client::new(&served)).collect();
    for client in &mut slow {
        client.send("sleep 60");
    }
    let mut others: Vec<_> = (0..200).map(|_| Client::new(&served)).collect();
    let began = Instant::now();
    for client in &mut others {
        assert_eq!(client.ask("echo quick"), "quick\n");
    }
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn a_program_that_takes_too_long_is_asked_to_end() {
    let served = serve(
        &["sleep", "sh"],
        &["--command-timeout", "200ms", "--kill-after", "60s"],
    );
    let mut client = Client::new(&served);
    let began = Instant::now();
    assert_eq!(client.ask("sleep 60"), "[timed out after 200ms]\n");
    let polite = "sh -c 'trap \"echo bye; exit 5\" TERM; echo on; while :; do :; done'";
    assert_eq!(client.ask(polite), "on\nbye\n[timed out after 200ms]\n");
    assert!(began.elapsed() < PATIENCE);
}

#[test]
fn a_family_that_will_not_end_is_killed() {
    let served = serve(
        &["sh"],
        &["--command-timeout", "200ms", "--kill-after", "100ms"],
    );
    let mut client = Client::new(&served);
    let stubborn = "sh -c 'trap \"\" TERM; echo $$; sh -c \"sleep 60; :\" & echo $!; while :; do sleep 60; done'";
    let reply = client.ask(stubborn);
    let lines: Vec<_> = reply.lines().collect();
    assert_eq!(lines[2], "[timed out after 200ms]");
    expect_dead(lines[0]);
    expect_dead(lines[1]);
}

/// What a program leaves behind ends with it, and does not hold up its reply.
#[test]
fn a_program_that_leaves_others_behind_is_over() {
    let served = serve(&["sh"], &[]);
    let mut client = Client::new(&served);
    let reply = client.ask("sh -c 'sleep 60 & echo $!'");
    expect_dead(reply.trim());
    let reply = client.ask("sh -c 'exec >&- 2>&-; sleep 0.1; exit 4'");
    assert_eq!(reply, "[exit status 4]\n");
}

/// A process that starts a new session is not found by that, but does not delay the reply either.
#[test]
fn a_program_that_escapes_does_not_hold_up_its_reply() {
    let served = serve(&["sh"], &[]);
    let mut client = Client::new(&served);
    let began = Instant::now();
    let reply = client.ask("sh -c 'setsid sleep 60 & until [ \"$(cut -d\" \" -f6 /proc/$!/stat)\" = $! ]; do :; done; echo $!'");
    assert!(began.elapsed() < PATIENCE);
    let escaped = Pid::from_raw(reply.trim().parse().expect("an id")).expect("an id");
    kill_process(escaped, Signal::KILL).expect("it still runs");
}

/// What the server inherited itself: an open file, and signals that are ignored.
#[test]
fn a_program_inherits_nothing() {
    let mut command = Command::new("sh");
    let script = "trap '' HUP INT QUIT USR1 WINCH; exec 7</dev/null; exec \"$@\"";
    let server = serveloop(&[]);
    command.args(["-c", script, "sh"]).arg(server.get_program());
    command.args(["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
    for program in ["env", "ls", "cat", "pwd", "sh"] {
        command.args(["--allow", program]);
    }
    command.env("SECRET", "1").current_dir("/tmp");
    command.stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let served = Served::spawn(command);
    let crowd: Vec<_> = (0..300).map(|_| Client::new(&served)).collect();
    let mut client = Client::new(&served);

    let environment = "LANG=C.UTF-8\nPATH=/usr/local/bin:/usr/bin:/bin\n";
    assert_eq!(client.ask("env"), environment);
    assert_eq!(client.ask("pwd"), "/\n");
    assert_eq!(client.ask("cat"), "");
    // The fourth is the directory that is being listed.
    assert_eq!(client.ask("ls /proc/self/fd"), "0\n1\n2\n3\n");
    let null = client.ask("ls -l /proc/self/fd/0");
    assert!(null.trim_end().ends_with("-> /dev/null"), "{null}");
    let stat = client.ask("cat /proc/self/stat");
    let fields: Vec<_> = stat.split(' ').collect();
    assert_eq!((fields[4], fields[5]), (fields[0], fields[0]), "{stat}");
    let limits = client.ask("sh -c 'ulimit -n; ulimit -t; ulimit -c'");
    assert_eq!(limits, "64\n10\n0\n");
    let status = client.ask("cat /proc/self/status");
    assert_eq!(mask(&status, "SigBlk:"), 0);
    assert_eq!(mask(&status, "SigIgn:") & !OF_THE_C_LIBRARY, 0, "{status}");
    assert_eq!(mask(&status, "NoNewPrivs:"), 1);
    drop(crowd);
}

/// The server's parent can have left it in a state in which children vanish by themselves.
#[test]
fn children_are_kept_until_they_are_reaped() {
    let mut command = Command::new("env");
    let deaf = "--ignore-signal=CHLD";
    if !Command::new("env")
        .args([deaf, "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        return skip(&format!("env {deaf}"));
    }
    let server = serveloop(&["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
    command
        .arg(deaf)
        .arg(server.get_program())
        .args(server.get_args());
    command.args(["--allow", "sh"]);
    command.stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    let served = Served::spawn(command);
    let mut client = Client::new(&served);
    assert_eq!(client.ask("sh -c 'exit 3'"), "[exit status 3]\n");
    assert_eq!(client.ask("sh -c 'echo done'"), "done\n");
}

#[test]
fn no_signal_is_blocked() {
    let blocked = "--block-signal=TERM,USR1";
    if !Command::new("env")
        .args([blocked, "true"])
        .status()
        .is_ok_and(|status| status.success())
    {
        return skip(&format!("env {blocked}"));
    }
    let server = serveloop(&["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
    let mut command = Command::new("env");
    command.arg(blocked).arg(server.get_program());
    command.args(server.get_args()).args(["--allow", "cat"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let served = Served::spawn(command);
    let status = Client::new(&served).ask("cat /proc/self/status");
    assert_eq!(mask(&status, "SigBlk:"), 0);
}

/// Root may look everywhere, so the server must run as another user.
#[cfg(target_os = "linux")]
#[test]
fn a_program_cannot_look_into_the_server() {
    let directory = Directory::new();
    let mut command = serveloop(&["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
    command.args(["--allow", "cat", "--allow", "ls"]);
    command.env("SECRET", "1");
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if rustix::process::geteuid().is_root() {
        command = as_user(&directory, &command, 65_534);
    }
    let served = Served::spawn(command);
    let mut client = Client::new(&served);
    let server = format!("/proc/{}", served.process_id());
    for request in [
        format!("cat {server}/environ"),
        format!("ls {server}/fd"),
        format!("cat {server}/maps"),
    ] {
        let reply = client.ask(&request);
        assert!(reply.contains("Permission denied"), "{request}: {reply}");
    }
}

/// By another process: a child of another test would have the file open for writing, until it has become
/// what it is to be, and so it could not be run.
#[track_caller]
fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg(from).arg(to).status();
    assert!(copied.expect("a program that is everywhere").success());
}

/// The same command with a copy of our binary, which others than root may not get at.
#[cfg(target_os = "linux")]
fn as_user(directory: &Directory, command: &Command, user: u32) -> Command {
    use std::os::unix::fs::PermissionsExt;
    let copy = directory.path("serveloop");
    copy_program(command.get_program().as_ref(), &copy);
    let parent = copy.parent().expect("a directory");
    fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).expect("ours");
    let mut other = Command::new(copy);
    other.args(command.get_args()).env("SECRET", "1");
    other.stdout(Stdio::piped()).stderr(Stdio::piped());
    run_as(&mut other, user);
    other
}

#[cfg(target_os = "linux")]
fn run_as(command: &mut Command, user: u32) {
    use std::os::unix::process::CommandExt;
    command.uid(user).gid(user);
}

#[track_caller]
fn mask(status: &str, field: &str) -> u64 {
    let mut lines = status.lines();
    let value = lines.find_map(|line| line.strip_prefix(field));
    u64::from_str_radix(value.expect("a field").trim(), 16).expect("a mask")
}

#[test]
fn a_program_that_uses_too_much_is_killed() {
    let directory = Directory::new();
    let limits = ["--command-cpu-time", "1s", "--command-file-size", "4KiB"];
    let served = serve(&["sh", "head"], &limits);
    let mut client = Client::new(&served);
    assert_eq!(
        client.ask("sh -c 'while :; do :; done'"),
        "[killed by signal 24]\n"
    );
    let file = directory.path("file");
    let request = format!("sh -c 'exec head -c 100000 /dev/zero > {}'", file.display());
    assert_eq!(client.ask(request), "[killed by signal 25]\n");
    assert_eq!(fs::metadata(file).expect("a part of it").len(), 4_096);
}

/// The fifo's other end can only be opened when the program reads from it.
fn hold(directory: &Directory, client: &mut Client) -> File {
    let path = directory.path("fifo");
    make_fifo(&path);
    client.send([b"cat ", path.as_os_str().as_bytes()].concat());
    File::options().write(true).open(&path).expect("a reader")
}

fn make_fifo(path: &Path) {
    let made = Command::new("mkfifo").arg(path).status();
    assert!(made.expect("a program that is everywhere").success());
}

#[test]
fn more_programs_than_allowed_wait_or_are_told() {
    let directory = Directory::new();
    let limits = ["--max-commands", "1", "--max-waiting-commands", "1"];
    let served = serve(&["cat", "echo"], &limits);
    let mut first = Client::new(&served);
    let mut held = hold(&directory, &mut first);
    let (sender, replies) = mpsc::channel();
    for _ in 0..2 {
        let mut client = Client::new(&served);
        let sender = sender.clone();
        thread::spawn(move || sender.send(client.ask("echo done")));
    }
    let told = replies.recv_timeout(PATIENCE).expect("an answer");
    assert_eq!(told, "[busy: 2 programs run or wait already]\n");
    held.write_all(b"now\n").expect("a reader");
    drop(held);
    assert_eq!(first.reply(), b"now\n");
    let waited = replies.recv_timeout(PATIENCE).expect("an answer");
    assert_eq!(waited, "done\n");
}

#[test]
fn programs_run_in_the_order_in_which_they_came() {
    let directory = Directory::new();
    let served = serve(&["cat", "sh"], &["--max-commands", "1"]);
    let mut first = Client::new(&served);
    let held = hold(&directory, &mut first);
    let list = directory.path("list").display().to_string();
    let mut waiting: Vec<_> = (0..5).map(|_| Client::new(&served)).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(format!("sh -c 'echo {number} >> {list}'"));
        // What comes later is served later, so the one before has been seen when this is answered.
        assert!(
            Client::new(&served)
                .ask("nothing")
                .starts_with("[not allowed")
        );
    }
    drop(held);
    for client in &mut waiting {
        assert_eq!(client.reply(), b"");
    }
    assert_eq!(fs::read_to_string(list).expect("a list"), "0\n1\n2\n3\n4\n");
}

#[test]
fn who_gives_up_waiting_makes_room() {
    let directory = Directory::new();
    let limits = [
        "--max-commands",
        "1",
        "--max-waiting-commands",
        "1",
        "--grace-after-eof",
        "0",
    ];
    let served = serve(&["cat", "echo"], &limits);
    let mut first = Client::new(&served);
    let held = hold(&directory, &mut first);
    for _ in 0..3 {
        let mut waiting = Client::new(&served);
        waiting.send("echo nobody");
        drop(waiting);
        served.logged("\"echo nobody\": stopped: the client's stream has ended");
    }
    let mut last = Client::new(&served);
    last.send("echo last");
    drop(held);
    assert_eq!(first.reply(), b"");
    assert_eq!(last.reply(), b"last\n");
}

/// Clients that never take their replies, as one of the `ready` form need not.
#[test]
fn replies_that_wait_are_limited_in_sum() {
    let budget = ["--max-buffered", "128KiB", "--max-output", "64KiB"];
    let served = serve(&["head"], &[&["--wire", "ready"], &budget[..]].concat());
    let request = b"head -c 100000 /dev/zero\n";
    let mut first = Client::new(&served);
    first.write(request);
    assert_eq!(first.read(6), b"100000");

    let mut second = Client::new(&served);
    second.write(request);
    let end = "\n[output cut off at 31072: 128KiB wait to be taken]\n";
    let length = 31_072 + end.len();
    assert_eq!(second.read(5), length.to_string().as_bytes());

    let mut third = Client::new(&served);
    let busy = "[busy: 128KiB of output wait to be taken]\n";
    third.write(request);
    assert_eq!(third.read(2), busy.len().to_string().as_bytes());
    third.write(b"ready");
    assert_eq!(third.read(busy.len()), busy.as_bytes());

    second.write(b"ready");
    assert!(second.read(length).ends_with(end.as_bytes()));
    first.finish();
    first.expect_end();
    third.write(request);
    assert_eq!(third.read(6), b"100000");
}

/// A connection is not idle while a program runs for it.
#[test]
fn a_silent_program_is_not_an_idle_client() {
    let served = serve(&["sh"], &["--idle-timeout", "200ms"]);
    let mut client = Client::new(&served);
    assert_eq!(client.ask("sh -c 'sleep 1; echo done'"), "done\n");
    client.expect_end();
    served.logged("idle for too long");
}

/// Waits until no such process is left, but for one whose parent has not taken notice.
#[track_caller]
pub(crate) fn expect_dead(id: &str) {
    let began = Instant::now();
    while is_alive(id) {
        assert!(began.elapsed() < PATIENCE, "{id} still runs");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn is_alive(id: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// What every client can have the server keep: the requests that wait, which no program has seen.
#[cfg(target_os = "linux")]
#[test]
fn requests_that_wait_are_within_the_memory_for_buffers() {
    let directory = Directory::new();
    let budget = ["--max-buffered", "4MiB", "--max-commands", "1"];
    let served = serve(&["cat", "echo"], &budget);
    let mut first = Client::new(&served);
    let held = hold(&directory, &mut first);
    let before = peak_memory(&served);

    let request = framed(format!("echo {}", "x".repeat(8_000)).as_bytes());
    let requests = request.repeat(16);
    let mut clients = Vec::new();
    for _ in 0..400 {
        let mut client = Client::new(&served);
        // Those that are ended for it may be so before they have sent everything.
        let _ = client.0.write_all(&requests);
        clients.push(client);
    }
    served.logged("ended to keep buffers within their limit");
    let mut last = Client::new(&served);
    assert!(last.ask("nothing").starts_with("[not allowed"));
    let grown = peak_memory(&served) - before;
    // The requests alone are 50 MiB.
    assert!(grown < 16 << 10, "{grown} KiB more");

    drop(clients);
    drop(held);
    assert_eq!(first.reply(), b"");
}

/// In KiB.
#[cfg(target_os = "linux")]
#[track_caller]
fn peak_memory(served: &Served) -> usize {
    kib(served.process_id(), "VmHWM").expect("it runs")
}

/// A word takes more memory than a letter, and a request can be made of little else.
#[cfg(target_os = "linux")]
#[test]
fn requests_of_many_words_that_wait_take_no_more_than_others() {
    let directory = Directory::new();
    let places = ["--max-commands", "1", "--max-waiting-commands", "1000"];
    let served = serve(&["cat", "echo"], &places);
    let mut first = Client::new(&served);
    let held = hold(&directory, &mut first);
    let before = peak_memory(&served);

    let request = format!("echo{}", " x".repeat(4_000));
    let mut clients: Vec<_> = (0..200).map(|_| Client::new(&served)).collect();
    for client in &mut clients {
        client.send(&request);
    }
    let mut last = Client::new(&served);
    assert!(last.ask("nothing").starts_with("[not allowed"));
    // As words they would be 40 MiB.
    let grown = peak_memory(&served) - before;
    assert!(grown < 16 << 10, "{grown} KiB more");
    drop(clients);
    drop(held);
    assert_eq!(first.reply(), b"");
}

#[test]
fn programs_that_cannot_be_started_are_told_and_counted() {
    let directory = Directory::new();
    let program = directory.path("program");
    copy_program(Path::new("/bin/echo"), &program);
    let name = program.to_str().expect("text");
    let served = serve(&[name], &[]);
    let mut client = Client::new(&served);
    assert_eq!(client.ask(format!("{name} hi")), "hi\n");
    let writer = File::options().append(true).open(&program);
    let writer = writer.expect("our file");
    let reply = client.ask(name);
    assert!(
        reply.starts_with("[could not be started: Text file busy"),
        "{reply}"
    );
    drop(writer);
    fs::remove_file(&program).expect("our file");
    fs::create_dir(&program).expect("a directory of ours");
    let reply = client.ask(name);
    assert!(
        reply.starts_with("[could not be started: Permission denied"),
        "{reply}"
    );
    client.ask("rm");
    served.signal(Signal::TERM);
    served.logged("programs run 1, not started 2; requests refused 1");
}

/// One more process than the server's own threads, or none, are all that its user may have.
#[cfg(target_os = "linux")]
#[test]
fn want_of_processes_is_told() {
    let has_tool = Command::new("prlimit").arg("--version").output().is_ok();
    if !has_tool || !rustix::process::geteuid().is_root() {
        return skip("prlimit, or root to become a user without other processes");
    }
    for most in ["--nproc=1", "--nproc=2"] {
        let directory = Directory::new();
        let command = serveloop(&["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
        let server = as_user(&directory, &command, 61_007);
        let mut command = Command::new("prlimit");
        command.arg(most).arg(server.get_program());
        command.args(server.get_args()).args(["--allow", "echo"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        run_as(&mut command, 61_007);
        let served = Served::spawn(command);
        let mut client = Client::new(&served);
        for _ in 0..2 {
            let reply = client.ask("echo hi");
            let expected = "[could not be started: Resource temporarily unavailable";
            assert!(reply.starts_with(expected), "{most}: {reply}");
        }
        served.signal(Signal::TERM);
        served.logged("programs run 0, not started 2; requests refused 0");
    }
}

#[cfg(unix)]
#[test]
fn a_program_is_allowed_whose_name_is_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::fs::symlink;
    let directory = Directory::new();
    let program = directory
        .path("x")
        .with_file_name(OsStr::from_bytes(b"e\xff 'ho"));
    symlink("/bin/echo", &program).expect("a directory of ours");
    let mut command = serveloop(&["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
    command.arg("--allow").arg(&program);
    let served = Served::spawn(command);
    let mut client = Client::new(&served);
    let path = program.as_os_str().as_bytes();
    let quoted = [b"\"", path, b"\" hi"].concat();
    client.send(quoted);
    assert_eq!(client.reply(), b"hi\n");
}

/// The server's parent may give it nothing at all.
#[test]
fn programs_run_where_there_is_no_environment() {
    let mut command = serveloop(&["serve", "command", "--listen", "tcp://127.0.0.1:0"]);
    command.args(["--allow", "env"]).env_clear();
    let served = Served::spawn(command);
    let environment = "LANG=C.UTF-8\nPATH=/usr/local/bin:/usr/bin:/bin\n";
    let mut client = Client::new(&served);
    let mut lines: Vec<_> = client.ask("env").lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines.join("\n") + "\n", environment);
}

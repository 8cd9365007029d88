//! `serve command`: the three forms of requests and replies, byte by byte.

mod clients;
mod ends;
pub(crate) mod injection;
mod limits;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};

use crate::support::served::{Outcome, PATIENCE, Served};
use crate::support::sockets::{Directory, socket_addr};

/// Serves programs on loopback.
#[track_caller]
pub(crate) fn serve(allow: &[&str], options: &[&str]) -> Served {
    let mut arguments = vec!["command", "--listen", "tcp://127.0.0.1:0"];
    arguments.extend(allow.iter().flat_map(|program| ["--allow", program]));
    arguments.extend(options);
    Served::new(&arguments)
}

/// A client of the `framed` form.
pub(crate) struct Client(pub(crate) TcpStream);

impl Client {
    #[track_caller]
    pub(crate) fn new(served: &Served) -> Self {
        let stream = TcpStream::connect(socket_addr(served.uri(0))).expect("a listener");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_nodelay(true).expect("a socket");
        Self(stream)
    }

    #[track_caller]
    pub(crate) fn write(&mut self, data: &[u8]) {
        self.0.write_all(data).expect("an open connection");
    }

    #[track_caller]
    pub(crate) fn read(&mut self, count: usize) -> Vec<u8> {
        let mut data = vec![0; count];
        self.0.read_exact(&mut data).expect("this many bytes");
        data
    }

    #[track_caller]
    pub(crate) fn send(&mut self, request: impl AsRef<[u8]>) {
        self.write(&framed(request.as_ref()));
    }

    #[track_caller]
    pub(crate) fn reply(&mut self) -> Vec<u8> {
        let header = self.read(4).try_into().expect("four bytes");
        let length = u32::from_be_bytes(header);
        self.read(length as usize)
    }

    #[track_caller]
    pub(crate) fn reply_text(&mut self) -> String {
        String::from_utf8(self.reply()).expect("text")
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> String {
        self.send(request);
        self.reply_text()
    }

    /// Ends our side of the stream.
    #[track_caller]
    pub(crate) fn finish(&self) {
        self.0.shutdown(Shutdown::Write).expect("a connection");
    }

    /// Waits for the end, before which nothing more comes.
    #[track_caller]
    pub(crate) fn expect_end(&mut self) {
        match self.0.read(&mut [0]) {
            Ok(count) => assert_eq!(count, 0, "more came"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
    }
}

pub(crate) fn framed(request: &[u8]) -> Vec<u8> {
    let length = u32::try_from(request.len()).expect("a short request");
    [&length.to_be_bytes(), request].concat()
}

#[test]
fn framed_replies_are_the_output() {
    let served = serve(&["echo", "true", "/bin/cat"], &[]);
    let mut client = Client::new(&served);
    client.write(b"\0\0\0\x0eecho 'a  b'  c");
    assert_eq!(client.read(11), b"\0\0\0\x07a  b c\n");
    client.write(b"\0\0\0\x04true");
    assert_eq!(client.read(4), b"\0\0\0\0");
    assert_eq!(client.ask("/bin/cat /dev/null"), "");
    client.finish();
    client.expect_end();
}

/// The first request brings the beginning of the second with it, so that the server has seen just
/// that much when the first reply is there.
#[test]
fn framed_requests_can_be_cut_anywhere() {
    let served = serve(&["echo"], &[]);
    let mut client = Client::new(&served);
    let second = framed(b"echo second 'of two'");
    for cut in 0..=second.len() {
        let (begin, rest) = second.split_at(cut);
        client.write(&[&framed(b"echo first"), begin].concat());
        assert_eq!(client.reply(), b"first\n", "{cut}");
        client.write(rest);
        assert_eq!(client.reply(), b"second of two\n", "{cut}");
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let served = serve(&["echo", "sleep"], &[]);
    let mut client = Client::new(&served);
    let count = 16;
    let mut requests = framed(b"sleep 0.1");
    requests.extend((0..count).flat_map(|number| framed(format!("echo {number}").as_bytes())));
    client.write(&requests);
    assert_eq!(client.reply(), b"");
    for number in 0..count {
        assert_eq!(client.reply_text(), format!("{number}\n"));
    }
}

#[test]
fn too_many_requests_end_the_connection_after_their_replies() {
    let served = serve(&["sleep", "echo"], &[]);
    let mut client = Client::new(&served);
    let more = framed(b"echo x").repeat(20);
    client.write(&[framed(b"sleep 0.1"), more].concat());
    assert_eq!(client.reply(), b"");
    for _ in 0..16 {
        assert_eq!(client.reply(), b"x\n");
    }
    let told = "[too many requests: 16 of this connection wait already]\n";
    assert_eq!(client.reply_text(), told);
    client.expect_end();
}

#[test]
fn struct_replies_have_a_little_endian_length() {
    let served = serve(&["echo", "true", "sh"], &["--wire", "struct"]);
    let mut client = Client::new(&served);
    client.write(b"echo hello");
    assert_eq!(client.read(10), b"\x06\0\0\0hello\n");
    client.write(b"true\r\n");
    assert_eq!(client.read(4), b"\0\0\0\0");
    client.write(b"echo a\necho b\r\ntrue\nrm c\n");
    assert_eq!(client.read(6), b"\x02\0\0\0a\n");
    assert_eq!(client.read(6), b"\x02\0\0\0b\n");
    assert_eq!(client.read(4), b"\0\0\0\0");
    assert_eq!(client.read(24), b"\x14\0\0\0[not allowed: \"rm\"]\n");
}

#[test]
fn ready_replies_come_when_the_client_is_ready() {
    let served = serve(&["echo", "true"], &["--wire", "ready"]);
    let mut client = Client::new(&served);
    for _ in 0..3 {
        client.write(b"echo hello, world");
        assert_eq!(client.read(2), b"13");
        client.write(b"ready");
        assert_eq!(client.read(13), b"hello, world\n");
        client.write(b"true\n");
        assert_eq!(client.read(1), b"0");
        client.write(b"re");
        client.write(b"ady\r\n");
    }
    client.write(b"echo x");
    assert_eq!(client.read(1), b"2");
    client.write(b"steady");
    client.expect_end();
    served.logged("expected ready after the reply's length");
}

#[test]
fn a_reply_says_what_is_not_well() {
    let served = serve(&["sh"], &[]);
    let mut client = Client::new(&served);
    let dialogue = [
        ("sh -c 'exit 3'", "[exit status 3]\n"),
        ("sh -c 'echo a; exit 1'", "a\n[exit status 1]\n"),
        ("sh -c 'printf a; exit 1'", "a\n[exit status 1]\n"),
        ("sh -c 'kill -9 $$'", "[killed by signal 9]\n"),
        ("rm -rf /", "[not allowed: \"rm\"]\n"),
        ("", "[bad request: no program is named]\n"),
        (
            "sh \"",
            "[bad request: the quote at byte 3 is not closed]\n",
        ),
        (
            "sh \\",
            "[bad request: nothing follows the backslash at byte 3]\n",
        ),
        ("sh\0", "[bad request: NUL at byte 2]\n"),
        ("sh -c 'echo $0' --x", "--x\n"),
    ];
    for (request, reply) in dialogue {
        assert_eq!(client.ask(request), reply, "{request}");
    }
}

/// One of two pipes that is read first is what the other one fills up behind.
#[test]
fn output_and_errors_come_in_their_order_and_in_any_size() {
    let served = serve(&["sh"], &[]);
    let mut client = Client::new(&served);
    let request = "sh -c 'echo a; echo b >&2; echo c; echo d >&2'";
    assert_eq!(client.ask(request), "a\nb\nc\nd\n");
    client.send("sh -c 'head -c 300000 /dev/zero >&2; head -c 300000 /dev/zero; echo x >&2'");
    let reply = client.reply();
    assert_eq!(reply.len(), 600_002);
    assert!(reply.ends_with(b"\0x\n"));
}

#[test]
fn a_program_that_cannot_be_started_is_said_to() {
    let directory = Directory::new();
    let script = directory.path("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("a directory of ours");
    make_executable(&script);
    let script = script.to_str().expect("text");
    let served = serve(&[script], &[]);
    let mut client = Client::new(&served);
    let reply = client.ask(script);
    assert!(
        reply.starts_with("[could not be started: No such file"),
        "{reply}"
    );
    std::fs::remove_file(script).expect("our file");
    let reply = client.ask(script);
    assert!(
        reply.starts_with("[could not be started: No such file"),
        "{reply}"
    );
}

/// Only a shell, or what does as one does, takes a script for its own.
#[test]
fn a_script_that_names_no_interpreter_is_not_run() {
    let directory = Directory::new();
    let script = directory.path("script");
    std::fs::write(&script, "echo run\n").expect("a directory of ours");
    make_executable(&script);
    let script = script.to_str().expect("text");
    let served = serve(&[script], &[]);
    let reply = Client::new(&served).ask(script);
    assert!(
        reply.starts_with("[could not be started: Exec format error"),
        "{reply}"
    );
}

fn make_executable(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    let permissions = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(path, permissions).expect("our file");
}

#[test]
fn requests_that_are_too_long_end_the_connection() {
    let long = "x".repeat(8_193);
    let text = "[request too long: 8193 bytes, at most 8192 allowed]\n";
    for wire in ["framed", "struct", "ready"] {
        let served = serve(&["echo"], &["--wire", wire]);
        let mut client = Client::new(&served);
        let fits = format!("echo {}", "x".repeat(8_187));
        match wire {
            "framed" => {
                assert_eq!(client.ask(&fits).len(), 8_188);
                client.send(&long);
                assert_eq!(client.reply_text(), text);
            }
            "struct" => {
                client.write(fits.as_bytes());
                assert_eq!(client.read(8_192)[..4], 8_188_u32.to_le_bytes());
                client.write(long.as_bytes());
                let length = u32::try_from(text.len()).expect("short");
                let expected = [&length.to_le_bytes(), text.as_bytes()].concat();
                assert_eq!(client.read(expected.len()), expected);
            }
            _ => {
                client.write(long.as_bytes());
                assert_eq!(client.read(2), text.len().to_string().as_bytes());
                client.write(b"ready");
                assert_eq!(client.read(text.len()), text.as_bytes());
            }
        }
        let mut rest = Vec::new();
        let _ = client.0.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("not allowed"));
        let line = served.logged("request too long: 8193 bytes");
        let begin = &long[..100];
        assert!(line.contains(&format!(": \"{begin}")), "{line}");
    }
}

#[test]
fn nothing_unsafe_is_served_unless_it_is_named() {
    let remote = ["--allow", "ls", "--listen", "tcp://0.0.0.0:0"];
    let refused: [(&[&str], &str); 10] = [
        (
            &[],
            "no program is allowed; for example: serveloop serve command --allow ls",
        ),
        (
            &["--allow", "no-such-program"],
            "no such program in /usr/local/bin",
        ),
        (&["--allow", "bin/ls"], "expected an absolute path"),
        (&["--allow", "/etc/passwd"], "not executable"),
        (&remote, "--allow-remote-without-authentication"),
        (
            &["--allow", "ls", "--listen", "tcp://[::]:0"],
            "without authentication",
        ),
        (
            &["--allow", "ls", "--listen", "udp://127.0.0.1:0"],
            "command is for streams",
        ),
        (
            &["--allow", "ls", "--model", "forking"],
            "command cannot be served with --model forking",
        ),
        (&["--allow", "ls", "--max-commands", "0"], "--max-commands"),
        (
            &["--allow", "ls", "--max-command-output", "2GiB"],
            "at most 1GiB",
        ),
    ];
    for (arguments, expected) in refused {
        let outcome = Outcome::new(&[&["serve", "command"], arguments].concat());
        assert_eq!(outcome.code, Some(2), "{arguments:?} {}", outcome.stderr);
        assert_eq!(outcome.stdout, "", "{arguments:?}");
        assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
    }
    let named = [
        &["command", "--allow-remote-without-authentication"],
        &remote[..],
    ]
    .concat();
    assert!(Served::new(&named).uri(0).starts_with("tcp://0.0.0.0:"));
}

#[test]
fn a_unix_socket_is_served() {
    let directory = Directory::new();
    let at = directory.uri("unix", "socket");
    let served = Served::new(&["command", "--allow", "echo", "--listen", &at]);
    let mut client = served.connect();
    client.send("\0\0\0\x07echo hi");
    client.expect("\0\0\0\x03hi\n");
    client.finish();
    client.expect_end();
}

#[test]
fn help_shows_a_session_of_each_form() {
    let help = Outcome::new(&["serve", "command", "--help"]).stdout;
    for wire in ["framed", "struct", "ready"] {
        assert!(help.contains(&format!("--wire {wire} --allow")), "{help}");
    }
}

#[test]
fn each_command_is_logged_on_one_line() {
    let served = serve(&["echo"], &[]);
    let mut client = Client::new(&served);
    client.ask("echo 'a\n\x1b[31m' \u{202e}b");
    let line = served.logged("echo");
    let name = client.0.local_addr().expect("a socket");
    assert!(line.contains(&format!("tcp://{name}: ")), "{line}");
    assert!(
        line.contains(r#""echo a\n\u{1b}[31m \u{202e}b": exit status 0, 13 bytes"#),
        "{line}"
    );
    client.ask(format!("no {}", "x".repeat(5_000)));
    let line = served.logged("not allowed");
    assert!(line.len() < 500, "{line}");
}

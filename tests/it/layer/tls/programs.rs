//! Clients by other programs, and what they say.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A file next to this one.
pub(crate) fn beside(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/layer/tls");
    PathBuf::from(folder).join(name)
}

fn certificate(name: &str) -> String {
    let file = beside("certificates").join(name);
    file.display().to_string()
}

/// What `peer.py` says that happened.
pub(crate) fn python(to: SocketAddr, action: &str, options: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["30", "python3"]).arg(beside("peer.py"));
    command.args([
        &to.port().to_string(),
        &certificate("authority.pem"),
        action,
    ]);
    let output = command.args(options).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// Options of `peer.py` for the certificate of this name.
pub(crate) fn shows(name: &str) -> [String; 2] {
    [
        format!("certificate={}", certificate(&format!("{name}.pem"))),
        format!("key={}", certificate(&format!("{name}.key"))),
    ]
}

/// A running `openssl s_client`.
pub(crate) struct Openssl {
    child: Child,
}

impl Openssl {
    pub(crate) fn new(to: SocketAddr, options: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "exec timeout 30 openssl s_client \"$@\" 2>&1",
            "sh",
            "-brief",
        ]);
        command.args(["-verify_return_error", "-servername", "localhost"]);
        command.args([
            "-CAfile",
            &certificate("authority.pem"),
            "-connect",
            &to.to_string(),
        ]);
        command
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    /// Types a line, which may be a command to the program.
    pub(crate) fn types(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        // Where the handshake has failed the program is gone.
        let _ = input.write_all(line.as_bytes());
    }

    /// Reads what it says until this has come, or it has ended.
    pub(crate) fn reads_until(&mut self, text: &str) -> String {
        let output = self.child.stdout.as_mut().unwrap();
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(text.as_bytes()) && output.read(&mut byte).unwrap() > 0 {
            said.extend(byte);
        }
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Ends its input, and gives the rest of what it says.
    pub(crate) fn ends(mut self) -> String {
        drop(self.child.stdin.take());
        let output = self.child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Has `openssl s_client` type a line and read it again: the version, or why it could not.
pub(crate) fn openssl(to: SocketAddr, options: &[&str]) -> String {
    let mut client = Openssl::new(to, options);
    client.types("hello\n");
    let said = client.reads_until("hello\n");
    let rest = client.ends();
    let mut lines = said.lines();
    let version = lines.find_map(|line| line.strip_prefix("Protocol version: "));
    match version {
        Some(version) if lines.any(|line| line == "hello") => format!("echo, {version}"),
        _ => format!("refused: {said} {rest}"),
    }
}

/// What `curl` gets from this address, or its error.
pub(crate) fn curl(url: &str, options: &[&str]) -> String {
    let mut command = Command::new("curl");
    command.args([
        "--silent",
        "--show-error",
        "--max-time",
        "30",
        "--noproxy",
        "*",
    ]);
    command
        .args(["--cacert", &certificate("authority.pem"), url])
        .args(options);
    let output = command.output().unwrap();
    if output.status.success() {
        return String::from_utf8_lossy(&output.stdout).into_owned();
    }
    format!(
        "refused: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    )
}

/// Sends these bytes and waits for the end of the stream: what came until then.
pub(crate) fn plain(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(bytes).unwrap();
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

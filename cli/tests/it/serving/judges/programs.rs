//! Programs that speak TLS to the server by themselves.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use crate::serving::judges::cases::Order;
use crate::serving::judges::talk::{Act, HALF, Talk, filler};
use crate::serving::judges::{bulk, pair};
use crate::support::secure::certificate;

/// What `openssl s_client` does, and says if it fails.
pub(super) fn openssl(order: &Order) -> String {
    let session = order.path("session");
    if order.act == Act::Resume {
        let said = s_client(order, &["-sess_out", &session]);
        if said != "echo" {
            return said;
        }
        return s_client(order, &["-sess_in", &session]);
    }
    s_client(order, &[])
}

fn s_client(order: &Order, more: &[&str]) -> String {
    let errors = order.path("errors");
    let mut command = Command::new("timeout");
    command.args([
        "60",
        "openssl",
        "s_client",
        "-brief",
        "-verify_return_error",
    ]);
    command.args(["-servername", "localhost", "-verify_hostname", "localhost"]);
    command.args(["-CAfile", &certificate("authority.pem")]);
    command.args(["-connect", &order.to.to_string()]).args(more);
    command.arg(match order.version {
        "1.2" => "-tls1_2",
        _ => "-tls1_3",
    });
    if let Some(name) = order.certificate {
        let (chain, key) = pair(name);
        command.args(["-cert", &chain, "-key", &key]);
    }
    if let Some(name) = order.alpn {
        command.args(["-alpn", name]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(File::create(&errors).expect("a directory"));

    let mut child = command.spawn().expect("a program that is there");
    let (input, output) = (child.stdin.take(), child.stdout.take());
    let mut talk = Talk::pipes(input.expect("a pipe"), output.expect("a pipe"));
    let outcome = talk.act(order.act);
    drop(talk);
    child.wait().expect("our child");
    match outcome {
        Ok(said) => said.to_owned(),
        Err(error) => {
            let told = fs::read(errors).expect("its file");
            format!("refused: {error}: {}", String::from_utf8_lossy(&told))
        }
    }
}

/// What `peer.py` does.
pub(super) fn python(order: &Order) -> String {
    let script = certificate("../peer.py");
    let mut command = Command::new("timeout");
    command.args(["60", "python3", &script, &order.to.port().to_string()]);
    command.arg(certificate("authority.pem"));
    command.arg(match order.act {
        Act::Echo => "echo",
        Act::Frames => "frames",
        Act::HalfClose => "finish",
        Act::Bulk => "pump",
        Act::Resume => "resume",
    });
    let size = match order.act {
        Act::HalfClose => HALF,
        _ => bulk(),
    };
    command.arg(format!("size={size}"));
    command.arg(format!("version={}", order.version));
    if let Some(name) = order.certificate {
        let (chain, key) = pair(name);
        command.args([format!("certificate={chain}"), format!("key={key}")]);
    }
    if let Some(name) = order.alpn {
        command.arg(format!("alpn={name}"));
    }

    let output = command.output().expect("a program that is there");
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).trim().to_owned()
}

/// What `curl` does. Its request is a response as well, which the server echoes: with `HTTP/1.1 200` for
/// the method, its first line is a status, and its headers have the length of its body.
pub(super) fn curl(order: &Order) -> String {
    let url = format!("https://localhost:{}/", order.to.port());
    let (sent, got) = (order.path("sent"), order.path("got"));
    let body = match order.act {
        Act::Bulk => filler(bulk()),
        _ => b"hello".to_vec(),
    };
    fs::write(&sent, &body).expect("a directory");

    let post = ["-X", "HTTP/1.1 200", "-H", "Expect:", "--data-binary"];
    let data = format!("@{sent}");
    let mut command = curl_of(order);
    match order.act {
        Act::Frames => {
            let port = order.to.port();
            command.arg(format!("gophers://localhost:{port}/1bob%0D%0Aexit"));
            command.args(["-o", &got]);
        }
        Act::Resume => {
            command.args(post).args([&data, "-o", &got, &url]);
            command.args(["-H", "Connection: close", "-o", &got, &url]);
        }
        _ => {
            command.args(post).args([&data, "-o", &got, &url]);
            command.args(["--limit-rate", "16M"]);
        }
    }

    let output = command.output().expect("a program that is there");
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return format!("refused: {}", told.trim());
    }
    let found = fs::read(got).expect("its file");
    match order.act {
        Act::Frames if found == b"Welcome!\nHello,bob\n" => "frames".to_owned(),
        Act::Bulk if found == body => "all came back".to_owned(),
        Act::Echo | Act::Resume if found == body => "echo".to_owned(),
        _ => format!("other bytes: {} of them", found.len()),
    }
}

fn curl_of(order: &Order) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "--noproxy", "*", "--http1.1"]);
    command.args(["--cacert", &certificate("authority.pem")]);
    let port = order.to.port();
    command.args(["--resolve", &format!("localhost:{port}:127.0.0.1")]);
    command.args([
        &format!("--tlsv{}", order.version),
        "--tls-max",
        order.version,
    ]);
    if let Some(name) = order.certificate {
        let (chain, key) = pair(name);
        command.args(["--cert", &chain, "--key", &key]);
    }
    // It offers http/1.1 unless it is told not to.
    if order.alpn.is_none() {
        command.arg("--no-alpn");
    }
    command
}

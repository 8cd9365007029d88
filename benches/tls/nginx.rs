//! nginx as it is installed, as one process that makes handshakes with the same parameters.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use crate::servers::{BACKLOG, CERTIFICATE, KEY};

const PATIENCE: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(20);

/// Returns nginx's version, or `None` if it is not installed.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let version = text.trim().rsplit('/').next()?.to_owned();
    output.status.success().then_some(version)
}

/// Returns the command line of an nginx that listens at `port` of all addresses, and stops its standard
/// output and input from being used.
pub(crate) fn words(port: u16) -> io::Result<Vec<OsString>> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("nginx");
    fs::create_dir_all(&directory)?;
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration(&directory.display().to_string(), port))?;
    let words = [
        "nginx".into(),
        "-p".into(),
        directory.into(),
        "-c".into(),
        file.into(),
    ];
    Ok(words.into())
}

/// Sets the command's streams, since nginx writes nothing that is needed.
pub(crate) fn silence(command: &mut Command) {
    command.stdin(Stdio::null()).stderr(Stdio::null());
}

/// Returns a port that is free now.
pub(crate) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    Ok(listener.local_addr()?.port())
}

/// Waits until something listens at `port`.
pub(crate) fn await_port(port: u16) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(()),
            Err(_) if begun.elapsed() < PATIENCE => thread::sleep(STEP),
            Err(error) => return Err(error),
        }
    }
}

fn configuration(directory: &str, port: u16) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {directory}/{name};"));
    let temporary = temporary.join("\n");
    format!(
        "daemon off;
        master_process off;
        pid {directory}/nginx.pid;
        error_log {directory}/error.log crit;
        events {{ worker_connections 4096; }}
        http {{
            access_log off;
            {temporary}
            server {{
                listen {port} ssl backlog={BACKLOG};
                ssl_certificate {CERTIFICATE};
                ssl_certificate_key {KEY};
                ssl_protocols TLSv1.3;
                ssl_ecdh_curve X25519;
                ssl_conf_command Ciphersuites TLS_AES_256_GCM_SHA384;
                ssl_session_tickets on;
                ssl_session_cache none;
                return 204;
            }}
        }}
        "
    )
}

//! Servers that speak TLS, by other programs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::outside::require;

/// A file of the library's test certificates.
pub(crate) fn certificate(name: &str) -> String {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/it/layer/tls/certificates"
    );
    format!("{folder}/{name}")
}

/// A running server on a port of its own, killed when the test ends.
pub(crate) struct Secure {
    child: Child,
    port: u16,
}

impl Secure {
    /// Starts `openssl s_server` with the certificate of this name, or returns `None` if it is missing.
    #[track_caller]
    pub(crate) fn openssl(name: &str, options: &[&str]) -> Option<Self> {
        let mut command = Command::new("openssl");
        command.args(["s_server", "-accept", "127.0.0.1:0"]);
        command.args(["-cert", &certificate(&format!("{name}.pem"))]);
        command.args(["-key", &certificate(&format!("{name}.key"))]);
        command.args(options);
        require("openssl").then(|| Self::start(command))
    }

    /// Starts `secure.py` with the certificate `localhost`, or returns `None` if Python is missing.
    #[track_caller]
    pub(crate) fn python(action: &[&str]) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/secure.py");
        let mut command = Command::new("python3");
        command.args([
            script,
            &certificate("localhost.pem"),
            &certificate("localhost.key"),
        ]);
        command.args(action);
        require("python3").then(|| Self::start(command))
    }

    /// Waits for the line that ends with the port.
    #[track_caller]
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a program that is there");

        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut ports = lines.map_while(Result::ok).filter_map(|line| {
            let port = line.rsplit(':').next().unwrap_or_default();
            let is_place = line.starts_with("ACCEPT") || line == port;
            port.parse().ok().filter(|_| is_place)
        });
        let port = ports.next().expect("its port");
        Self { child, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The server by the name in its certificate.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}/", self.port)
    }

    pub(crate) fn uri(&self) -> String {
        format!("tls://localhost:{}", self.port)
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! Programs that take plain connections and pass them on to the server by TLS.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::serving::judges::cases::Order;
use crate::serving::judges::pair;
use crate::serving::judges::talk::{Act, Talk};
use crate::support::secure::certificate;
use crate::support::served::PATIENCE;
use crate::support::sockets::Directory;

/// Where nginx has its module for streams.
pub(super) const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// A running program that connects to the server for us, killed when it is dropped.
pub(super) struct Tunnel {
    child: Child,
    /// Ends it when it has written its log.
    ending: Signal,
    directory: Directory,
}

impl Tunnel {
    pub(super) fn stunnel(order: &Order) -> Self {
        let own = order.certificate.map(|name| {
            let (chain, key) = pair(name);
            format!("cert = {chain}\nkey = {key}\n")
        });
        let config = |socket: &str| {
            format!(
                "foreground = yes\nsyslog = no\ndebug = 6\npid =\n[all]\nclient = yes\n\
                 accept = {socket}\nconnect = {}\nCAfile = {}\nverifyChain = yes\n\
                 checkHost = localhost\nsni = localhost\nsslVersion = TLSv{}\n{}",
                order.to,
                certificate("authority.pem"),
                order.version,
                own.as_deref().unwrap_or_default(),
            )
        };
        Self::start("stunnel", &[], config)
    }

    pub(super) fn haproxy(order: &Order) -> Self {
        let (authority, to) = (certificate("authority.pem"), order.to);
        let mut server = format!(
            "{to} ssl verify required ca-file {authority} verifyhost localhost \
             sni str(localhost) ssl-min-ver TLSv{0} ssl-max-ver TLSv{0}",
            order.version
        );
        if let Some(name) = order.certificate {
            server += &format!(" crt {}", order.bundle(name));
        }
        if let Some(name) = order.alpn {
            server += &format!(" alpn {name}");
        }

        // Each of its threads would have sessions of its own.
        let config = |socket: &str| {
            format!(
                "global\n nbthread 1\n log stderr format raw local0\n\
                 defaults\n mode tcp\n log global\n log-format \"%ts %[bc_err_str] %[ssl_bc_err_str]\"\n retries 0\n\
                 timeout client 20s\n timeout connect 20s\n timeout server 20s\n\
                 listen all\n bind unix@{socket}\n server one {server}\n"
            )
        };
        let mut tunnel = Self::start("haproxy", &["-db", "-f"], config);
        tunnel.ending = Signal::USR1;
        tunnel
    }

    pub(super) fn nginx(order: &Order) -> Self {
        let own = order.certificate.map(|name| {
            let (chain, key) = pair(name);
            format!("proxy_ssl_certificate {chain}; proxy_ssl_certificate_key {key};")
        });
        let config = |socket: &str| {
            format!(
                "load_module {NGINX_STREAM};\ndaemon off;\nmaster_process off;\npid {socket}.pid;\n\
                 error_log stderr info;\nevents {{}}\nstream {{ server {{\n listen unix:{socket};\n\
                 proxy_pass {};\n proxy_ssl on;\n proxy_ssl_verify on;\n\
                 proxy_ssl_trusted_certificate {};\n proxy_ssl_name localhost;\n\
                 proxy_ssl_server_name on;\n proxy_ssl_protocols TLSv{};\n {} }} }}\n",
                order.to,
                certificate("authority.pem"),
                order.version,
                own.as_deref().unwrap_or_default(),
            )
        };
        Self::start("nginx", &["-e", "stderr", "-c"], config)
    }

    /// Starts `program` with these arguments before the name of its configuration, which has the path of
    /// the socket to listen at.
    fn start(program: &str, arguments: &[&str], config: impl Fn(&str) -> String) -> Self {
        let directory = Directory::new();
        let path = |name| directory.path(name).display().to_string();
        fs::write(path("config"), config(&path("socket"))).expect("a directory");
        let log = File::create(path("log")).expect("a directory");
        let child = Command::new(program)
            .args(arguments)
            .arg(path("config"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .spawn()
            .expect("a program that is there");
        Self {
            child,
            ending: Signal::TERM,
            directory,
        }
    }

    /// Connects as soon as the program listens.
    fn connect(&mut self) -> UnixStream {
        let begun = Instant::now();
        loop {
            if let Ok(stream) = UnixStream::connect(self.directory.path("socket")) {
                return stream;
            }
            let status = self.child.try_wait().expect("our child");
            assert!(status.is_none(), "it has ended: {}", self.told());
            assert!(
                begun.elapsed() < PATIENCE,
                "no one listens: {}",
                self.told()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Does what is ordered. Returns what came of it.
    pub(super) fn act(&mut self, act: Act) -> String {
        match self.try_act(act) {
            Ok(said) => said.to_owned(),
            Err(error) => format!("refused: {error}"),
        }
    }

    fn try_act(&mut self, act: Act) -> io::Result<&'static str> {
        if act == Act::Resume {
            Talk::socket(self.connect())?.act(Act::Echo)?;
        }
        Talk::socket(self.connect())?.act(act)
    }

    /// What the program has said so far.
    fn told(&self) -> String {
        let told = fs::read(self.log()).expect("its file");
        String::from_utf8_lossy(&told).into_owned()
    }

    fn log(&self) -> PathBuf {
        self.directory.path("log")
    }

    /// Ends the program. Returns what it said.
    pub(super) fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.child), self.ending).expect("our child");
        self.child.wait().expect("our child");
        self.told()
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

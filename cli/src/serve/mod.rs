//! `serveloop serve`: from the command line to a server and to its end.
//!
//! What all protocols have in common is here: addresses, limits as options, the memory limit, and
//! what the server prints at its start and end. Protocols are in `protocols`. What they share with
//! this room is in `serving`, which does not import it.

mod entry;
mod given;
mod limits;
mod manager;
mod memory_limit;
mod per_peer;
mod place;
mod proxies;
mod record;
mod reread;
mod rules;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serveloop::layer::proxy::Proxy;
use serveloop::{Address, Config, Server};

use crate::failure::Failure;
use crate::logger::{TARGET, describe_server};
use crate::monitoring::{About, MonitoringOptions, SidePlace, SideServer, Source};
use crate::protocols::Protocol;
use crate::restart::{RestartOptions, Restarts, Setting};
use crate::serve::entry::EntryOptions;
use crate::serve::given::GivenListen;
use crate::serve::limits::Limits;
use crate::serve::per_peer::GivenPerPeer;
use crate::serve::proxies::ProxyOptions;
use crate::serve::record::RecordOptions;
use crate::serving::{BoundServer, Execution, ListenerTls, OfPlaces, statistics_line};
use crate::settings::Expanded;
use crate::signals::Signals;
use crate::unblocked::write_at_once;
use crate::units::Span;

pub(crate) use self::manager::Manager;
pub(crate) use self::reread::{Parse, Reread};

const DEFAULT_LISTEN: &str = "tcp://127.0.0.1:9999";

/// Where to listen if a service manager passed sockets and the user does not say where.
const PASSED_LISTEN: &str = "systemd://";

/// Serves a protocol on one or more sockets.
///
///   $ serveloop serve echo --listen tcp://127.0.0.1:0 --listen unix:///tmp/echo.sock
///   listening on tcp://127.0.0.1:40213
///   listening on unix:///tmp/echo.sock
///
/// Without a host the server listens on all addresses, IPv4 and IPv6. An interface is written with its
/// name:
///
///   $ serveloop serve echo --listen tcp://:9999 --listen 'tcp://[fe80::1%eth0]:9999'
///
/// A listener's own options follow in a query, under the names that they have here: dual-stack,
/// keepalive, backlog, nodelay, reuse-address, reuse-port, send-buffer, receive-buffer, and the limits of
/// single connections, such as idle-timeout, max-line and high-water. Those for the file of a Unix socket
/// are called mode and group there. Quotes keep the shell from reading ? and &:
///
///   $ serveloop serve echo --listen 'tcp://[::]:9999?dual-stack=true&keepalive=60s'
///   $ serveloop serve echo --listen tcp://:9999 --listen 'unix:///run/echo.sock?idle-timeout=0'
///   $ serveloop serve echo --listen 'unix:///run/echo.sock?mode=0660&group=www-data'
///
/// A UDP listener at an address of multicast joins the group. interface, source, ttl, loopback and broadcast
/// are options for that:
///
///   $ serveloop serve echo --listen 'udp://239.1.2.3:9999?interface=eth0'
///
/// On Linux, packet-info=true has a protocol that asks for it told the ECN mark and the hop limit of each
/// datagram of UDP, and gro=true receives several datagrams of one peer by one call, which pays for bulk.
///
/// On Linux, vsock is between a virtual machine and its host; without a number it is for all machines:
///
///   $ serveloop serve echo --listen vsock://:9999
///
/// In a URI with a query, a question mark in a path is written %3F, and a percent sign %25. On Linux,
/// unix:@NAME is a name outside the file system.
///
/// Behind a load balancer that sends PROXY headers, as HAProxy does with send-proxy or send-proxy-v2, logs
/// and limits know the client that a header names. Only the networks of --trust are believed. The
/// options of a listener (proxy=required, optional or off, and trust) override those for all:
///
///   $ serveloop serve echo --listen tcp://:9999 --proxy required --trust 10.0.0.0/8
///   $ serveloop serve echo --listen 'unix:///run/echo.sock?proxy=required&trust=unix'
///
/// Lists say who may connect: --allow admits only the networks that it lists, --deny refuses some of
/// them. A listener with lists in its query uses those instead. SIGHUP reads lists in files (@FILE)
/// again:
///
///   $ serveloop serve echo --listen tcp://:9999 --allow 127.0.0.0/8,::1,192.0.2.0/24 --deny 192.0.2.7
///   $ serveloop serve echo --listen 'tcp://127.0.0.1:9999?allow=127.0.0.1'
///
/// TLS has the scheme tls. Its options name the files of the certificate and of its key, in PEM format;
/// with several pairs, the first is for clients that ask for no name in the others. With client-ca,
/// clients have to show a certificate from an authority in that file, unless client-auth=optional is
/// given. alpn lists application protocols. SIGHUP reads the files again:
///
///   $ serveloop serve echo --listen 'tls://:8443?cert=cert.pem&key=key.pem'
///   $ serveloop serve echo --listen 'tls://:8443?cert=cert.pem&key=key.pem&client-ca=ca.pem'
///   $ openssl s_client -connect 127.0.0.1:8443 -servername localhost -CAfile cert.pem
///
/// Sockets that a service manager passes (systemd's socket units) are systemd://NAME, or systemd:// for
/// all of them, which is the default if any is passed. fd://N is a socket that was open at the start.
/// They take the options of other listeners, and have TLS with cert and key:
///
///   $ systemd-socket-activate -l 127.0.0.1:9999 serveloop serve echo --listen systemd://
///
/// If NOTIFY_SOCKET is set, the manager is told when the server is ready, reloads and stops, and, if it
/// has a watchdog, that every loop still turns.
///
/// Options can also be in a file in TOML. A key is the name of an option; a value that can be given
/// several times is an array; a listener may be a section with its own options; and those of the
/// protocol follow in a section of its name, or outside of it. Options on the command line override
/// those of the file:
///
///   $ serveloop serve --config hello.toml
///   $ serveloop serve hello --config hello.toml --delay 0
///   $ serveloop check hello.toml
///
/// For example:
///
///   protocol = "hello"
///   max-connections = 12_000
///   idle-timeout = "5m"
///
///   [[listen]]
///   uri = "tls://:8443"
///   cert = "cert.pem"
///   key = "key.pem"
///
///   [hello]
///   framing = "line"
///
/// SIGHUP reads the file again, and puts its lists (allow and deny) and its log level into effect. A file
/// that is not valid changes nothing, and the log says why.
///
/// As soon as clients can connect, one line for each socket is printed on standard output, with the
/// real port in place of 0. The log goes to standard error.
///
/// SIGTERM, SIGINT (Ctrl-C) and SIGQUIT shut the server down: it stops accepting connections, sends
/// the replies that are still due, and ends the connections that are still open after --drain-timeout.
/// A second signal, more than half a second after the first, ends them at once. With --drain-delay,
/// the server goes on for that time first. SIGUSR1 writes the statistics to the log. SIGHUP is ignored
/// if there is nothing to read again.
///
/// SIGUSR2 replaces the server by a new process of the program that is at its path now, with the same
/// arguments and sockets. No client is refused: the old process finishes the connections that it has. If
/// the new one does not serve, the old one goes on. With --handover, connections of echo, hello and chat
/// go on in the new process:
///
///   $ serveloop serve echo --listen tcp://:9999 --pid-file /run/echo.pid
///   $ kill -USR2 $(cat /run/echo.pid)
///
/// With --record, the server keeps what came and went on the last connections, and writes it to a file when
/// a handler panics, at SIGUSR1 and at the end. `serveloop transcript` shows the file:
///
///   $ serveloop serve echo --record echo.record
///   $ serveloop transcript echo.record
///
/// Everything has a limit, and every limit is an option, which `serveloop help limits` lists. Sizes are
/// written as 4096, 64KiB or 1MiB, durations as 250ms, 10s or 5m:
///
///   $ serveloop serve echo --max-connections 12000 --idle-timeout 5m --high-water 128KiB
///
/// Unless its help says otherwise, a protocol can be served by any model, for example by a process for
/// each connection, or by two event loops:
///
///   $ serveloop serve echo --model forking
///   $ serveloop serve echo --workers 2
///
/// --metrics serves pages about the server: / in a browser, /metrics for Prometheus, /healthz and /readyz
/// for load balancers. With --admin, `serveloop ctl` lists and ends connections, and `serveloop top` shows
/// them in a terminal:
///
///   $ serveloop serve echo --metrics tcp://127.0.0.1:9100 --admin unix:///tmp/echo-admin.sock
///   listening on tcp://127.0.0.1:9999
///   metrics on tcp://127.0.0.1:9100
///   admin on unix:///tmp/echo-admin.sock
///
/// `serveloop serve PROTOCOL --help` shows an example session.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Serve {
    /// Before the limits, which take the values that it asks about out.
    #[command(flatten)]
    given: GivenPerPeer,
    #[command(flatten)]
    given_listen: GivenListen,
    #[command(subcommand)]
    protocol: Protocol,
    /// A file of options in TOML: a key is the name of an option, without the hyphens in front. Options on
    /// the command line override those of the file
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to listen: tcp://HOST:PORT, tls://HOST:PORT, udp://HOST:PORT, unix://PATH,
    /// unixgram://PATH, vsock://CID:PORT, systemd://NAME or fd://N. Can be given several times. With port 0
    /// the system chooses the port. Without HOST the server listens on every address. Options of this
    /// listener follow in a query, as in tcp://:9999?keepalive=60s&backlog=4096.
    #[arg(
        long,
        value_name = "URI",
        global = true,
        default_value = DEFAULT_LISTEN
    )]
    listen: Vec<String>,
    /// How long to go on serving after a signal to end, before the shutdown begins: the time that load
    /// balancers need to notice. A second signal, more than half a second later, ends everything at once
    #[arg(
        long,
        global = true,
        hide_short_help = true,
        value_name = "DURATION",
        default_value_t = Duration::ZERO.into()
    )]
    drain_delay: Span,
    #[command(flatten)]
    proxies: ProxyOptions,
    #[command(flatten)]
    entry: EntryOptions,
    #[command(flatten)]
    record: RecordOptions,
    #[command(flatten)]
    execution: Execution,
    #[command(flatten)]
    restart: RestartOptions,
    #[command(flatten)]
    monitoring: MonitoringOptions,
    #[command(flatten)]
    limits: Limits,
}

impl Serve {
    /// Serves until a signal ends the server. Returns the exit status. If this process was to replace
    /// another one and cannot, that one is told why.
    pub(crate) fn run(
        self,
        mut manager: Manager,
        file: Option<(Reread, Expanded)>,
    ) -> Result<ExitCode, Failure> {
        let word = manager.word()?;
        let outcome = self.serve(manager, file);
        if let (Err(failure), Some(word)) = (&outcome, word) {
            word.fail(&failure.problem());
        }
        outcome
    }

    fn serve(
        self,
        mut manager: Manager,
        file: Option<(Reread, Expanded)>,
    ) -> Result<ExitCode, Failure> {
        let access = match &file {
            // Lists may come with the next reading of the file.
            Some(_) => Some(self.entry.changeable_access()?),
            None => self.entry.access()?,
        };
        let listen = self.listen_of(&manager);
        let (mut config, mut places) = self.plan(&listen, access.as_ref(), &mut manager)?;
        let (loops, has_threads) = self.execution.parts();
        memory_limit::fit(&mut config, loops, has_threads);

        let recorder = self.record.recorder();
        let signals = Signals::catch(self.drain_delay.into())?;
        let inherit = &mut |uri: &str| manager.inherit(uri);
        let mut side = SideServer::bind(&self.monitoring, &mut config, self.side_place(), inherit)?;

        self.execution.prepare(&mut places.listens, &mut config)?;
        let mut server = Server::bind_places_with(&places.listens, config.clone())?;
        let (loops, _) = self.execution.parts();
        server.bind_workers(loops)?;
        signals.tell(server.shutdown_handle());
        let mut setting = self.setting(&server, &mut manager, &signals, &config, &side)?;
        let monitor = side.is_needed().then(|| server.monitor());

        let notifier = manager.into_notifier().unwrap_or_else(|error| {
            log::warn!(target: TARGET, "{error}: the service manager is not notified");
            None
        });
        let again = file.map(|(file, read)| move || file.apply(&read, access.as_ref()));
        places.reload_at_hangup(notifier.clone(), again);
        // What was passed is open as long as the server listens, and no longer.
        drop(places.listens);
        if self.execution.has_loops() {
            setting.ways = ways(self.protocol.name(), &places.doors, &places.tls);
        }
        (setting.names, setting.notifier) = (places.names, notifier.clone());

        let (restarts, ending) = Restarts::new(setting, &self.restart)?;
        let of_places = OfPlaces {
            doors: places.doors,
            tls: places.tls,
            access: places.access,
            rate: self.entry.rate(),
            lifetime: self.entry.lifetime(&config),
            notifier,
            restarts: Some(restarts),
            recorder,
        };
        let server = BoundServer::new(server, of_places);

        self.warn(&server, &config);
        describe_server(self.protocol.name(), server.uris().collect());
        if let Some(monitor) = monitor {
            let about = self.about(&server);
            side.start(Source::new(monitor, signals.leaving(), about))?;
        }
        announce(&server, &side);
        let statistics = self.protocol.serve(server, &config, self.execution)?;
        drop(ending);
        log::info!(target: TARGET, "{}", statistics_line(&statistics));
        Ok(signals.exit_code().unwrap_or(ExitCode::SUCCESS))
    }
}

impl Serve {
    /// Returns what the server has to know for its restarts, but for the names of its places and the
    /// notifier.
    fn setting(
        &self,
        server: &Server,
        manager: &mut Manager,
        signals: &Signals,
        config: &Config,
        side: &SideServer,
    ) -> Result<Setting, Failure> {
        Ok(Setting {
            program: manager.program(),
            sockets: server.open_sockets(),
            places: server.places().to_vec(),
            names: Vec::new(),
            ways: Vec::new(),
            side: side.listeners(),
            handle: server.shutdown_handle(),
            leaving: signals.leaving(),
            notifier: None,
            drain: config.drain_timeout,
            is_forking: self.execution.is_forking(),
            objection: self.protocol.objection_to_restarts().or(side.objection()),
            former: manager.word()?,
        })
    }

    /// Returns what pages say about the server.
    fn about(&self, server: &BoundServer) -> About {
        About {
            protocol: self.protocol.name(),
            uris: server.uris().collect(),
        }
    }

    /// Returns where pages and administrators are served.
    fn side_place(&self) -> SidePlace {
        match self.execution.is_forking() {
            true => SidePlace::Process,
            false => SidePlace::Thread,
        }
    }

    /// Logs what may surprise the user.
    fn warn(&self, server: &BoundServer, config: &Config) {
        if self.protocol.has_long_replies() && drops_long_replies(server.addresses(), config) {
            log::warn!(
                target: TARGET, "replies to other machines' datagrams are dropped if they are longer than the \
                 datagrams: --reply-factor allows longer replies"
            );
        }

        let most = self.execution.places(config);
        let shared = server.addresses_without_proxy();
        if let Some(warning) = self.given.warning(&shared, config, most) {
            log::warn!(target: TARGET, "{warning}");
        }
    }

    /// Returns where to listen. Sockets that were passed are not left waiting because the user says
    /// nothing.
    fn listen_of(&self, manager: &Manager) -> Vec<String> {
        match self.given_listen.is_given() || !manager.has_sockets(PASSED_LISTEN) {
            true => self.listen.clone(),
            false => vec![PASSED_LISTEN.to_owned()],
        }
    }
}

/// Returns how the connections of each place are served.
fn ways(protocol: &str, doors: &[Option<Proxy>], tls: &[Option<ListenerTls>]) -> Vec<String> {
    let way = |(door, tls): (&Option<Proxy>, &Option<ListenerTls>)| {
        let door = door.as_ref().map_or("", |_| " with a header of a proxy");
        let tls = tls.as_ref().map_or("", |_| " in TLS");
        format!("{protocol}{door}{tls}")
    };
    doors.iter().zip(tls).map(way).collect()
}

/// Returns whether the server drops replies that are longer than their datagram at one of
/// `addresses`, which would surprise the user of a protocol that has such replies.
fn drops_long_replies(addresses: &[Address], config: &Config) -> bool {
    let is_exempt = |address: &Address| {
        let ip = address.socket_addr().map(|addr| addr.ip().to_canonical());
        !config.limit_loopback && ip.is_none_or(|ip| ip.is_loopback())
    };
    let is_limited = |address: &Address| address.is_datagram() && !is_exempt(address);
    config.reply_factor == 1 && addresses.iter().any(is_limited)
}

/// Prints where clients can connect. A failure is only logged: clients and signals can still come
/// even if the process that started us does not read this.
fn announce(server: &BoundServer, side: &SideServer) {
    let listening = server.uris().map(|uri| format!("listening on {uri}\n"));
    let lines: String = listening.chain([side.lines()]).collect();
    if let Err(error) = write_at_once(io::stdout(), lines.as_bytes()) {
        log::warn!(target: TARGET, "cannot write to standard output: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_get_no_long_replies_unless_that_is_allowed() {
        let drops = |uri: &str, config: &Config| {
            let addresses = Address::resolve(uri).expect("an address");
            drops_long_replies(&addresses, config)
        };

        let usual = Config::default();
        assert!(drops("udp://0.0.0.0:9", &usual));
        assert!(drops("udp://[::]:9", &usual));
        assert!(drops("udp://192.0.2.1:9", &usual));

        for uri in [
            "udp://127.0.0.2:9",
            "udp://[::1]:9",
            "unixgram:///s",
            "tcp://0.0.0.0:9",
        ] {
            assert!(!drops(uri, &usual), "{uri}");
        }

        let strict = Config {
            limit_loopback: true,
            ..Config::default()
        };
        assert!(drops("udp://127.0.0.1:9", &strict));

        let generous = Config {
            reply_factor: 2,
            ..Config::default()
        };
        assert!(!drops("udp://0.0.0.0:9", &generous));
    }
}

//! `serve command`: runs programs for clients, within limits.
//!
//! The protocol is the crate `serveloop-command`. Its options are here, and what a server is refused
//! for.

use std::ffi::OsString;
use std::io;
use std::num::NonZero;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, ValueEnum, value_parser};
use serveloop::{Address, Config, Statistics};
use serveloop_command::{Allowed, Commands, Settings};

use crate::failure::Failure;
use crate::logger::TARGET;
use crate::monitoring::is_local;
use crate::protocols::streams::need_streams;
use crate::serving::{Allow, BoundServer, Execution, Need};
use crate::units::{Size, Span, Timeout, at_least_one};

/// Runs programs that --allow lists, without a shell, and sends back their output.
///
/// A request is a command line: words, with quotes as in Python's shlex.split. The first word must
/// be a program that --allow lists, by the name or path given there. The other words are its
/// arguments, unchanged. Variables, wildcards, pipes and ; have no special meaning. --wire chooses how
/// requests and replies are sent:
///
///   $ serveloop serve command --wire framed --allow ls --allow date
///   listening on tcp://127.0.0.1:9999
///
///   client: 00 00 00 04 date        a length (big-endian), the command line
///   server: 00 00 00 1d Thu Jan...  a length (big-endian), the output
///
///   $ serveloop serve command --wire struct --allow echo
///
///   client: echo hi                 the command line: each piece of data, or each line in it
///   server: 03 00 00 00 hi          a length (little-endian, signed), the output
///
///   $ serveloop serve command --wire ready --allow echo
///
///   client: echo hi
///   server: 3                       the length in digits
///   client: ready
///   server: hi
///
/// The last one can be tried from another terminal; type echo hi, then ready:
///
///   $ nc 127.0.0.1 9999
///   echo hi
///   3ready
///   hi
///
/// With framed and struct a client can send its next request before it has the reply. Its programs
/// run one after the other. Up to sixteen requests can wait; one more is refused with a reply after
/// the others, and ends the connection. Only framed separates requests that have no line ends.
///
/// The reply is what the program writes to standard output and standard error, in the order in which
/// it arrives. If something went wrong, a last line in brackets says what:
///
///   [exit status N]          [killed by signal N]       [could not be started: ...]
///   [timed out after 30s]    [output cut off at 1MiB]   [stopped: the client's stream has ended]
///   [not allowed: "rm"]      [bad request: ...]         [request too long: ...]   [busy: ...]
///   [too many requests: ...]
///
/// A program runs in the directory /, with only PATH and LANG in its environment, an empty standard
/// input, and no other open descriptors. It has its own session, gains no rights by set-user-ID, and is
/// killed when its connection ends. When it ends, the processes that it left behind are killed. When
/// the server is killed, the program is killed too on Linux, but not what it started. A program cannot
/// see the server's own environment and descriptors, unless both run as root. --model forking is
/// refused.
///
/// None of this protects from what an allowed program can be told to do. Allowing a shell, an
/// interpreter, env, find, xargs or an editor allows everything, with the rights of the server. Memory,
/// the number of processes and the network are not limited, and a process that starts a new session
/// escapes. Clients are not authenticated, so the server listens only on loopback and Unix sockets; the
/// permissions of a Unix socket's directory decide who can connect. A web page can make a browser on
/// this machine connect to loopback. A client that sends HTTP, TLS or STUN is disconnected before
/// anything runs, but only a Unix socket keeps browsers out. With --wire struct or ready, a request
/// ends with the piece of data that it arrives in, so HTTP that arrives in pieces within a line is not
/// always recognised: prefer --wire framed.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment, next_help_heading = "Programs")]
pub(crate) struct CommandOptions {
    /// How requests and replies are sent
    #[arg(long, value_enum, default_value_t)]
    wire: Wire,
    /// A program that clients may run: a name, which is looked up once in /usr/local/bin, /usr/bin
    /// and /bin, or an absolute path. Can be given several times; none is allowed by default. A network,
    /// or @FILE, says who may connect, as it does for other protocols
    #[arg(
        long,
        value_name = "PROGRAM",
        value_parser = OsStringValueParser::new().try_map(find)
    )]
    allow: Vec<Allow>,
    /// How long a program may run before all its processes get SIGTERM; 0: no limit
    #[arg(long, value_name = "DURATION", default_value_t = Settings::default().timeout.into())]
    command_timeout: Timeout,
    /// How long after SIGTERM they get SIGKILL
    #[arg(long, value_name = "DURATION", default_value_t = Settings::default().kill_after.into())]
    kill_after: Span,
    /// The most output of a program; one that writes more is killed. So is one that writes while the
    /// output and requests that wait, of all clients together, have reached --max-buffered
    #[arg(long, value_name = "SIZE", default_value_t = Settings::default().max_output.into())]
    max_command_output: Size,
    /// The most programs that run at a time
    #[arg(long, value_name = "NUMBER", default_value = "8", value_parser = at_least_one)]
    max_commands: NonZero<usize>,
    /// The most programs that wait for one of those to end, in the order of their requests; beyond
    /// that, the reply is [busy: ...]
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().max_waiting)]
    max_waiting_commands: usize,
    /// The most processor time that each process of a program may use, in whole seconds
    #[arg(long, value_name = "DURATION", default_value_t = Settings::default().max_cpu_time.into())]
    command_cpu_time: Span,
    /// The longest file that a program may write
    #[arg(long, value_name = "SIZE", default_value_t = (16 << 20).into())]
    command_file_size: Size,
    /// The most descriptors that each process of a program may have open
    #[arg(long, value_name = "NUMBER", default_value_t = Settings::default().max_descriptors, value_parser = value_parser!(u64).range(Settings::MAX_DESCRIPTORS_LEAST..))]
    command_descriptors: u64,
    /// The longest request
    #[arg(long, value_name = "SIZE", default_value_t = Settings::default().max_request.into())]
    max_request: Size,
    /// How long a program may keep running after the end of the client's stream; 0: not at all. Over
    /// TCP a client that is gone looks like one that only has nothing more to send
    #[arg(long, value_name = "DURATION", default_value_t = Settings::default().grace_after_eof.into())]
    grace_after_eof: Span,
    /// Listen on addresses other than loopback and Unix sockets. Any client that can connect can then
    /// run the programs, without authentication or encryption
    #[arg(long)]
    allow_remote_without_authentication: bool,
}

impl CommandOptions {
    /// Returns an error for what is unsafe or cannot be served.
    pub(super) fn check(&self, addresses: &[Address], execution: Execution) -> Result<(), Failure> {
        if self.programs().next().is_none() {
            let problem = "no program is allowed; for example: serveloop serve command --allow ls --allow date";
            return Err(Failure::Usage(problem.to_owned()));
        }
        let why = "command is for streams: the reply to a datagram cannot wait for a program";
        need_streams(addresses, why)?;

        let problem = if execution.is_forking() {
            "command cannot be served with --model forking: a process for each connection cannot end \
             its program's children when it is killed itself"
                .to_owned()
        } else if let Some(remote) = self.forbidden(addresses) {
            format!(
                "command on {remote}: any client that can connect could run programs without \
                 authentication; listen on 127.0.0.1, [::1] or a Unix socket, or accept that with \
                 --allow-remote-without-authentication"
            )
        } else if usize::from(self.max_command_output) > Settings::MAX_OUTPUT_MOST {
            "--max-command-output must be at most 1GiB".to_owned()
        } else if usize::from(self.max_request) > Settings::MAX_REQUEST_MOST {
            "--max-request must be at most 128MiB".to_owned()
        } else if Duration::from(self.command_cpu_time).is_zero()
            || usize::from(self.max_request) == 0
        {
            "--command-cpu-time and --max-request must not be 0".to_owned()
        } else {
            return Ok(());
        };

        Err(Failure::Usage(problem))
    }

    /// Returns the needs of options that exceed their defaults.
    pub(super) fn needs(&self) -> Vec<Need> {
        let (request, output) = (self.max_request.into(), self.max_command_output.into());
        let usual = Settings::default();
        let all = [
            ("max_request", request, usual.max_request, "max_frame"),
            (
                "max_command_output",
                output,
                usual.max_output,
                "max_buffered",
            ),
        ];
        let beyond = all.into_iter().filter(|(_, bytes, usual, _)| bytes > usual);

        beyond
            .map(|(option, bytes, _, limit)| Need {
                option,
                bytes,
                limit,
            })
            .collect()
    }

    fn programs(&self) -> impl Iterator<Item = &Allowed> {
        self.allow.iter().filter_map(|allow| match allow {
            Allow::Program(program) => Some(program),
            Allow::Peers(_) => None,
        })
    }

    /// Returns the first address that other machines could reach, unless that is allowed.
    fn forbidden<'a>(&self, addresses: &'a [Address]) -> Option<&'a Address> {
        let is_remote = |address: &&Address| !is_local(address);

        let mut addresses = addresses.iter();
        addresses.find(|address| !self.allow_remote_without_authentication && is_remote(address))
    }

    pub(super) fn serve(
        self,
        server: BoundServer,
        config: &Config,
        execution: Execution,
    ) -> io::Result<Statistics> {
        let commands = Commands::new(self.settings(), config)?;
        let served = execution.serve(server, commands.clone());
        commands.end();
        log::info!(target: TARGET, "{}", commands.tally());
        served
    }

    fn settings(self) -> Settings {
        Settings {
            wire: self.wire.into(),
            allowed: self.programs().cloned().collect(),
            timeout: self.command_timeout.into(),
            kill_after: self.kill_after.into(),
            max_output: self.max_command_output.into(),
            max_running: self.max_commands.get(),
            max_waiting: self.max_waiting_commands,
            max_cpu_time: self.command_cpu_time.into(),
            max_file_size: usize::from(self.command_file_size) as u64,
            max_descriptors: self.command_descriptors,
            max_request: self.max_request.into(),
            grace_after_eof: self.grace_after_eof.into(),
        }
    }
}

/// The option `--wire`, with the help of each format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Wire {
    /// A length (4 bytes, big-endian) before each request and each reply
    #[default]
    Framed,
    /// The bare request, in one piece of data; a length (4 bytes, signed, little-endian) before its
    /// reply
    Struct,
    /// The bare request, in one piece of data; the reply's length in decimal digits, which the client
    /// answers with ready, and then the reply
    Ready,
}

impl From<Wire> for serveloop_command::Wire {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Framed => Self::Framed,
            Wire::Struct => Self::Struct,
            Wire::Ready => Self::Ready,
        }
    }
}

/// Finds a program of `--allow`, unless the text is a network or a file of networks. The words `unix` and
/// `vsock` are programs. The message is for clap, which names the option.
fn find(name: OsString) -> Result<Allow, String> {
    let text = name
        .to_str()
        .filter(|text| !matches!(*text, "unix" | "vsock"));
    if let Some(Ok(networks)) = text.map(Allow::parse) {
        return Ok(networks);
    }
    let found = Allowed::find(name).map_err(|error| error.problem().to_owned());
    found.map(Allow::Program)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        options: CommandOptions,
    }

    #[test]
    fn what_is_not_typed_is_as_the_crate_has_it() {
        let typed = Typed::parse_from(["command"]);
        assert_eq!(typed.options.settings(), Settings::default());
    }

    #[test]
    fn what_is_typed_becomes_a_setting() {
        let typed = "command --wire ready --allow ls --command-timeout 0 --kill-after 1s \
                     --max-command-output 2KiB --max-commands 3 --max-waiting-commands 4 \
                     --command-cpu-time 5s --command-file-size 6KiB --command-descriptors 7 \
                     --max-request 8KiB --grace-after-eof 9s";
        let typed = Typed::parse_from(typed.split_whitespace());
        let expected = Settings {
            wire: serveloop_command::Wire::Ready,
            allowed: vec![Allowed::find("ls").unwrap()],
            timeout: None,
            kill_after: Duration::from_secs(1),
            max_output: 2 << 10,
            max_running: 3,
            max_waiting: 4,
            max_cpu_time: Duration::from_secs(5),
            max_file_size: 6 << 10,
            max_descriptors: 7,
            max_request: 8 << 10,
            grace_after_eof: Duration::from_secs(9),
        };
        assert_eq!(typed.options.settings(), expected);
    }
}

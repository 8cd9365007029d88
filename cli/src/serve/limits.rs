//! A server's limits as command-line options, one for each field of [`Config`].

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Command, FromArgMatches};
use serveloop::Config;
use serveloop::net::{NetworkList, UdpOptions};

use crate::failure::Failure;
use crate::serving::{Need, make_room};
use crate::units::{Backlog, Group, KeepAlive, Mode, Size, Span, SystemBuffer, Timeout};

/// Makes an option of each field, with the library's default. `collect` builds a [`Config`] without
/// `..`, so a field that is missing here does not compile.
macro_rules! limits {
    (
        server { $($heading:literal { $($(#[$help:meta])* $field:ident: $value:ty, $name:literal;)* })* }
        connection { $($each_heading:literal { $($(#[$each_help:meta])* $each:ident: $each_value:ty, $each_name:literal;)* })* }
    ) => {
        #[derive(Args, Clone, Debug)]
        struct Values {
            $($(
                $(#[$help])*
                #[arg(
                    long,
                    global = true,
                    hide_short_help = true,
                    hide_long_help = true,
                    help_heading = $heading,
                    value_name = $name,
                    action = ArgAction::Set,
                    default_value_t = Config::default().$field.into()
                )]
                $field: $value,
            )*)*
            $($(
                $(#[$each_help])*
                #[arg(
                    long,
                    global = true,
                    hide_short_help = true,
                    hide_long_help = true,
                    help_heading = $each_heading,
                    value_name = $each_name,
                    action = ArgAction::Set,
                    default_value_t = Config::default().limits.$each.into()
                )]
                $each: $each_value,
            )*)*
        }

        impl Values {
            fn collect(self) -> Config {
                Config {
                    // `--trust` sets it, where the headers of proxies are read.
                    trusted_proxies: NetworkList::default(),
                    // These differ from socket to socket, and are in their URIs.
                    udp: UdpOptions::default(),
                    // Nothing that the command serves opens connections.
                    reserved_outbound: 0,
                    $($($field: self.$field.into(),)*)*
                    limits: serveloop::Limits {
                        $($($each: self.$each.into(),)*)*
                    },
                }
            }
        }

        impl Limits {
            const FIELDS: &[&str] = &[
                $($(stringify!($field),)*)*
                $($(stringify!($each),)*)*
            ];
        }
    };
}

limits! {
    server {
        "Connections" {
            /// The most open connections; one more is accepted and closed at once
            max_connections: usize, "NUMBER";
            /// The most open connections from one IPv4 address or IPv6 network (/64)
            max_per_peer: usize, "NUMBER";
            /// Apply limits on single peers to loopback addresses and Unix sockets too. Without it, one
            /// forged datagram can make two echo servers on this machine answer each other without end
            limit_loopback: bool, "BOOL";
            /// The most processes at a time with --model forking; further connections wait
            max_children: usize, "NUMBER";
            /// How many descriptors to keep free for purposes other than connections
            reserved_descriptors: usize, "NUMBER";
            /// Raise the process's soft limit of open descriptors to its hard limit
            raise_descriptor_limit: bool, "BOOL";
            /// How long a listener pauses when the system has no descriptor or memory left
            accept_pause: Span, "DURATION";
        }
        "Budgets per turn" {
            /// The most connections to accept from one listener in one turn of the loop
            accepts_per_turn: usize, "NUMBER";
            /// The most bytes to read from one connection in one turn, at most 128 KiB at once
            read_per_turn: Size, "SIZE";
            /// The most bytes to write to one connection in one turn, after each read
            write_per_turn: Size, "SIZE";
            /// The most messages to take from one connection in one turn
            messages_per_turn: usize, "NUMBER";
            /// The most connections that go on with their TLS handshake in one turn
            handshakes_per_turn: usize, "NUMBER";
            /// The most datagrams to answer on one socket in one turn
            datagrams_per_turn: usize, "NUMBER";
            /// The most deadlines to act on in one turn
            timeouts_per_turn: usize, "NUMBER";
            /// A turn that takes longer is counted and logged as a warning; 0: never
            slow_turn: Timeout, "DURATION";
            /// How long to poll again and again before sleeping, as long as that pays off; 0: off
            busy_poll: Timeout, "DURATION";
        }
        "Buffers and messages" {
            /// The most that all connections may buffer together; beyond it, the largest are ended
            max_buffered: Size, "SIZE";
        }
        "Datagrams" {
            /// A reply is at most this many times as long as the datagram it answers
            reply_factor: usize, "NUMBER";
            /// The most replies in a second to one IPv4 address or IPv6 network (/64)
            replies_per_second: usize, "NUMBER";
            /// Give each peer of a datagram socket a session, which gets all its datagrams and can answer
            /// at any time, until it is idle for too long. Only with --model event-loop
            sessions: bool, "BOOL";
            /// The most sessions of datagrams. New peers beyond half of it get a single answer each
            max_sessions: usize, "NUMBER";
        }
        "Deadlines" {
            /// How long an outbound connection may take to be established; 0: no limit
            connect_timeout: Timeout, "DURATION";
            /// How long a shutdown waits before it ends the connections still open; 0: no limit
            drain_timeout: Timeout, "DURATION";
            /// How long after it was accepted a connection still gets to send its first message when the
            /// server shuts down; 0: no time
            drain_grace: Span, "DURATION";
        }
        "Sockets" {
            /// The most connections that the system queues for one listener before they are accepted
            backlog: Backlog, "NUMBER";
            /// Bind a TCP port even while its earlier connections linger (SO_REUSEADDR)
            reuse_address: bool, "BOOL";
            /// Share a port with other sockets that set this option too (SO_REUSEPORT)
            reuse_port: bool, "BOOL";
            /// Accept IPv4 clients too at the address [::]. The address tcp://:PORT always does
            dual_stack: bool, "BOOL";
            /// How long a TCP connection may be silent before the system probes whether its peer is still
            /// there, at most 32767s; 0: no probes. A dead peer is found after about twice this time
            keepalive: KeepAlive, "DURATION";
            /// The permissions of the file of a Unix socket: who may connect
            socket_mode: Mode, "OCTAL";
            /// The group of the file of a Unix socket, by name or number; -: as the system chooses
            socket_group: Group, "GROUP";
            /// Send small writes at once (TCP_NODELAY)
            nodelay: bool, "BOOL";
            /// Size of the system's send buffer for each socket (SO_SNDBUF)
            send_buffer: SystemBuffer, "SIZE";
            /// Size of the system's receive buffer for each socket (SO_RCVBUF)
            receive_buffer: SystemBuffer, "SIZE";
        }
    }
    connection {
        "Buffers and messages" {
            /// Stop reading from a peer when this much output waits for it
            high_water: Size, "SIZE";
            /// Resume reading when the waiting output has fallen to this
            low_water: Size, "SIZE";
            /// End a connection when more output than this waits for its peer, and still more comes
            max_output: Size, "SIZE";
            /// The most output that one message may add, such as a long reply, up to --max-buffered
            max_reply: Size, "SIZE";
            /// The most that may wait for a connection from others, such as messages of a chat. If it is
            /// not given, 8MiB for chat and websocket --room, and 32MiB for resp, but at most an eighth of
            /// --max-buffered
            max_posted: Size, "SIZE";
            /// The longest message, and the most input to keep while a message is incomplete
            max_frame: Size, "SIZE";
            /// The longest line in a protocol of lines
            max_line: Size, "SIZE";
        }
        "Deadlines" {
            /// How long the handshake of a layer such as TLS may take; 0: no limit
            handshake_timeout: Timeout, "DURATION";
            /// How long a connection may take to send its first complete message; 0: no limit
            first_message_timeout: Timeout, "DURATION";
            /// How long a later message may take from its first to its last byte; 0: no limit
            message_timeout: Timeout, "DURATION";
            /// How long a connection may be idle, without a byte in either direction; 0: no limit
            idle_timeout: Timeout, "DURATION";
            /// How long output may wait without the peer accepting any of it; 0: no limit
            write_timeout: Timeout, "DURATION";
            /// The fewest bytes in a second that a client must send while its message is incomplete, and
            /// must take while output waits for it; 0: no limit
            min_bytes_per_second: Size, "SIZE";
            /// The time over which --min-bytes-per-second is averaged
            min_rate_grace: Span, "DURATION";
            /// After we close first: how long a silent peer may take to close too; 0: do not wait
            linger_timeout: Timeout, "DURATION";
            /// The limit of that wait if the peer keeps sending
            linger_limit: Span, "DURATION";
            /// The limit of that wait while the server shuts down
            linger_draining: Span, "DURATION";
            /// The most input to discard during that wait before the connection is closed anyway
            linger_bytes: Size, "SIZE";
        }
    }
}

/// The limits, and which of them the user set.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    values: Values,
    /// The names of the fields that were set.
    given: Vec<&'static str>,
}

impl Limits {
    /// Returns the configuration that the options describe. Limits that were not set move to make
    /// room for those that were and for what the protocol `needs`.
    pub(crate) fn config(&self, needs: &[Need]) -> Result<Config, Failure> {
        let mut config = self.values.clone().collect();
        make_room(&mut config, &self.given, needs)
            .map_err(|problem| Failure::Usage(Self::by_options(&problem)))?;
        config
            .validate()
            .map_err(|error| Failure::Usage(Self::by_options(&error.to_string())))?;
        Ok(config)
    }

    /// Lets clients be silent, unless the user said how long they may be. Those whose machine has vanished
    /// are found by the system.
    pub(crate) fn allow_silence(&self, config: &mut Config) {
        let is_given = |name: &str| self.given.contains(&name);
        let patient = Config::trusted();
        if !is_given("first_message_timeout") {
            config.limits.first_message_timeout = patient.limits.first_message_timeout;
        }
        if !is_given("idle_timeout") {
            config.limits.idle_timeout = patient.limits.idle_timeout;
        }
        if !is_given("keepalive") {
            config.keepalive = patient.keepalive;
        }
    }

    /// Lets up to `bytes` wait for a client from others, unless the user said how many, but not so much
    /// that a few slow clients take all memory for buffers.
    pub(crate) fn let_posts_wait(&self, config: &mut Config, bytes: usize) {
        if !self.given.contains(&"max_posted") {
            let most = bytes.min(config.max_buffered / 8);
            config.limits.max_posted = config.limits.max_posted.max(most);
        }
    }

    fn given(matches: &ArgMatches) -> Vec<&'static str> {
        let is_given = |name: &&&str| {
            let source = matches.value_source(name);
            source.is_some_and(|source| source != ValueSource::DefaultValue)
        };
        Self::FIELDS.iter().filter(is_given).copied().collect()
    }

    /// Replaces the names of fields in a message with those of their options.
    fn by_options(message: &str) -> String {
        let words = message.split(' ').map(|word| {
            let is_field = Self::FIELDS.contains(&word) || word.contains('_');
            if is_field {
                format!("--{}", word.replace('_', "-"))
            } else {
                word.to_owned()
            }
        });

        words.collect::<Vec<_>>().join(" ")
    }
}

impl FromArgMatches for Limits {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            values: Values::from_arg_matches(matches)?,
            given: Self::given(matches),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.given.extend(Self::given(matches));
        self.values.update_from_arg_matches(matches)
    }
}

impl Args for Limits {
    fn augment_args(command: Command) -> Command {
        Values::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Values::augment_args_for_update(command)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Arg;

    use super::*;

    type Change = fn(&mut Config);

    /// Each option with a value other than its default, and its effect on the configuration.
    const OPTIONS: [(&str, &str, Change); 52] = [
        ("max-connections", "12000", |to| to.max_connections = 12_000),
        ("max-per-peer", "8", |to| to.max_per_peer = 8),
        ("limit-loopback", "true", |to| to.limit_loopback = true),
        ("max-children", "9", |to| to.max_children = 9),
        ("reserved-descriptors", "7", |to| {
            to.reserved_descriptors = 7
        }),
        ("raise-descriptor-limit", "false", |to| {
            to.raise_descriptor_limit = false
        }),
        ("accept-pause", "1s", |to| {
            to.accept_pause = Duration::from_secs(1)
        }),
        ("accepts-per-turn", "1", |to| to.accepts_per_turn = 1),
        ("read-per-turn", "1KiB", |to| to.read_per_turn = 1 << 10),
        ("write-per-turn", "2KiB", |to| to.write_per_turn = 2 << 10),
        ("messages-per-turn", "3", |to| to.messages_per_turn = 3),
        ("handshakes-per-turn", "2", |to| to.handshakes_per_turn = 2),
        ("datagrams-per-turn", "4", |to| to.datagrams_per_turn = 4),
        ("timeouts-per-turn", "5", |to| to.timeouts_per_turn = 5),
        ("slow-turn", "0", |to| to.slow_turn = None),
        ("busy-poll", "50us", |to| {
            to.busy_poll = Some(Duration::from_micros(50))
        }),
        ("high-water", "128KiB", |to| {
            to.limits.high_water = 128 << 10
        }),
        ("low-water", "0", |to| to.limits.low_water = 0),
        ("max-output", "2MiB", |to| to.limits.max_output = 2 << 20),
        ("max-reply", "2MiB", |to| to.limits.max_reply = 2 << 20),
        ("max-posted", "2MiB", |to| to.limits.max_posted = 2 << 20),
        ("max-buffered", "1GiB", |to| to.max_buffered = 1 << 30),
        ("max-frame", "3KiB", |to| to.limits.max_frame = 3 << 10),
        ("max-line", "100", |to| to.limits.max_line = 100),
        ("reply-factor", "3", |to| to.reply_factor = 3),
        ("replies-per-second", "10", |to| to.replies_per_second = 10),
        ("sessions", "true", |to| to.sessions = true),
        ("max-sessions", "20", |to| to.max_sessions = 20),
        ("connect-timeout", "0", |to| to.connect_timeout = None),
        ("handshake-timeout", "0", |to| {
            to.limits.handshake_timeout = None
        }),
        ("first-message-timeout", "0", |to| {
            to.limits.first_message_timeout = None
        }),
        ("message-timeout", "0", |to| {
            to.limits.message_timeout = None
        }),
        ("idle-timeout", "90s", |to| {
            to.limits.idle_timeout = Some(Duration::from_secs(90))
        }),
        ("write-timeout", "0", |to| to.limits.write_timeout = None),
        ("min-bytes-per-second", "1KiB", |to| {
            to.limits.min_bytes_per_second = 1 << 10
        }),
        ("min-rate-grace", "5s", |to| {
            to.limits.min_rate_grace = Duration::from_secs(5)
        }),
        ("linger-timeout", "0", |to| to.limits.linger_timeout = None),
        ("linger-limit", "0", |to| {
            to.limits.linger_limit = Duration::ZERO
        }),
        ("linger-draining", "1ms", |to| {
            to.limits.linger_draining = Duration::from_millis(1)
        }),
        ("linger-bytes", "1MiB", |to| {
            to.limits.linger_bytes = 1 << 20
        }),
        ("drain-timeout", "1h", |to| {
            to.drain_timeout = Some(Duration::from_secs(3_600))
        }),
        ("drain-grace", "0", |to| to.drain_grace = Duration::ZERO),
        ("backlog", "5", |to| to.backlog = 5),
        ("reuse-address", "false", |to| to.reuse_address = false),
        ("reuse-port", "true", |to| to.reuse_port = true),
        ("dual-stack", "true", |to| to.dual_stack = true),
        ("keepalive", "2m", |to| {
            to.keepalive = Some(Duration::from_secs(120))
        }),
        ("socket-mode", "0660", |to| to.socket_mode = 0o660),
        ("socket-group", "www", |to| {
            to.socket_group = Some("www".to_owned())
        }),
        ("nodelay", "false", |to| to.nodelay = false),
        ("send-buffer", "4KiB", |to| to.send_buffer = Some(4 << 10)),
        ("receive-buffer", "8KiB", |to| {
            to.receive_buffer = Some(8 << 10)
        }),
    ];

    fn command() -> Command {
        Limits::augment_args(Command::new("limits").no_binary_name(true))
    }

    fn parse(arguments: &[String]) -> Limits {
        let matches = command().try_get_matches_from(arguments).unwrap();
        Limits::from_arg_matches(&matches).unwrap()
    }

    /// Returns the names of the fields of `Config` and of its `Limits`, as `Debug` lists them.
    fn fields() -> Vec<String> {
        let config = Config::default();
        let mut names = names(&config);
        names.retain(|name| name != "limits");
        names.extend(self::names(&config.limits));
        names
    }

    fn names(fields: &impl std::fmt::Debug) -> Vec<String> {
        let shown = format!("{fields:#?}");
        let names = shown.lines().filter_map(|line| {
            let name = line.strip_prefix("    ")?.split_once(": ")?.0;
            (!name.starts_with(' ')).then(|| name.to_owned())
        });
        names.collect()
    }

    #[test]
    fn without_options_all_is_the_default() {
        assert_eq!(parse(&[]).config(&[]).unwrap(), Config::default());
    }

    #[test]
    fn what_waits_for_clients_from_others_is_a_part_of_all_that_waits() {
        const MIB: usize = 1 << 20;
        let most = |options: &[&str]| {
            let options: Vec<_> = options.iter().map(ToString::to_string).collect();
            let limits = parse(&options);
            let mut config = limits.config(&[]).unwrap();
            limits.let_posts_wait(&mut config, 32 * MIB);
            config.limits.max_posted
        };
        assert_eq!(most(&[]), 32 * MIB);
        assert_eq!(most(&["--max-posted=1MiB"]), MIB);
        assert_eq!(most(&["--max-buffered=64MiB"]), 8 * MIB);
        assert_eq!(most(&["--max-buffered=1GiB"]), 32 * MIB);
        let usual = Config::default().limits.max_posted;
        assert_eq!(most(&["--max-buffered=2MiB"]), usual);
    }

    #[test]
    fn every_field_has_an_option_and_every_option_is_tried() {
        let mut options: Vec<_> = OPTIONS.map(|(name, ..)| name.replace('-', "_")).into();
        let mut fields = fields();
        // The headers of proxies have options of their own, groups only those of a listener, and nothing
        // served opens connections.
        let others = ["trusted_proxies", "reserved_outbound"];
        fields.retain(|field| !others.contains(&&**field) && !field.starts_with("udp"));
        options.sort();
        fields.sort();
        assert_eq!(options, fields);
    }

    #[test]
    fn the_defaults_that_help_shows_are_the_defaults() {
        let shown = |option: &Arg| {
            let long = option.get_long().unwrap();
            let default = option.get_default_values()[0].to_str().unwrap();
            format!("--{long}={default}")
        };
        let arguments: Vec<_> = command().get_arguments().map(shown).collect();
        assert_eq!(arguments.len(), OPTIONS.len());
        assert_eq!(parse(&arguments).config(&[]).unwrap(), Config::default());

        // `help limits` shows them.
        let mut shown = command().mut_args(|option| option.hide_long_help(false));
        let help = shown.render_long_help().to_string();
        assert_eq!(help.matches("[default: ").count(), OPTIONS.len());
    }

    #[test]
    fn each_option_sets_its_field_and_no_other() {
        for (name, value, apply) in OPTIONS {
            let mut expected = Config::default();
            apply(&mut expected);
            assert_ne!(expected, Config::default(), "{name}");
            let limits = parse(&[format!("--{name}"), value.to_owned()]);
            assert_eq!(limits.config(&[]).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn limits_that_contradict_each_other_are_refused() {
        for (nonsense, said) in [
            (
                "--low-water=1MiB --high-water=1MiB",
                "--low-water must be less than --high-water (1048576), not 1048576",
            ),
            (
                "--max-connections=0",
                "--max-connections must be at least 1, not 0",
            ),
            (
                "--read-per-turn=2GiB",
                "--read-per-turn must be at most 1 GiB, not 2147483648",
            ),
            (
                "--max-buffered=256MiB --max-frame=512MiB",
                "--max-buffered must be at least --max-frame",
            ),
        ] {
            let options: Vec<_> = nonsense.split(' ').map(str::to_owned).collect();
            let limits = parse(&options);

            let Err(Failure::Usage(problem)) = limits.config(&[]) else {
                panic!("{nonsense} is taken");
            };
            assert_eq!(problem, said);
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_by_its_option() {
        for (option, value) in [
            ("max-connections", "0"),
            ("max-per-peer", "0"),
            ("max-children", "0"),
            ("accepts-per-turn", "0"),
            ("read-per-turn", "0"),
            ("write-per-turn", "0"),
            ("messages-per-turn", "0"),
            ("datagrams-per-turn", "0"),
            ("timeouts-per-turn", "0"),
            ("high-water", "0"),
            ("reply-factor", "0"),
            ("replies-per-second", "0"),
            ("accept-pause", "0"),
            ("read-per-turn", "2GiB"),
            ("low-water", "1GiB --high-water=1GiB"),
        ] {
            let arguments = format!("--{option}={value}");
            let options: Vec<_> = arguments.split(' ').map(str::to_owned).collect();

            let Err(Failure::Usage(problem)) = parse(&options).config(&[]) else {
                panic!("{arguments} is taken");
            };
            let named = format!("--{option} must be ");
            assert!(problem.starts_with(&named), "{problem}");
            assert!(!problem.contains('_'), "{problem}");
        }
    }
}

//! What clients and servers say to each other: an echo, a protocol, or texts of the user.

use std::io;

use clap::{Args, ValueEnum};
use serveloop_measure::{Exchange, Room, Width};

use crate::bench::unescaped::Unescaped;
use crate::outbound::host;

const USUAL_PATH: &str = "/";

/// The names of all that can be exchanged.
pub(crate) const NAMES: [&str; 7] = [
    "echo",
    "http",
    "resp",
    "websocket",
    "text",
    "length-prefix",
    "chat",
];

#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "What is exchanged")]
pub(crate) struct ExchangeOptions {
    /// What the clients speak [default: echo]
    #[arg(long, value_enum)]
    protocol: Option<Kind>,
    /// The path that http asks for, or that the handshake of websocket names [default: /]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// What to send, for any other protocol: a text in which \r, \n, \t, \\ and \xNN are single bytes
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    send: Option<Unescaped>,
    /// A reply ends with this text, which is written like --send
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    until: Option<Unescaped>,
    /// Requests and replies begin with their length, without the length itself, in this many bits; the
    /// most significant byte comes first. --send is what follows
    #[arg(long, value_name = "WIDTH", value_enum)]
    length_prefix: Option<Bits>,
    /// Measure how one message reaches many: one more client publishes, and each of the --connections is
    /// sent everything, by chat, or with --protocol websocket by serve websocket --room, or with
    /// --protocol resp by PUBLISH. Counts deliveries, and says what was lost or out of order
    #[arg(long)]
    subscribe: bool,
    /// Accept replies that differ from the first one, as long as they are complete
    #[arg(long)]
    any_reply: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Each message comes back as it was sent
    Echo,
    /// A GET, whose reply has a status from 200 to 299 and always the same body
    Http,
    /// PING, whose reply is PONG: what Redis speaks
    Resp,
    /// A text in a mask, which comes back as a text
    #[value(name = "websocket")]
    WebSocket,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bits {
    U8,
    U16,
    U32,
    U64,
}

/// What is exchanged, checked as far as that does not depend on a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spoken {
    words: Words,
    takes_any: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Words {
    #[default]
    Echo,
    Http(String),
    Resp,
    WebSocket(String),
    Until(Vec<u8>, Vec<u8>),
    Length(Vec<u8>, Width),
    /// One publishes for all.
    Chat,
    WebSocketRoom(String),
    RespChannel,
}

impl From<Bits> for Width {
    fn from(bits: Bits) -> Self {
        match bits {
            Bits::U8 => Self::U8,
            Bits::U16 => Self::U16,
            Bits::U32 => Self::U32,
            Bits::U64 => Self::U64,
        }
    }
}

impl ExchangeOptions {
    /// Returns what is exchanged.
    ///
    /// # Errors
    /// Fails if the options contradict each other.
    pub(crate) fn spoken(&self) -> Result<Spoken, String> {
        let spoken = Spoken {
            words: self.words()?,
            takes_any: self.any_reply,
        };
        let has_path = matches!(
            spoken.words,
            Words::Http(_) | Words::WebSocket(_) | Words::WebSocketRoom(_)
        );
        if self.path.is_some() && !has_path {
            return Err("--path needs --protocol http or websocket".to_owned());
        }
        let is_known = spoken.is_for_all()
            || matches!(
                spoken.words,
                Words::Echo | Words::Resp | Words::WebSocket(_)
            );
        if self.any_reply && is_known {
            return Err(
                "--any-reply needs --send or --protocol http: the reply of any other is known"
                    .to_owned(),
            );
        }
        // Whatever does not depend on the server is refused before it is looked up.
        spoken.exchange("", 1)?;
        Ok(spoken)
    }

    fn words(&self) -> Result<Words, String> {
        let path = || self.path.clone().unwrap_or_else(|| USUAL_PATH.to_owned());
        if self.subscribe {
            return self.room(path());
        }
        let Some(send) = self.send.clone() else {
            let needed = "needs --send: what is to be sent";
            return match (self.protocol, &self.until, self.length_prefix) {
                (_, Some(_), _) => Err(format!("--until {needed}")),
                (_, _, Some(_)) => Err(format!("--length-prefix {needed}")),
                (None | Some(Kind::Echo), ..) => Ok(Words::Echo),
                (Some(Kind::Http), ..) => Ok(Words::Http(path())),
                (Some(Kind::Resp), ..) => Ok(Words::Resp),
                (Some(Kind::WebSocket), ..) => Ok(Words::WebSocket(path())),
            };
        };

        if self.protocol.is_some() {
            return Err(
                "--send cannot be used with --protocol, which says what is sent".to_owned(),
            );
        }
        match (self.until.clone(), self.length_prefix) {
            (Some(until), None) => Ok(Words::Until(send.0, until.0)),
            (None, Some(bits)) => Ok(Words::Length(send.0, bits.into())),
            (Some(_), Some(_)) => {
                Err("--until cannot be used with --length-prefix: a reply has one end".to_owned())
            }
            (None, None) => {
                Err("--send needs --until or --length-prefix: where a reply ends".to_owned())
            }
        }
    }
}

impl ExchangeOptions {
    /// Returns what is said if one publishes for all.
    fn room(&self, path: String) -> Result<Words, String> {
        let option = match (&self.send, &self.until, self.length_prefix) {
            (Some(_), ..) => "--send",
            (_, Some(_), _) => "--until",
            (_, _, Some(_)) => "--length-prefix",
            _ => "",
        };
        if !option.is_empty() {
            return Err(format!(
                "--subscribe cannot be used with {option}: its messages have numbers"
            ));
        }
        match self.protocol {
            None => Ok(Words::Chat),
            Some(Kind::WebSocket) => Ok(Words::WebSocketRoom(path)),
            Some(Kind::Resp) => Ok(Words::RespChannel),
            Some(Kind::Echo | Kind::Http) => {
                Err("--subscribe is for chat, --protocol websocket and --protocol resp".to_owned())
            }
        }
    }
}

impl Spoken {
    /// Returns whether one publishes for all.
    pub(crate) fn is_for_all(&self) -> bool {
        matches!(
            self.words,
            Words::Chat | Words::WebSocketRoom(_) | Words::RespChannel
        )
    }

    /// Returns the options of a server of our own.
    pub(crate) fn server_options(&self) -> &'static [&'static str] {
        match self.words {
            Words::WebSocketRoom(_) => &["--room"],
            _ => &[],
        }
    }

    /// Returns where one publishes for all, on the server at `uri`, if that is what is measured.
    pub(crate) fn room_at(&self, uri: &str) -> Option<Room> {
        match &self.words {
            Words::Chat => Some(Room::Lines),
            Words::RespChannel => Some(Room::Resp),
            Words::WebSocketRoom(path) => Some(Room::WebSocket {
                host: name_of(uri).to_owned(),
                path: path.clone(),
            }),
            _ => None,
        }
    }

    /// Returns what the exchange is called in results.
    pub(crate) fn name(&self) -> &'static str {
        match self.words {
            Words::Echo => "echo",
            Words::Http(_) => "http",
            Words::Resp | Words::RespChannel => "resp",
            Words::WebSocket(_) | Words::WebSocketRoom(_) => "websocket",
            Words::Chat => "chat",
            Words::Until(..) => "text",
            Words::Length(..) => "length-prefix",
        }
    }

    /// Returns the protocol that a server of our own has to speak. An echo answers any text.
    pub(crate) fn server(&self) -> &'static str {
        match self.words {
            Words::Until(..) | Words::Length(..) => "echo",
            _ => self.name(),
        }
    }

    /// Returns how many bytes a request has, or `None` if that is for the user to say.
    pub(crate) fn size(&self) -> Option<usize> {
        match self.words {
            Words::Echo | Words::WebSocket(_) => None,
            _ if self.is_for_all() => None,
            _ => self.exchange("", 0).ok()?.map(|it| it.request().len()),
        }
    }

    /// Returns what is exchanged with the server at `uri`, in messages of `size` bytes if that is for
    /// the user to say. An echo is `None`.
    ///
    /// # Errors
    /// Fails if the request cannot be made.
    pub(crate) fn exchange(&self, uri: &str, size: usize) -> Result<Option<Exchange>, String> {
        let name = name_of(uri);
        let named = |option| move |problem| format!("{option}: {problem}");
        let exchange = match &self.words {
            Words::Echo | Words::Chat | Words::RespChannel => return Ok(None),
            Words::WebSocketRoom(path) => {
                Exchange::websocket(name, path, size).map_err(named("--path"))?;
                return Ok(None);
            }
            Words::Http(path) => Exchange::http(name, path).map_err(named("--path"))?,
            Words::Resp => Exchange::resp(),
            Words::WebSocket(path) => {
                Exchange::websocket(name, path, size).map_err(named("--path"))?
            }
            Words::Until(send, until) if send.is_empty() || until.is_empty() => {
                let option = if send.is_empty() { "--send" } else { "--until" };
                return Exchange::text(send.clone(), until)
                    .map(Some)
                    .map_err(named(option));
            }
            Words::Until(send, until) => Exchange::text(send.clone(), until)?,
            Words::Length(send, width) => {
                Exchange::length_prefixed(send, *width).map_err(named("--length-prefix"))?
            }
        };
        Ok(Some(match self.takes_any {
            true => exchange.allow_any_reply(),
            false => exchange,
        }))
    }

    /// Works like [`exchange`](Self::exchange), for a measurement that is under way.
    pub(crate) fn exchange_with(&self, uri: &str, size: usize) -> io::Result<Option<Exchange>> {
        let invalid = |problem| io::Error::new(io::ErrorKind::InvalidInput, problem);
        self.exchange(uri, size).map_err(invalid)
    }
}

/// Returns what requests call the server at `uri`.
fn name_of(uri: &str) -> &str {
    let place = ["tcp://", "tls://"];
    let place = place.iter().find_map(|scheme| uri.strip_prefix(scheme));
    // The zone of an address means something on this machine only.
    place.map_or("", |place| match place.contains('%') {
        true => host(place),
        false => place,
    })
}

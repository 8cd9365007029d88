//! A client and a server in memory, and what goes between them.

use serveloop::layer::Layered;
use serveloop::layer::tls::{ClientTls, ServerTls, Tls, TlsInfo};
use serveloop::testing::MemorySession;
use serveloop::{Address, CloseReason, Config, Peer, Protocol};

use crate::layer::tls::certificates;
use crate::support::probe::{Log, Probe};
use crate::support::timeless;

/// Makes the protocol of a connection.
pub(crate) type Build<P> = Box<dyn FnMut(&Peer, &TlsInfo) -> Option<P>>;

pub(crate) type Session<P> = MemorySession<Layered<Tls, Build<P>, P>>;

/// Two sessions whose bytes go from one to the other, in pieces of at most `cut` bytes.
pub(crate) struct Pair<C, S> {
    pub(crate) client: Session<C>,
    pub(crate) server: Session<S>,
    pub(crate) cut: usize,
    /// How much either side takes at a time, if that is not everything.
    pub(crate) slow: Option<usize>,
    /// What has gone over the wire, to the server and to the client.
    pub(crate) wire: [Vec<u8>; 2],
    ended: [bool; 2],
}

/// What the pair is made of.
pub(crate) struct Setup {
    pub(crate) client: ClientTls,
    pub(crate) server: ServerTls,
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    pub(crate) cut: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            client: certificates::client().build().unwrap(),
            server: certificates::server("localhost").build().unwrap(),
            name: "localhost",
            config: timeless(),
            cut: usize::MAX,
        }
    }
}

/// The peer of a session that nobody accepted.
fn outbound() -> Peer {
    let address: Address = "tcp://127.0.0.1:443".parse().unwrap();
    Peer::new(address, None)
}

pub(crate) fn session<P: Protocol>(
    tls: Tls,
    config: &Config,
    build: impl FnMut(&Peer, &TlsInfo) -> Option<P> + 'static,
) -> Session<P> {
    let build: Build<P> = Box::new(build);
    MemorySession::with_config(Layered::new(tls, build), config.clone())
}

impl Setup {
    /// Makes a pair of protocols, which exist from when the handshake is done.
    pub(crate) fn pair<C: Protocol, S: Protocol>(
        &self,
        client: impl FnMut(&Peer, &TlsInfo) -> Option<C> + 'static,
        server: impl FnMut(&Peer, &TlsInfo) -> Option<S> + 'static,
    ) -> Pair<C, S> {
        let tls = Tls::client(&self.client, self.name).unwrap();
        let build: Build<C> = Box::new(client);
        let layered = Layered::new(tls, build);
        Pair {
            client: MemorySession::with_peer(layered, self.config.clone(), outbound()),
            server: session(Tls::server(&self.server), &self.config, server),
            cut: self.cut,
            slow: None,
            wire: Default::default(),
            ended: [false; 2],
        }
    }

    /// Makes a pair that logs what the client and the server are called with.
    pub(crate) fn logged(&self) -> (Pair<Probe, Probe>, Log, Log) {
        let (client, server) = (Log::default(), Log::default());
        let logs = (client.clone(), server.clone());
        let pair = self.pair(
            move |_, _| Some(Probe::new(&client)),
            move |_, _| Some(Probe::new(&server)),
        );
        (pair, logs.0, logs.1)
    }
}

impl<C: Protocol, S: Protocol> Pair<C, S> {
    /// Lets the two talk until both are silent.
    pub(crate) fn talk(&mut self) {
        self.talk_through(|_, _| {});
    }

    /// Does the same, with something on the way that sees the bytes of each step first: those to
    /// the server (0) and those to the client (1).
    pub(crate) fn talk_through(&mut self, mut way: impl FnMut(&mut Vec<u8>, usize)) {
        while self.step(&mut way) {
            if let Some(slow) = self.slow {
                self.client.stop_taking();
                self.server.stop_taking();
                self.client.take(slow);
                self.server.take(slow);
            }
        }
    }

    /// Passes on what either has sent. Returns whether that was anything.
    fn step(&mut self, way: &mut impl FnMut(&mut Vec<u8>, usize)) -> bool {
        let mut to_server = self.client.sent();
        let mut to_client = self.server.sent();
        way(&mut to_server, 0);
        way(&mut to_client, 1);
        for piece in to_server.chunks(self.cut) {
            self.server.receive(piece);
        }
        for piece in to_client.chunks(self.cut) {
            self.client.receive(piece);
        }

        let over = |finished: bool, reason: Option<&CloseReason>| finished || reason.is_some();
        let ends = [
            over(self.client.is_finished(), self.client.reason()),
            over(self.server.is_finished(), self.server.reason()),
        ];
        let mut moved = !to_server.is_empty() || !to_client.is_empty();
        self.wire[0].extend(to_server);
        self.wire[1].extend(to_client);
        if !moved && ends[0] && !self.ended[0] {
            (self.ended[0], moved) = (true, true);
            self.server.receive_eof();
        }
        if !moved && ends[1] && !self.ended[1] {
            (self.ended[1], moved) = (true, true);
            self.client.receive_eof();
        }
        moved
    }

    /// The reasons for which the client's and the server's session ended.
    #[track_caller]
    pub(crate) fn reasons(&self) -> [String; 2] {
        let named =
            |reason: Option<&CloseReason>| reason.map_or("open".into(), |it| it.to_string());
        [named(self.client.reason()), named(self.server.reason())]
    }
}

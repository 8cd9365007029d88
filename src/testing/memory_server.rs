//! A whole server in memory, driven by a test.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::address::Address;
use crate::config::Config;
use crate::error::DeliveryError;
use crate::reactor::Reactor;
use crate::session::Factory;
use crate::statistics::Statistics;
use crate::testing::memory_net::{Answer, Client, MemoryNet, Seen};

/// A server in memory, with the real event loop and any number of clients. The clients are the test,
/// and time is virtual.
///
/// It shows what one [`MemorySession`](crate::testing::MemorySession) cannot: sessions that wake each
/// other, the hooks of a [`Factory`], refusals and limits per peer, and outbound connections. The loop
/// runs to rest in each call; after a wake from elsewhere call [`run`](Self::run).
///
/// ```
/// use serveloop::testing::MemoryServer;
/// use serveloop::{Actions, Factory, Peer, Protocol, Result, Transport, Waker};
/// use std::cell::RefCell;
/// use std::rc::Rc;
/// use std::time::{Duration, Instant};
///
/// /// What all are told, and who is there.
/// #[derive(Default)]
/// struct Room(String, Vec<Waker>);
///
/// /// Tells everybody what one says, and the time twice a minute.
/// struct Chat(Rc<RefCell<Room>>, Option<Instant>);
///
/// impl Factory for Chat {
///     type Protocol = Member;
///
///     fn build_protocol(&mut self, _: &Peer) -> Option<Member> {
///         Some(Member(Rc::clone(&self.0), 0))
///     }
///
///     fn started(&mut self, actions: &mut Actions<'_, Member>) {
///         self.1 = Some(actions.now() + Duration::from_secs(30));
///     }
///
///     fn poll_timeout(&self) -> Option<Instant> {
///         self.1
///     }
///
///     fn handle_timeout(&mut self, actions: &mut Actions<'_, Member>) {
///         self.1 = Some(actions.now() + Duration::from_secs(30));
///         say(&self.0, "half a minute has passed\n");
///     }
/// }
///
/// struct Member(Rc<RefCell<Room>>, usize);
///
/// fn say(room: &RefCell<Room>, text: &str) {
///     let mut room = room.borrow_mut();
///     room.0.push_str(text);
///     room.1.iter().for_each(Waker::wake);
/// }
///
/// impl Protocol for Member {
///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
///         self.1 = self.0.borrow().0.len();
///         self.0.borrow_mut().1.push(transport.waker());
///         Ok(())
///     }
///
///     fn data_received(&mut self, data: &[u8], _: &mut Transport<'_>) -> Result<usize> {
///         say(&self.0, &String::from_utf8_lossy(data));
///         Ok(data.len())
///     }
///
///     fn woken(&mut self, transport: &mut Transport<'_>) {
///         let room = self.0.borrow();
///         transport.write(room.0[self.1..].as_bytes());
///         self.1 = room.0.len();
///     }
/// }
///
/// let mut server = MemoryServer::new(Chat(Rc::default(), None));
/// let [ann, ben] = [server.connect(), server.connect()];
/// server.send(ann, b"hello\n");
/// assert_eq!(server.received(ben), b"hello\n");
/// server.advance(Duration::from_secs(30));
/// assert_eq!(server.received(ann), b"hello\nhalf a minute has passed\n");
/// ```
pub struct MemoryServer<F: Factory> {
    reactor: Reactor<F, MemoryNet>,
    next_port: u16,
}

/// How many turns a server may need to come to rest.
const TURNS_MOST: usize = 1_000_000;

impl<F: Factory> MemoryServer<F> {
    /// Starts a server with the default limits and one TCP listener, whose number is 0.
    pub fn new(factory: F) -> Self {
        Self::with_config(factory, Config::default())
    }

    /// Starts a server like [`new`](Self::new), with the limits in `config`.
    ///
    /// # Panics
    /// Panics if the configuration is invalid.
    #[track_caller]
    pub fn with_config(factory: F, config: Config) -> Self {
        let net = MemoryNet::new(Instant::now());
        let mut reactor = match Reactor::with_net(net, factory, config) {
            Ok(reactor) => reactor,
            Err(error) => panic!("{error}"),
        };
        let at = Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 9999)));
        if let Err(error) = reactor.listen(&at) {
            panic!("{error}");
        }

        let mut this = Self {
            reactor,
            next_port: 10_000,
        };
        this.run();
        this
    }

    /// Connects a client from this machine. See [`connect_from`](Self::connect_from).
    pub fn connect(&mut self) -> Client {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, self.next_port));
        self.next_port = self.next_port.checked_add(1).unwrap_or(10_000);
        self.connect_from(Address::Tcp(addr))
    }

    /// Connects a client with this address. If the server refuses it, it has been
    /// [reset or has an end](Self::seen) at once.
    pub fn connect_from(&mut self, address: Address) -> Client {
        let client = self.reactor.net().knock(address);
        self.run();
        client
    }

    /// Sends `data` from a client; from the far end of an outbound session, as one datagram.
    pub fn send(&mut self, client: Client, data: &[u8]) {
        self.reactor.net().send_up(client, data);
        self.run();
    }

    /// Ends a client's stream. It still receives.
    pub fn finish(&mut self, client: Client) {
        self.reactor.net().end_up(client);
        self.run();
    }

    /// Resets a client's connection.
    pub fn reset(&mut self, client: Client) {
        self.reactor.net().break_up(client);
        self.run();
    }

    /// Returns what a client has received since the last call.
    pub fn received(&mut self, client: Client) -> Vec<u8> {
        self.reactor.net().take_down(client)
    }

    /// Returns the datagrams that the far end of an outbound session has received since the last call.
    ///
    /// ```
    /// use serveloop::testing::MemoryServer;
    /// use serveloop::net::DeliveryError;
    /// use serveloop::{Actions, Factory, Peer, Protocol, Result, Transport};
    /// use std::io::{Error, ErrorKind};
    ///
    /// /// Asks for the time, and again if no clock is there.
    /// struct Asking;
    ///
    /// impl Protocol for Asking {
    ///     fn connection_made(&mut self, transport: &mut Transport<'_>) -> Result {
    ///         transport.write(b"time?");
    ///         Ok(())
    ///     }
    ///
    ///     fn data_received(&mut self, data: &[u8], transport: &mut Transport<'_>) -> Result<usize> {
    ///         transport.close();
    ///         Ok(data.len())
    ///     }
    ///
    ///     fn datagram_undelivered(&mut self, _: &DeliveryError, transport: &mut Transport<'_>) {
    ///         transport.write(b"time?");
    ///     }
    /// }
    ///
    /// struct Clocks;
    ///
    /// impl Factory for Clocks {
    ///     type Protocol = Asking;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Asking> {
    ///         None
    ///     }
    ///
    ///     fn started(&mut self, actions: &mut Actions<'_, Asking>) {
    ///         actions.connect("udp://192.0.2.1:123".parse().expect("an address"), Asking);
    ///     }
    /// }
    ///
    /// let mut server = MemoryServer::new(Clocks);
    /// let (_, clock) = server.next_outbound().expect("it asks");
    /// assert_eq!(server.received_datagrams(clock), [b"time?"]);
    /// server.fail_datagram(clock, DeliveryError::Reported(Error::from(ErrorKind::ConnectionRefused)));
    /// assert_eq!(server.received_datagrams(clock), [b"time?"]);
    /// server.send(clock, b"half past six");
    /// assert_eq!(server.statistics().closed(), 1);
    /// ```
    pub fn received_datagrams(&mut self, client: Client) -> Vec<Vec<u8>> {
        self.reactor.net().take_datagrams(client)
    }

    /// Reports to an outbound session that a datagram to this far end did not arrive. Does nothing for a
    /// stream.
    pub fn fail_datagram(&mut self, client: Client, error: DeliveryError) {
        self.reactor.net().report(client, error);
        self.run();
    }

    /// Returns how a client has seen its connection end.
    pub fn seen(&mut self, client: Client) -> Seen {
        self.reactor.net().seen(client)
    }

    /// Stops a client from taking output, until [`take`](Self::take).
    pub fn stop_taking(&mut self, client: Client) {
        self.reactor.net().set_window(client, 0);
    }

    /// Lets a client take up to `count` bytes of output; `usize::MAX` is all from now on.
    pub fn take(&mut self, client: Client, count: usize) {
        self.reactor.net().set_window(client, count);
        self.run();
    }

    /// Makes the server's attempts to connect to `address` fail from now on, and those that wait for an
    /// answer: they are refused. By default all are accepted.
    pub fn refuse(&mut self, address: Address) {
        self.reactor.net().set_answer(address, Answer::Refuses);
        self.run();
    }

    /// Leaves the server's attempts to connect to `address` without an answer from now on, so that they
    /// end at `connect_timeout`.
    pub fn ignore(&mut self, address: Address) {
        self.reactor.net().set_answer(address, Answer::Ignores);
    }

    /// Accepts the server's attempts to connect to `address` again, after [`refuse`](Self::refuse) or
    /// [`ignore`](Self::ignore), and those that wait for an answer.
    pub fn accept(&mut self, address: Address) {
        self.reactor.net().set_answer(address, Answer::Accepts);
        self.run();
    }

    /// Gives a host addresses: `name` is the URI that a [`Target`](crate::net::Target) has, such as
    /// `tcp://example.org:80`. By default no name has any.
    ///
    /// ```
    /// use serveloop::net::Target;
    /// use serveloop::testing::MemoryServer;
    /// use serveloop::{Actions, Factory, Peer, protocols::Echo};
    ///
    /// /// Is a client of another echo server from the start.
    /// struct Client(Option<Target>);
    ///
    /// impl Factory for Client {
    ///     type Protocol = Echo;
    ///
    ///     fn build_protocol(&mut self, _: &Peer) -> Option<Echo> {
    ///         Some(Echo)
    ///     }
    ///
    ///     fn service_actions(&mut self, actions: &mut Actions<'_, Echo>) {
    ///         if let Some(target) = self.0.take() {
    ///             actions.connect_to(target, Echo);
    ///         }
    ///     }
    /// }
    ///
    /// let mut server = MemoryServer::new(Client(None));
    /// server.name("tcp://echo.example:7", vec!["tcp://192.0.2.1:7".parse()?]);
    /// server.factory().0 = Some("tcp://echo.example:7".parse()?);
    /// server.run();
    ///
    /// let (address, far) = server.next_outbound().expect("it has connected");
    /// assert_eq!(address.to_string(), "tcp://192.0.2.1:7");
    /// server.send(far, b"hello");
    /// assert_eq!(server.received(far), b"hello");
    /// # Ok::<(), serveloop::net::AddressError>(())
    /// ```
    pub fn name(&mut self, name: &str, addresses: Vec<Address>) {
        self.reactor.net().set_name(name, Some(addresses));
        self.run();
    }

    /// Leaves lookups of `name` without an answer from now on, until [`name`](Self::name) gives it
    /// addresses.
    pub fn delay_name(&mut self, name: &str) {
        self.reactor.net().set_name(name, None);
    }

    /// Returns the next connection that the server has opened and that this has not returned before:
    /// the address, and the far end.
    pub fn next_outbound(&mut self) -> Option<(Address, Client)> {
        self.reactor.net().next_outbound()
    }

    /// Advances the clock by `by`. Each deadline on the way is handled at its own time.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now() + by;
        self.run();
        while let Some(due) = self.due().filter(|due| *due <= end) {
            self.reactor.net().set_now(due);
            self.run();
        }
        self.reactor.net().set_now(end);
        self.run();
    }

    /// Returns when the loop would next act by itself.
    fn due(&mut self) -> Option<Instant> {
        let wait = self.reactor.timeout()?;
        self.now().checked_add(wait)
    }

    /// Returns the current virtual time.
    pub fn now(&mut self) -> Instant {
        self.reactor.net().time()
    }

    /// Asks the server to shut down. The second call ends everything at once.
    pub fn shutdown(&mut self) {
        self.reactor.shutdown();
        self.run();
    }

    /// Returns whether the server has been shut down, or has nothing left to do.
    pub fn is_finished(&self) -> bool {
        self.reactor.is_finished()
    }

    /// Returns how many connections are open, including those that wait for their peer to close.
    pub fn connections(&self) -> usize {
        self.reactor.connections()
    }

    /// Returns the counters.
    pub fn statistics(&self) -> &Statistics {
        self.reactor.statistics()
    }

    /// Returns the factory.
    pub fn factory(&mut self) -> &mut F {
        self.reactor.factory()
    }

    /// Runs the loop until it needs time to pass or a client to act. Every other call does this too.
    ///
    /// # Panics
    /// Panics if the loop fails, or does not come to rest.
    #[track_caller]
    pub fn run(&mut self) {
        for _ in 0..TURNS_MOST {
            if let Err(error) = self.reactor.turn(Some(Duration::ZERO)) {
                panic!("the loop failed: {error}");
            }
            let has_work = self.reactor.timeout() == Some(Duration::ZERO);
            if !has_work && !self.reactor.net().has_events() {
                return;
            }
        }
        panic!("the server does not come to rest");
    }
}

impl<F: Factory> fmt::Debug for MemoryServer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryServer")
            .field("reactor", &self.reactor)
            .finish_non_exhaustive()
    }
}

//! The table of the hooks of a factory and the models, in the documentation of `Factory`: each of its
//! cells that another test does not show.

use std::io::{ErrorKind, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serveloop::protocols::Echo;
use serveloop::{Actions, Address, Factory, Peer, Server, ShutdownHandle, Statistics, Waker};
use socket2::Socket;

use crate::support::model_server::{End, Model, bind, connect, read_to};
use crate::support::{PATIENCE, echoes, millis, timeless};

/// What the factory does when it is woken next.
#[derive(Clone, Debug)]
enum Order {
    List,
    End(u64),
    Abort(u64),
    Connect(Address),
    Shutdown,
}

/// What it tells of: its hooks, and what it has listed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Started,
    Ticked,
    Woken,
    Listed(Vec<u64>),
}

/// Does what it is told when it is woken, on each of its loops.
#[derive(Clone)]
struct Obeying {
    tell: Sender<Told>,
    wakers: Arc<Mutex<Vec<Waker>>>,
    orders: Arc<Mutex<Option<Order>>>,
    ids: Arc<Mutex<Vec<u64>>>,
    tick: Option<Instant>,
    needs_loop: bool,
}

impl Obeying {
    fn new(tell: Sender<Told>) -> Self {
        Self {
            tell,
            wakers: Arc::default(),
            orders: Arc::default(),
            ids: Arc::default(),
            tick: None,
            needs_loop: false,
        }
    }
}

impl Factory for Obeying {
    type Protocol = Echo;

    fn build_protocol(&mut self, peer: &Peer) -> Option<Echo> {
        self.ids.lock().unwrap().push(peer.id());
        Some(Echo)
    }

    fn needs_loop(&self) -> bool {
        self.needs_loop
    }

    fn started(&mut self, actions: &mut Actions<'_, Echo>) {
        self.wakers.lock().unwrap().push(actions.waker());
        self.tick = Some(actions.now() + millis(5));
        self.tell.send(Told::Started).unwrap();
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.tick
    }

    fn handle_timeout(&mut self, _: &mut Actions<'_, Echo>) {
        self.tick = None;
        self.tell.send(Told::Ticked).unwrap();
    }

    fn woken(&mut self, actions: &mut Actions<'_, Echo>) {
        let order = self.orders.lock().unwrap().clone();
        match order {
            None => {}
            Some(Order::List) => {
                let open = actions.connections();
                let ids = open
                    .filter(|it| it.age() < PATIENCE && format!("{:?}", it.protocol()) == "Echo");
                let listed = Told::Listed(ids.map(|it| it.id()).collect());
                self.tell.send(listed).unwrap();
            }
            Some(Order::End(id)) => actions.end(id),
            Some(Order::Abort(id)) => actions.abort(id),
            Some(Order::Connect(to)) => actions.connect(to, Echo),
            Some(Order::Shutdown) => actions.shutdown(),
        }
        self.tell.send(Told::Woken).unwrap();
    }
}

struct Run {
    model: Model,
    at: Address,
    factory: Obeying,
    told: Receiver<Told>,
    handle: ShutdownHandle,
    thread: Option<JoinHandle<std::io::Result<Statistics>>>,
}

impl Run {
    fn new(model: Model) -> Self {
        let (tell, told) = mpsc::channel();
        let factory = Obeying::new(tell);
        let server = bind(model, &["tcp://127.0.0.1:0"], timeless());
        let (at, handle) = (server.addresses()[0].clone(), server.shutdown_handle());
        let served = factory.clone();
        let run = Self {
            model,
            at,
            factory,
            told,
            handle,
            thread: Some(thread::spawn(move || model.serve(server, served))),
        };
        let expected = [
            vec![Told::Started; run.loops()],
            vec![Told::Ticked; run.loops()],
        ];
        let mut told = run.hear(2 * run.loops());
        told.sort_by_key(|told| *told == Told::Ticked);
        assert_eq!(told, expected.concat(), "{model:?}");
        run
    }

    fn loops(&self) -> usize {
        if self.model == Model::Workers { 2 } else { 1 }
    }

    #[track_caller]
    fn hear(&self, count: usize) -> Vec<Told> {
        let hear = || self.told.recv_timeout(PATIENCE).expect("it tells");
        std::iter::repeat_with(hear).take(count).collect()
    }

    /// Has an order obeyed on every loop, and returns what is listed there.
    #[track_caller]
    fn order(&self, order: Order) -> Vec<u64> {
        let count = match order {
            Order::List => 2 * self.loops(),
            // The others may end before they are woken.
            Order::Shutdown => 1,
            _ => self.loops(),
        };
        *self.factory.orders.lock().unwrap() = Some(order);
        self.factory
            .wakers
            .lock()
            .unwrap()
            .iter()
            .for_each(Waker::wake);
        let told = self.hear(count);
        let listed = told.into_iter().filter_map(|told| match told {
            Told::Listed(ids) => Some(ids),
            _ => None,
        });
        let mut ids: Vec<_> = listed.flatten().collect();
        ids.sort_unstable();
        ids
    }

    /// A client that is served, and the number of its connection.
    fn client(&self) -> (Socket, u64) {
        let mut stream = connect(&self.at);
        echoes(&mut stream, b"hello");
        let ids = self.factory.ids.lock().unwrap();
        (stream, *ids.last().unwrap())
    }

    fn has_all(&self) -> bool {
        matches!(self.model, Model::EventLoop | Model::Workers)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.handle.abort();
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

#[test]
fn a_factory_is_started_ticks_and_is_woken_in_every_model() {
    for model in Model::ALL {
        let mut run = Run::new(model);
        run.order(Order::Shutdown);
        let outcome = run.thread.take().unwrap().join().unwrap();
        assert_eq!(outcome.unwrap().accepted, 0, "{model:?}");
    }
}

#[test]
fn a_factory_lists_what_its_loop_serves() {
    for model in Model::CONCURRENT {
        let run = Run::new(model);
        let clients = [run.client(), run.client(), run.client()];
        let all: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
        let expected = if run.has_all() { all } else { Vec::new() };
        assert_eq!(run.order(Order::List), expected, "{model:?}");
    }
}

/// Outbound connections are the loop's in every model.
#[test]
fn a_factory_lists_outbound_connections_in_every_model() {
    for model in Model::ALL {
        let run = Run::new(model);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = Address::Tcp(listener.local_addr().unwrap());
        run.order(Order::Connect(to));
        let (mut stream, _) = listener.accept().unwrap();
        echoes(&mut stream, b"hello");
        // Each loop has one, of which the last may still be on its way.
        let is_all = |ids: &Vec<u64>| ids.len() == run.loops();
        let mut lists = std::iter::repeat_with(|| run.order(Order::List)).take(10_000);
        let listed = lists.find(is_all).expect("all are listed");

        for id in listed {
            run.order(Order::Abort(id));
        }
        assert_eq!(run.order(Order::List), [0; 0], "{model:?}");
    }
}

#[test]
fn a_factory_ends_connections_by_their_numbers() {
    for model in Model::CONCURRENT {
        let run = Run::new(model);
        let (mut ended, end) = run.client();
        let (mut aborted, abort) = run.client();
        let (mut other, _) = run.client();
        run.order(Order::End(end));
        run.order(Order::Abort(abort));
        run.order(Order::Abort(u64::MAX));
        if run.has_all() {
            assert_eq!(read_to(&mut ended), (Vec::new(), End::Eof), "{model:?}");
            assert_eq!(read_to(&mut aborted), (Vec::new(), End::Reset), "{model:?}");
        } else {
            echoes(&mut ended, b"not the loop's");
            echoes(&mut aborted, b"not the loop's");
        }
        echoes(&mut other, b"still here");
    }
}

/// What has been sent before is answered, and what waits is sent.
#[test]
fn a_connection_that_is_ended_gets_its_answers() {
    let run = Run::new(Model::EventLoop);
    let (mut stream, id) = run.client();
    let long = vec![b'x'; 1 << 16];
    stream.write_all(&long).unwrap();
    run.order(Order::End(id));
    // A second time, and then the whole server.
    run.order(Order::End(id));
    run.handle.shutdown();
    assert_eq!(read_to(&mut stream), (long, End::Eof));
}

#[test]
fn a_model_without_the_connections_is_refused_at_the_start() {
    let (tell, _told) = mpsc::channel();
    let factory = Obeying {
        needs_loop: true,
        ..Obeying::new(tell)
    };
    let bound = || Server::bind(&["tcp://127.0.0.1:0".parse().unwrap()], timeless()).unwrap();
    let serves: [fn(Server, Obeying) -> std::io::Result<Statistics>; 3] = [
        |server, factory| server.with(factory).serve_sequential(),
        |server, factory| server.with(factory).serve_threading(),
        |server, factory| server.with(factory).serve_forking(),
    ];
    for serve in serves {
        let error = serve(bound(), factory.clone()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(
            error
                .to_string()
                .contains("needs its connections on the loop"),
            "{error}"
        );
    }

    let server = bound();
    server.shutdown_handle().shutdown();
    server.with(factory.clone()).serve_forever().unwrap();
    let server = bind(Model::Workers, &["tcp://127.0.0.1:0"], timeless());
    server.shutdown_handle().shutdown();
    server.with(factory).serve_workers(2).unwrap();
}

//! What the service manager gave this process: sockets, and whom to notify; and what a process gave that
//! this one replaces.

use std::io;

use serveloop::Listen;
use serveloop::net::ListenOptions;
use serveloop::service::activation::{self, Inherited};
use serveloop::service::notify::{self, Notifier};

use crate::failure::Failure;
use crate::logger::TARGET;
use crate::restart::{Former, Program, Word};
use crate::sys;

/// The sockets and the notifier of a service manager.
#[derive(Debug)]
pub(crate) struct Manager {
    sockets: Vec<Inherited>,
    /// Sockets that were open at the start, with the numbers that they had then.
    opened: Vec<(i32, Inherited)>,
    notifier: io::Result<Option<Notifier>>,
    former: io::Result<Option<Former>>,
    program: Program,
    view: View,
}

/// How much of the world shows where a server is to listen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum View {
    /// This process serves.
    Whole,
    /// Another process serves, and what is passed is passed to that one.
    Elsewhere,
    /// The same, and there is no time to look names up.
    AtOnce,
}

impl Manager {
    /// Takes what the environment describes. Call this at the start of `main`: nothing may be opened
    /// before it, and no thread may run.
    pub(crate) fn take() -> Self {
        let program = Program::of_this_process();
        Self {
            sockets: activation::take(),
            opened: Vec::new(),
            notifier: notify::take(),
            former: Former::take(),
            program,
            view: View::Whole,
        }
    }

    /// Returns the manager of another process, of which nothing is known.
    pub(super) fn elsewhere() -> Self {
        Self::unknown(View::Elsewhere)
    }

    /// Works like [`elsewhere`](Self::elsewhere) where others wait: looking up a name may take many
    /// seconds.
    pub(super) fn at_once() -> Self {
        Self::unknown(View::AtOnce)
    }

    fn unknown(view: View) -> Self {
        Self {
            sockets: Vec::new(),
            opened: Vec::new(),
            notifier: Ok(None),
            former: Ok(None),
            program: Program::of_this_process(),
            view,
        }
    }

    /// Returns whether sockets are passed to another process than this one.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.view != View::Whole
    }

    /// Returns whether there is time to look names up.
    pub(super) fn looks_names_up(&self) -> bool {
        self.view != View::AtOnce
    }

    /// Returns the program of this process.
    pub(super) fn program(&self) -> Program {
        self.program.clone()
    }

    /// Returns what is said to the process that this one replaces, if there is one.
    ///
    /// # Errors
    /// Fails if what it hands on is not there.
    pub(super) fn word(&mut self) -> Result<Option<Word>, Failure> {
        match &mut self.former {
            Ok(former) => Ok(former.as_ref().map(Former::word).transpose()?),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string()).into()),
        }
    }

    /// Returns whether the former process listened at this URI, and its sockets are not taken yet.
    pub(super) fn has_handed_on(&self, uri: &str) -> bool {
        let former = self.former.as_ref().ok().and_then(Option::as_ref);
        former.is_some_and(|former| former.has(uri))
    }

    /// Returns the sockets of each place of a URI that the former process listened at.
    pub(super) fn handed_on(&mut self, uri: &str) -> Vec<Vec<&Inherited>> {
        let former = self.former.as_mut().ok().and_then(Option::as_mut);
        former.map_or_else(Vec::new, |former| former.named(uri))
    }

    /// Returns listeners on the sockets that the former process had at this URI, with the options of its
    /// query.
    ///
    /// # Errors
    /// The options make no sense, or do not fit.
    pub(super) fn inherit(&mut self, uri: &str) -> io::Result<Vec<Listen>> {
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let mut all = Vec::new();
        // Each address of a name is a place of its own here.
        while self.has_handed_on(uri) {
            let (options, _) = ListenOptions::parse_query(query, &[])?;
            for socket in self.handed_on(uri).into_iter().flatten() {
                all.push(socket.listen_with(options.clone())?);
            }
        }
        Ok(all)
    }

    /// Returns whether it passed a descriptor, to this process or to the former one. `uri` is that of all
    /// of them.
    pub(super) fn has_sockets(&self, uri: &str) -> bool {
        !self.sockets.is_empty() || self.has_handed_on(uri)
    }

    /// Returns the passed sockets with this name, or all of them if it is empty.
    ///
    /// # Errors
    /// Fails if there is none, or if one is listened on already.
    pub(super) fn named(&self, uri: &str, name: &str) -> Result<Vec<&Inherited>, Failure> {
        let named = activation::named(&self.sockets, name);
        let named = named.map_err(|error| about(uri, &error))?;
        named
            .iter()
            .try_for_each(|socket| check_unused(uri, socket))?;
        Ok(named)
    }

    /// Returns the socket with this number, which is passed by the manager or was open at the start.
    ///
    /// # Errors
    /// Fails if it cannot be served, or is listened on already.
    pub(super) fn numbered(&mut self, uri: &str, number: i32) -> Result<&Inherited, Failure> {
        let passed = self.sockets.iter().position(|it| it.number() == number);
        if let Some(passed) = passed {
            check_unused(uri, &self.sockets[passed])?;
            return Ok(&self.sockets[passed]);
        }

        // What is taken is copied, and the copy has another number, which was free at the start.
        let mut opened = self.opened.iter();
        if let Some((_, socket)) = opened.find(|(it, _)| *it == number) {
            return Err(is_used(uri, number, socket));
        }
        if self.opened.iter().any(|(_, copy)| copy.number() == number) {
            let error = io::Error::other(format!("descriptor {number} is not open"));
            return Err(about(uri, &error));
        }
        let socket = sys::take_socket(number).map_err(|error| about(uri, &error))?;
        self.opened.push((number, socket));
        Ok(&self.opened[self.opened.len() - 1].1)
    }

    /// Warns of sockets that are not listened on, and gives up all of them. The listeners have their
    /// own descriptors by now.
    ///
    /// # Errors
    /// Returns what is wrong with the address of the manager.
    pub(super) fn into_notifier(self) -> io::Result<Option<Notifier>> {
        if let Ok(Some(former)) = &self.former {
            former.say_unused();
        }
        if let Some(unused) = activation::unused(&self.sockets) {
            log::warn!(
                target: TARGET, "passed descriptors (LISTEN_FDS) are not served, and their clients \
                 wait without a reply: {unused}; --listen systemd://NAME or fd://N serves them"
            );
        }
        self.notifier
    }
}

fn check_unused(uri: &str, socket: &Inherited) -> Result<(), Failure> {
    match socket.is_used() {
        true => Err(is_used(uri, socket.number(), socket)),
        false => Ok(()),
    }
}

/// Says that a socket with this number at the start has a listener.
fn is_used(uri: &str, number: i32, socket: &Inherited) -> Failure {
    let shown = socket.to_string();
    let what = shown.split_once(' ').map_or("", |(_, what)| what);
    Failure::Usage(format!(
        "{uri:?}: descriptor {number} {what}, which is listened on already"
    ))
}

fn about(uri: &str, error: &io::Error) -> Failure {
    Failure::System(io::Error::new(error.kind(), format!("{uri}: {error}")))
}

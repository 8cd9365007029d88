//! The new process: what the old one hands on to it, and the word that it serves.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serveloop::net::OpenSockets;
use serveloop::service::activation::Inherited;

use crate::escaped::on_one_line;
use crate::logger::TARGET;
use crate::restart::manifest::{
    FAILED, GO_ON, HandedSocket, Manifest, READY, Served, VARIABLE, without_query,
};
use crate::sys;

/// How long to wait for the old process to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The process that this one replaces, if it does.
#[derive(Debug)]
pub(crate) struct Former {
    control: UnixStream,
    uris: Vec<FormerUri>,
}

/// The listeners of one `--listen` of the old process.
#[derive(Debug)]
struct FormerUri {
    number: usize,
    text: String,
    places: Vec<Place>,
    is_taken: bool,
}

#[derive(Debug)]
struct Place {
    number: usize,
    /// By their numbers.
    listeners: Vec<(usize, Inherited)>,
}

impl Former {
    /// Takes over what the environment describes. Returns `None` if this process replaces no other.
    /// Call this at the start of `main`: nothing may be opened before it, and no thread may run.
    ///
    /// # Errors
    /// What is described is not there.
    pub(crate) fn take() -> io::Result<Option<Self>> {
        let Some(text) = sys::take_variable(VARIABLE) else {
            return Ok(None);
        };
        let bad = |error: io::Error| {
            let problem = format!("cannot go on for a former process ({VARIABLE}): {error}");
            io::Error::new(error.kind(), problem)
        };
        let taken = || -> io::Result<Self> {
            let text = text.to_str().ok_or(io::ErrorKind::InvalidData)?;
            Self::of(serde_json::from_str(text)?)
        };
        taken().map(Some).map_err(bad)
    }

    fn of(manifest: Manifest) -> io::Result<Self> {
        let control = sys::take_descriptor(manifest.control)?.into();
        let mut uris: Vec<FormerUri> = Vec::new();
        let mut sockets = manifest.sockets.into_iter().peekable();
        while let Some(first) = sockets.next() {
            let mut all = vec![sys::take_descriptor(first.descriptor)?];
            while let Some(other) = sockets.next_if(|other| other.listener == first.listener) {
                all.push(sys::take_descriptor(other.descriptor)?);
            }
            let inherited = inherited(all, &first)?;
            place_of(&mut uris, &first)
                .listeners
                .push((first.listener, inherited));
        }
        Ok(Self { control, uris })
    }

    /// Returns whether the old process listened at this URI, and its sockets are not taken yet.
    pub(crate) fn has(&self, uri: &str) -> bool {
        self.find(uri).is_some()
    }

    fn find(&self, uri: &str) -> Option<usize> {
        let text = without_query(uri);
        let is_it = |it: &FormerUri| it.text == text && !it.is_taken;
        self.uris.iter().position(is_it)
    }

    /// Takes the sockets of each place of the next `--listen` with this URI, whatever its query was. The
    /// old process may have listened there several times. There are none if it did not.
    pub(crate) fn named(&mut self, uri: &str) -> Vec<Vec<&Inherited>> {
        let Some(found) = self.find(uri) else {
            return Vec::new();
        };
        self.uris[found].is_taken = true;
        let places = self.uris[found].places.iter();
        places.map(Place::sockets).collect()
    }

    /// Names the listeners of the old process that are not taken.
    pub(crate) fn say_unused(&self) {
        for unused in self.uris.iter().filter(|it| !it.is_taken) {
            log::info!(target: TARGET, "{} is not listened on any more", unused.text);
        }
    }

    /// Returns what is said to the old process.
    pub(crate) fn word(&self) -> io::Result<Word> {
        self.control.try_clone().map(Word)
    }
}

impl Place {
    fn sockets(&self) -> Vec<&Inherited> {
        self.listeners.iter().map(|(_, socket)| socket).collect()
    }
}

/// Returns the listener that these sockets are of.
fn inherited(sockets: Vec<OwnedFd>, first: &HandedSocket) -> io::Result<Inherited> {
    let file = first.file.as_deref().map(str::parse).transpose();
    let file = file.map_err(io::Error::other)?;
    let inherited = Inherited::handed_on(sockets, file)?;
    match inherited.address() {
        Some(_) => Ok(inherited),
        None => Err(io::Error::other(format!("descriptor {inherited}"))),
    }
}

/// Returns the place of a socket.
fn place_of<'a>(uris: &'a mut Vec<FormerUri>, socket: &HandedSocket) -> &'a mut Place {
    let name = &socket.place;
    let uri = uris.iter().position(|uri| uri.number == name.number);
    let uri = uri.unwrap_or_else(|| {
        uris.push(FormerUri {
            number: name.number,
            text: name.text.clone(),
            places: Vec::new(),
            is_taken: false,
        });
        uris.len() - 1
    });

    let places = &mut uris[uri].places;
    let place = places
        .iter()
        .position(|it| it.number == socket.place_number);
    let place = place.unwrap_or_else(|| {
        places.push(Place {
            number: socket.place_number,
            listeners: Vec::new(),
        });
        places.len() - 1
    });
    &mut places[place]
}

/// What the new process says to the old one.
#[derive(Debug)]
pub(crate) struct Word(UnixStream);

impl Word {
    /// Says why this process cannot serve.
    pub(crate) fn fail(mut self, problem: &str) {
        // The old process may be gone.
        let _ = writeln!(self.0, "{FAILED} {}", on_one_line(problem));
    }

    /// Says that every loop serves, and waits until the old process lets this one go on alone. Does
    /// so too if the old process is gone.
    ///
    /// The first of `open` are the sockets of the server. `served` says what else the old process has to
    /// know. Returns the stream that open connections come on, if any do.
    pub(super) fn ready<'a>(
        mut self,
        open: impl Iterator<Item = &'a OpenSockets>,
        mut served: Served,
    ) -> Option<UnixStream> {
        let lists: io::Result<Vec<_>> = open.map(OpenSockets::list).collect();
        let lists = lists.unwrap_or_else(|error| {
            log::warn!(target: TARGET, "the files of sockets are not taken over: {error}");
            Vec::new()
        });

        for socket in lists.first().into_iter().flatten() {
            if socket.listener() == served.addresses.len() {
                served.addresses.push(socket.address().to_string());
            }
        }
        let sockets: Vec<_> = lists.into_iter().flatten().collect();
        let files = sockets.iter().filter_map(|socket| socket.file());
        served.files.extend(files.map(|file| file.to_string()));

        let answer = self.ask(&served).unwrap_or_else(|error| {
            log::warn!(target: TARGET, "the former process does not answer: {error}");
            String::new()
        });
        sockets.iter().for_each(|socket| socket.own_file());
        log::info!(target: TARGET, "this process has taken over");
        (answer == GO_ON).then_some(self.0)
    }

    fn ask(&mut self, served: &Served) -> io::Result<String> {
        let text = serde_json::to_string(served)?;
        writeln!(self.0, "{READY} {text}")?;
        self.0.set_read_timeout(Some(PATIENCE))?;
        // Byte by byte: what follows the line is left where it is.
        let (mut line, mut byte) = (Vec::new(), [0]);
        while self.0.read_exact(&mut byte).is_ok() && byte != [b'\n'] {
            line.push(byte[0]);
        }
        self.0.set_read_timeout(None)?;
        String::from_utf8(line).map_err(io::Error::other)
    }
}

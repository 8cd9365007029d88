//! `serveloop top`: a running server on a terminal, once a second.
//!
//! This room imports `ctl`, for its client and its units, `monitoring`, and single files.

mod bell;
mod looks;
mod screen;
mod view;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::ctl::Client;
use crate::failure::Failure;
use crate::monitoring::By;
use crate::top::bell::bell;
use crate::top::looks::{Looks, Wish, look};
use crate::top::screen::{Event, Screen};
use crate::top::view::View;
use crate::units::Span;

/// The shortest time between two looks.
const EVERY_LEAST: Duration = Duration::from_millis(100);

/// Shows a running server on the terminal: traffic, how fast its loops turn, and its connections.
///
/// The server is one that `serveloop serve` started with --admin:
///
///   $ serveloop serve echo --admin unix:///tmp/echo-admin.sock
///   $ serveloop top --admin unix:///tmp/echo-admin.sock
///
/// The key o changes the order of the connections, and q ends it, also while the server does not answer. The
/// exit status after a signal is that of every client, such as 130 after Ctrl-C.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Top {
    /// The address that the server has as --admin: unix:///PATH or tcp://HOST:PORT
    #[arg(long, value_name = "URI")]
    admin: String,
    /// How often to look, at least every 100ms
    #[arg(long, value_name = "DURATION", default_value_t = Duration::from_secs(1).into())]
    every: Span,
    /// What comes first
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = By::Traffic)]
    by: By,
}

impl Top {
    /// Shows the server until the user or the server ends.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        let every = Duration::from(self.every);
        if every < EVERY_LEAST {
            let problem = "--every: at least 100ms, since each look asks every loop of the server";
            return Err(Failure::Usage(problem.to_owned()));
        }
        if !Screen::is_possible() {
            let problem =
                "top needs a terminal: for a script, use serveloop ctl --json ls or stats";
            return Err(Failure::System(io::Error::other(problem)));
        }

        let mut client = Client::connect(&self.admin)?;
        // What cannot be asked is said before the terminal changes.
        let mut view = View::new(self.by);
        view.take(look(&mut client, wish(&view, 1))?, Instant::now());

        let (bell, ear) = bell()?;
        let screen = Screen::open(&bell, ear)?;
        let mut looks = Looks::start(client, bell)?;
        let shown = show(&mut looks, &mut view, &screen, every);
        drop(screen);
        Ok(shown?)
    }
}

/// Looks and draws until the user wants no more. Returns the exit status.
fn show(
    looks: &mut Looks,
    view: &mut View,
    screen: &Screen,
    every: Duration,
) -> io::Result<ExitCode> {
    let (mut next, mut is_hurried) = (Instant::now(), false);
    loop {
        let left = next.saturating_duration_since(Instant::now());
        if left.is_zero() && !looks.is_waiting() {
            looks.begin(wish(view, screen.size().1));
            is_hurried = false;
        }

        let patience = (!looks.is_waiting()).then_some(left);
        let mut is_changed = false;
        for event in screen.wait(patience)? {
            match event {
                Event::Ended(status) => return Ok(status),
                Event::Order => view.change_order(),
                Event::Resized => {}
            }
            (is_changed, is_hurried) = (true, true);
        }

        if let Some(look) = looks.take()? {
            let now = Instant::now();
            view.take(look, now);
            (next, is_changed) = (now + every, true);
        }
        if is_hurried {
            next = Instant::now();
        }
        if is_changed {
            let (columns, rows) = screen.size();
            screen.draw(&view.lines(columns, rows))?;
        }
    }
}

/// Returns what to look at for a screen with this many rows.
fn wish(view: &View, rows: usize) -> Wish {
    Wish {
        by: view.order(),
        first: rows,
    }
}

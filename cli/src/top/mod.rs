//! `serveloop top`: a running server on a terminal, once a second.
//!
//! This room imports `ctl`, for its client and its units, `monitoring`, and single files.

mod screen;
mod view;

use std::io;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::ctl::Client;
use crate::failure::Failure;
use crate::monitoring::{By, Question, Selection};
use crate::top::screen::{Key, Screen};
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
/// The key o changes the order of the connections, and q ends it.
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
        look(&mut client, &mut view, 1)?;
        let screen = Screen::open()?;
        let shown = show(&mut client, &mut view, &screen, every);
        drop(screen);
        shown?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Looks and draws until the user wants no more.
fn show(client: &mut Client, view: &mut View, screen: &Screen, every: Duration) -> io::Result<()> {
    loop {
        let (columns, rows) = screen.size();
        look(client, view, rows)?;
        screen.draw(&view.lines(columns, rows))?;

        let next = Instant::now() + every;
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            match screen.key(left)? {
                Key::Quit => return Ok(()),
                Key::Order => {
                    view.change_order();
                    break;
                }
                Key::Resized => break,
                Key::Other => {}
            }
        }
    }
}

fn look(client: &mut Client, view: &mut View, rows: usize) -> io::Result<()> {
    let stats = client.ask(&Question::Stats)?;
    let selection = Selection {
        by: view.order(),
        first: Some(rows),
        ..Selection::default()
    };
    let list = client.ask(&Question::Ls(selection))?;
    view.take(stats, list, Instant::now());
    Ok(())
}

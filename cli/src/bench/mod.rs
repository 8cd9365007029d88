//! `serveloop bench`: measures how fast servers answer, and what it costs them.
//!
//! The crate `serveloop-measure` measures. This room holds what is asked of it and what is made of the
//! figures: the options and the plan, the command's own servers, and the results as a table, JSON and
//! a page. No other command imports this room.

mod chart;
mod comparison;
mod contender;
mod earlier;
mod interrupt;
mod options;
mod page;
mod plan;
mod results;
mod round;
mod server;
mod spoken;
mod table;
mod timeline;
mod trouble;
mod unescaped;

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;
use std::{env, io};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serveloop_measure::{Cores, Machine, Sample, Scenario, Tool, launch, turns};

use crate::bench::comparison::Comparison;
use crate::bench::contender::Contender;
use crate::bench::earlier::FORMAT;
use crate::bench::interrupt::Interrupt;
use crate::bench::options::Options;
use crate::bench::page::page;
use crate::bench::plan::Plan;
use crate::bench::results::{Method, Outcome, Results};
use crate::bench::round::Ground;
use crate::bench::table::table;
use crate::destination::Target;
use crate::escaped::on_one_line;
use crate::failure::Failure;
use crate::unblocked::print_in_full;

/// The file name that means standard output.
const DASH: &str = "-";

/// Measures how fast servers answer messages, and what that costs them.
///
/// Compare the models of serving on this machine. The servers are started on loopback, and ended
/// afterwards:
///
///   $ serveloop bench --compare event-loop,workers=2,threaded,forking,sequential --connections 1,100,1000
///
/// Measure any server that is already running and sends back what it receives:
///
///   $ serveloop serve echo --listen unix:///tmp/echo.sock
///   $ serveloop bench --target unix:///tmp/echo.sock --connections 1,100 --depth 1,16 --size 64,64KiB
///
/// Send at a steady rate, however slow the replies are. Times count from the moment at which a message
/// was due, so that a stall shows in all messages that it delays:
///
///   $ serveloop bench --compare event-loop,threaded --connections 100 --rate 20000
///
/// Open a connection for each message, or keep many idle connections open besides the active ones:
///
///   $ serveloop bench --churn --connections 100
///   $ serveloop bench --compare event-loop,threaded --connections 100 --idle 2000
///
/// Measure a server over TLS. Its certificate is checked as `connect` does it. With --churn, each
/// connection has a full handshake, or with --resume a short one that continues an earlier session. The
/// lines below the table say how many handshakes of each kind there really were, since a server need not
/// offer sessions:
///
///   $ serveloop bench --target tls://localhost:9443 --ca cert.pem --churn --connections 10 --resume
///
/// By default, servers have to send back what they receive. Measure servers of other protocols, our own
/// or any other: http sends a GET, resp the PING of Redis, websocket a text after its handshake.
///
///   $ serveloop bench --protocol http --compare event-loop,threaded
///   $ serveloop serve resp --listen unix:///tmp/resp.sock
///   $ serveloop bench --protocol resp --target unix:///tmp/resp.sock
///
/// --process adds the processor time and the memory of a target that is a process of this machine, for
/// example --process $(pidof redis-server).
///
/// For any other protocol say what to send, and where a reply ends: with a text, or after the length
/// that it begins with. \r, \n, \t, \\ and \xNN are single bytes. Every reply has to be the same as
/// the first one, unless --any-reply is given:
///
///   $ serveloop bench --target unix:///tmp/resp.sock --send 'PING\r\n' --until '+PONG\r\n'
///   $ serveloop bench --target unix:///tmp/resp.sock --send 'INCR n\r\n' --until '\r\n' --any-reply
///   $ serveloop bench --compare event-loop --send 'hello\x00' --length-prefix u32
///
/// With --subscribe one client publishes, and all --connections are sent everything: in a chat, in a room
/// of websocket, or in a channel of resp. Deliveries are counted, and those that are lost or out of order.
/// --depth is how many messages may be on their way to all, and --rate how many are published in a second:
///
///   $ serveloop bench --subscribe --compare event-loop,threaded --connections 100 --depth 4
///   $ serveloop bench --subscribe --protocol resp --target unix:///tmp/resp.sock --rate 200
///
/// Keep the results as data, and as a page with charts that can be published as it is:
///
///   $ serveloop bench --json results.json --report results.html
///
/// Compare with earlier results, now or later. Ratios are now to then, and a difference in throughput
/// counts only if it is at least 5 % and all rounds of one are beyond all rounds of the other. A file that
/// is no result, has another format, or has no server under the same load is refused (exit status 2)
/// before anything is measured:
///
///   $ serveloop bench --compare event-loop --json old.json
///   $ serveloop bench --compare event-loop --json new.json --compare-with old.json
///   $ serveloop bench --from new.json --compare-with old.json --report results.html
///
/// The servers and the load generator run on different cores if there are at least two. Servers take
/// turns, round by round. Every byte that comes back is compared with what was sent, or with what the
/// reply has to be. A wrong byte, a reply that is missing or that was not asked for, a connection that ends,
/// a server that sends nothing for --timeout, and a delivery that is lost or out of order are failures (exit
/// status 1).
///
/// For each server the table shows the medians of all rounds:
///
///   messages/s  the throughput, and how far the most distant round is from the median
///   ratio       the throughput compared with that of the first server
///   p50 ... max how long messages took; the maximum is that of all rounds
///   CPU each    the server's processor time for each message
///   per conn    the server's memory for each connection that was used once, without the memory of
///               the system
///   calls       the server's system calls for each message (--syscalls)
///
/// A failure, Ctrl-C, or any other signal that asks a program to end, ends the benchmark. Nothing is
/// lost: the table, the data and the page show what was measured until then, and why the rest was not.
/// Files are replaced as a whole at the end. A file that cannot be replaced, or that would lose its
/// owner, its access list, its extended attributes or another hard link, is overwritten instead.
///
/// --json writes an object with "command", "date", "machine", "method", "ended" (why it ended early, or
/// null) and "results", a list of objects: "server", "protocol" (echo, http, resp, websocket, text,
/// length-prefix), "load" (closed, open, churn), "connections", "idle", "size", "depth", "rate",
/// "skipped" (why it was not measured, or not in all rounds, or null) and "measured" (or null): "rounds"
/// (how many were measured), "per_second", "latency_microseconds" ("p50", "p90", "p99", "p99.9", "max"),
/// "handshakes_per_second" (with --churn over TLS: "full" and "resumed"),
/// "server_microseconds_per_message", "server_bytes_per_connection", "system_calls_per_message",
/// "generator_busy", "server_busy", "generator_waited" (fractions of the time, 0 to 1),
/// "generator_was_the_limit", "deliveries" (with --subscribe: "lost" and "reordered", of all rounds),
/// "rate_was_kept", and "timeline", twenty slices of each round ("round", "seconds" at its end,
/// "messages", "p50", "p99", "max").
/// Figures are objects with "median", "least" and "most"; unknown ones are null.
#[derive(Args, Debug)]
#[command(verbatim_doc_comment)]
pub(crate) struct Bench {
    #[command(flatten)]
    options: Options,
}

impl Bench {
    /// Measures everything. Returns the exit status.
    pub(crate) fn run(self) -> Result<ExitCode, Failure> {
        if let Some(launched) = &self.options.launch {
            return Err(launch::launch(launched, &self.options.server).into());
        }

        let earlier = self.options.compare_with.as_deref().map(Earlier::read);
        let earlier = earlier.transpose()?;
        if let Some(path) = &self.options.from {
            return self.show_kept(&earlier::read(path)?, earlier.as_ref());
        }

        let plan = Plan::new(&self.options)?;
        if let Some(earlier) = &earlier {
            let checked = comparison::check(&earlier.name, &plan.labels(), &earlier.results);
            checked.map_err(Failure::Usage)?;
        }
        self.check_files()?;

        let interrupt = Interrupt::catch()?;
        let outcome = self.measure(&plan, earlier.as_ref(), &interrupt);
        match (outcome, interrupt.exit_code()) {
            (Err(_), Some(status)) => Ok(status),
            (outcome, _) => outcome.map(|()| ExitCode::SUCCESS),
        }
    }

    /// Shows results that were measured earlier.
    fn show_kept(&self, results: &Results, earlier: Option<&Earlier>) -> Result<ExitCode, Failure> {
        let comparison = earlier.map(|earlier| earlier.compared(results)).transpose();
        let comparison = comparison.map_err(Failure::Usage)?;
        self.check_files()?;

        let interrupt = Interrupt::catch()?;
        let told = self.tell(results, comparison.as_ref(), None, &interrupt);
        let status = interrupt.exit_code().unwrap_or(ExitCode::SUCCESS);
        told.map(|()| status).map_err(Failure::from)
    }

    /// Checks the output files before anything is measured, so that an hour's results are not lost
    /// to a file that cannot be written.
    fn check_files(&self) -> Result<(), Failure> {
        let json = self.json_file().map(target_of).transpose()?;
        let report = self.report_file().map(target_of).transpose()?;
        let is_same = |json: &Target| report.as_ref().is_some_and(|it| it.is_same_file(json));
        match json.filter(is_same) {
            Some(json) => {
                let problem = format!("--json and --report name the same file, {json}");
                Err(Failure::Usage(problem))
            }
            None => Ok(()),
        }
    }

    fn measure(
        &self,
        plan: &Plan,
        earlier: Option<&Earlier>,
        interrupt: &Interrupt,
    ) -> Result<(), Failure> {
        let date = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        let cores = Cores::divide()?;

        let ground = Ground {
            plan,
            cores: &cores,
            interrupt,
        };

        let progress = progress(plan);
        let countable = plan.syscalls.then(|| Tool::Strace.works());
        let mut outcomes = Vec::new();
        let complete = measure_all(ground, countable == Some(true), &progress, &mut outcomes);
        progress.finish_and_clear();

        let results = Results {
            format: FORMAT,
            command: command_line(),
            date,
            machine: Machine::of_this(cores.count()),
            method: Method {
                rounds: plan.rounds,
                duration_seconds: plan.duration.as_secs_f64(),
                warm_up_seconds: plan.warm_up.as_secs_f64(),
                server_cores: cores.servers.clone(),
                generator_core: cores.generator,
                system_calls_counted: countable,
            },
            ended: complete.as_ref().err().map(|error| reason(ground, error)),
            results: outcomes,
        };

        // The plan has something in common with the earlier results, unless it ended before that.
        let comparison = earlier.and_then(|earlier| earlier.compared(&results).ok());
        let told = self.tell(&results, comparison.as_ref(), Some(&cores), interrupt);
        match (complete, told) {
            (Ok(()), told) => {
                told?;
                results.check_deliveries()
            }
            (Err(error), Ok(())) => Err(error.into()),
            (Err(error), Err(untold)) => {
                Failure::from(untold).report();
                Err(error.into())
            }
        }
    }

    /// Returns the file for the JSON results, unless they go to standard output.
    fn json_file(&self) -> Option<&Path> {
        let path = self.options.json.as_deref();
        path.filter(|path| *path != Path::new(DASH))
    }

    fn report_file(&self) -> Option<&Path> {
        self.options.report.as_deref()
    }

    /// Writes all results that can be written, even if some fail. Files come first, since standard
    /// output may wait for its reader.
    fn tell(
        &self,
        results: &Results,
        comparison: Option<&Comparison>,
        cores: Option<&Cores>,
        interrupt: &Interrupt,
    ) -> io::Result<()> {
        let json = serde_json::to_string_pretty(results)? + "\n";
        let page = self
            .report_file()
            .map(|path| (path, page(results, comparison)));
        let json_file = self.json_file().map(|path| (path, json.clone()));

        let files = json_file.into_iter().chain(page);
        let (regular, special): (Vec<_>, Vec<_>) =
            files.partition(|(path, _)| matches!(Target::of(path), Ok(Target::File(_))));
        let write = |(path, text): &(&Path, String)| {
            let written = target_of(path)?.write(text.as_bytes(), interrupt.leftover());
            written.map_err(|error| named(path, &error))
        };

        let written: Vec<_> = regular.iter().map(write).collect();
        interrupt.release();
        let special: Vec<_> = special.iter().map(write).collect();

        let shown = self.show(results, comparison, cores, &json);
        written.into_iter().chain(special).chain([shown]).collect()
    }

    fn show(
        &self,
        results: &Results,
        comparison: Option<&Comparison>,
        cores: Option<&Cores>,
        json: &str,
    ) -> io::Result<()> {
        if self.options.json.is_some() && self.json_file().is_none() {
            return print_in_full(json.as_bytes()).map(drop);
        }
        let is_empty = results.results.iter().all(|it| it.measured.is_none());
        if results.ended.is_some() && is_empty {
            return Ok(());
        }
        let cores = match cores {
            Some(cores) => cores.to_string(),
            None => format!("measured at {} on {}", results.date, results.machine),
        };
        let compared = comparison.map(|it| format!("\n{}", it.table()));
        let text = format!(
            "{cores}\n\n{}{}",
            table(results),
            compared.unwrap_or_default()
        );
        print_in_full(text.as_bytes()).map(drop)
    }
}

/// The results that others are compared with, and the name of their file.
struct Earlier {
    name: String,
    results: Results,
}

impl Earlier {
    fn read(path: &Path) -> Result<Self, Failure> {
        Ok(Self {
            name: on_one_line(&path.display().to_string()),
            results: earlier::read(path)?,
        })
    }

    fn compared(&self, now: &Results) -> Result<Comparison, String> {
        Comparison::new(self.name.clone(), now, &self.results)
    }
}

/// Resolves `path` to a target. Errors contain the path.
fn target_of(path: &Path) -> io::Result<Target> {
    Target::of(path).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Returns why the benchmark ended early, on one line.
fn reason(ground: Ground<'_>, error: &io::Error) -> String {
    let text = || error.to_string().lines().next().unwrap_or_default().into();
    ground.interrupt.reason().unwrap_or_else(text)
}

/// Measures everything until something fails. Afterwards `outcomes` has an entry for everything
/// that was planned, with the reason if it was not measured.
fn measure_all(
    ground: Ground<'_>,
    count: bool,
    progress: &ProgressBar,
    outcomes: &mut Vec<Outcome>,
) -> io::Result<()> {
    let mut complete = Ok(());
    for scenario in &ground.plan.scenarios {
        let mut samples = vec![Vec::new(); ground.plan.contenders.len()];
        if complete.is_ok() {
            complete = measure_scenario(ground, scenario, progress, &mut samples);
        }

        let outcome = |(contender, samples): (&Contender, &Vec<Sample>)| {
            Outcome::new(contender, scenario, samples)
        };
        let contenders = ground.plan.contenders.iter();
        let mut measured: Vec<_> = contenders.zip(&samples).map(outcome).collect();

        if complete.is_ok() && count {
            progress.set_message(format!("system calls, {scenario}"));
            complete = count_calls(ground, scenario, &mut measured);
        }

        if let Err(error) = &complete {
            let why = reason(ground, error);
            let rounds = ground.plan.rounds;
            measured.iter_mut().for_each(|it| it.end(rounds, &why));
        }
        outcomes.append(&mut measured);
    }
    complete
}

/// Measures every server once per round.
fn measure_scenario(
    ground: Ground<'_>,
    scenario: &Scenario,
    progress: &ProgressBar,
    samples: &mut [Vec<Sample>],
) -> io::Result<()> {
    let contenders = &ground.plan.contenders;
    for place in turns(ground.plan.rounds, contenders.len()) {
        let contender = &contenders[place];
        if contender.objection(scenario).is_some() {
            continue;
        }

        progress.set_message(format!("{contender}, {scenario}"));
        samples[place].push(ground.measure(contender, scenario)?);
        progress.inc(1);
    }
    Ok(())
}

fn count_calls(
    ground: Ground<'_>,
    scenario: &Scenario,
    outcomes: &mut [Outcome],
) -> io::Result<()> {
    for (contender, outcome) in ground.plan.contenders.iter().zip(outcomes) {
        if let (Contender::Model(model), Some(measured)) = (contender, &mut outcome.measured) {
            measured.system_calls_per_message = ground.count_calls(*model, scenario)?;
        }
    }
    Ok(())
}

/// Returns a progress bar, which is shown if standard error is a terminal. It is drawn only between
/// measurements.
fn progress(plan: &Plan) -> ProgressBar {
    let bar = ProgressBar::new(plan.measurements() as u64);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} (left: {eta}) {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Returns the command line as it was typed, as far as it can be reconstructed.
fn command_line() -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_=,.:/@%+".contains(letter);
    let quote = |argument: String| match argument.chars().all(plain) && !argument.is_empty() {
        true => argument,
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    };

    let arguments = env::args_os().skip(1);
    let arguments = arguments.map(|argument| quote(argument.to_string_lossy().into_owned()));
    let words: Vec<_> = ["serveloop".to_owned()]
        .into_iter()
        .chain(arguments)
        .collect();
    words.join(" ")
}

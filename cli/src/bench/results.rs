//! The results, in the form from which the table, the JSON and the page are made.

use std::io;

use serde::{Deserialize, Serialize};
use serveloop_measure::figure::bytes;
use serveloop_measure::{Audience, Figure, Machine, Moment, Pace, Sample, Scenario};

use crate::bench::contender::Contender;
use crate::bench::spoken::NAMES;
use crate::escaped::on_one_line;
use crate::failure::Failure;

use serveloop::protocols::counted;

/// The generator counts as busy from this fraction of its core's time.
const BUSY: f64 = 0.95;
/// The unit in which the system gives memory to processes, in bytes.
const PAGE: f64 = 4_096.0;
/// A server below this fraction of its cores' time had time to spare.
const HAS_TIME: f64 = 0.85;
/// An open loop below this fraction of its rate did not keep it.
const KEPT: f64 = 0.99;

/// All results, as `--json` writes them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    /// The version of the format. It changes when a field changes its meaning or is removed.
    pub(crate) format: u32,
    pub(crate) command: String,
    /// When the benchmark began, in UTC.
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) method: Method,
    /// Why the benchmark ended early, if it did.
    pub(crate) ended: Option<String>,
    /// One for each scenario and server, in the order in which they are shown.
    pub(crate) results: Vec<Outcome>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Method {
    pub(crate) rounds: usize,
    pub(crate) duration_seconds: f64,
    pub(crate) warm_up_seconds: f64,
    pub(crate) server_cores: Vec<usize>,
    pub(crate) generator_core: usize,
    /// Whether system calls were counted. It is `None` if they were not to be counted, and false if
    /// strace could not be run.
    pub(crate) system_calls_counted: Option<bool>,
}

/// The results of one server under one load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) server: String,
    /// What is exchanged, such as "echo".
    #[serde(default = "echo")]
    pub(crate) protocol: String,
    /// Whether one published for all.
    #[serde(default)]
    pub(crate) subscribe: bool,
    /// "closed", "open" or "churn".
    pub(crate) load: String,
    pub(crate) connections: usize,
    pub(crate) idle: usize,
    pub(crate) size: usize,
    pub(crate) depth: usize,
    /// The messages per second that an open loop asks for.
    pub(crate) rate: Option<u64>,
    /// Why it was not measured, or not in all rounds.
    pub(crate) skipped: Option<String>,
    pub(crate) measured: Option<Measured>,
    #[serde(skip)]
    pub(crate) scenario: Scenario,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// How many rounds the figures are based on.
    pub(crate) rounds: usize,
    /// Messages per second, or with churn, connections per second.
    pub(crate) per_second: Figure,
    pub(crate) latency_microseconds: Times,
    /// With churn over TLS, the handshakes of each kind, as they turned out.
    pub(crate) handshakes_per_second: Option<Handshakes>,
    pub(crate) server_microseconds_per_message: Option<Figure>,
    pub(crate) server_bytes_per_connection: Option<Figure>,
    pub(crate) system_calls_per_message: Option<f64>,
    /// The fractions that the generator and the server used of the time of the cores available to
    /// them.
    pub(crate) generator_busy: f64,
    pub(crate) server_busy: Option<f64>,
    /// The fraction of the time that the generator waited for its core because of other processes.
    pub(crate) generator_waited: f64,
    /// Whether the generator was the bottleneck, so that the server could have done more.
    pub(crate) generator_was_the_limit: bool,
    /// Whether an open loop kept its rate. It is `None` for other loads.
    pub(crate) rate_was_kept: Option<bool>,
    /// What became of messages for all, in all rounds, or `None` if there were none.
    #[serde(default)]
    pub(crate) deliveries: Option<Undelivered>,
    /// What came back over time. Results of earlier versions have none.
    #[serde(default)]
    pub(crate) timeline: Vec<Slice>,
}

/// A twentieth of a round.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Slice {
    /// Which round it belongs to, from 1.
    pub(crate) round: usize,
    #[serde(flatten)]
    pub(crate) moment: Moment,
}

/// Deliveries of messages for all that did not go well.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Undelivered {
    pub(crate) lost: u64,
    pub(crate) reordered: u64,
}

/// TLS handshakes per second.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Handshakes {
    pub(crate) full: Figure,
    pub(crate) resumed: Figure,
}

/// The percentiles over all rounds, and the longest time of any round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Times {
    pub(crate) p50: Figure,
    pub(crate) p90: Figure,
    pub(crate) p99: Figure,
    #[serde(rename = "p99.9")]
    pub(crate) p999: Figure,
    pub(crate) max: f64,
}

/// What results of versions without a choice are of.
fn echo() -> String {
    "echo".to_owned()
}

impl Outcome {
    /// Summarizes the rounds. Without samples, as for a server that cannot take the load, nothing
    /// is measured.
    pub(crate) fn new(contender: &Contender, scenario: &Scenario, samples: &[Sample]) -> Self {
        Self {
            server: contender.to_string(),
            protocol: scenario.protocol.to_owned(),
            subscribe: scenario.audience == Audience::All,
            load: scenario.pace.name().to_owned(),
            connections: scenario.connections,
            idle: scenario.idle,
            size: scenario.size,
            depth: scenario.depth,
            rate: scenario.pace.rate(),
            skipped: contender.objection(scenario).map(str::to_owned),
            measured: Measured::new(scenario, samples),
            scenario: *scenario,
        }
    }
}

impl Results {
    /// Fails if deliveries were lost, or out of order.
    pub(crate) fn check_deliveries(&self) -> Result<(), Failure> {
        let measured = self.results.iter().filter_map(|outcome| {
            let deliveries = outcome.measured.as_ref()?.deliveries?;
            Some((outcome, deliveries))
        });
        let mut bad = measured.filter(|(_, deliveries)| !deliveries.is_none());
        let Some((outcome, Undelivered { lost, reordered })) = bad.next() else {
            return Ok(());
        };
        let problem = format!(
            "{}, {}: {} lost, and {reordered} out of order",
            outcome.server,
            outcome.scenario,
            counted(lost, "delivery was", "deliveries were")
        );
        Err(io::Error::other(problem).into())
    }

    /// Escapes the texts, which may be anything in a file, for a terminal.
    pub(super) fn escape(&mut self) {
        let Machine {
            processor, system, ..
        } = &mut self.machine;
        let own = [&mut self.command, &mut self.date, processor, system];
        let outcomes = self.results.iter_mut().flat_map(|outcome| {
            let skipped = outcome.skipped.as_mut();
            skipped.into_iter().chain([&mut outcome.server])
        });
        for text in own.into_iter().chain(&mut self.ended).chain(outcomes) {
            *text = on_one_line(text);
        }
    }

    /// Makes the scenarios anew, which a file has in parts. Returns the server whose load is unknown, if
    /// there is one.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        for outcome in &mut self.results {
            let Some(pace) = Pace::named(&outcome.load, outcome.rate) else {
                return Err(format!(
                    "{}: unknown load {:?}",
                    outcome.server, outcome.load
                ));
            };
            let protocol = NAMES.into_iter().find(|name| *name == outcome.protocol);
            let Some(protocol) = protocol else {
                return Err(format!(
                    "{}: unknown protocol {:?}",
                    outcome.server, outcome.protocol
                ));
            };
            outcome.scenario = Scenario {
                pace,
                protocol,
                audience: match outcome.subscribe {
                    true => Audience::All,
                    false => Audience::Sender,
                },
                connections: outcome.connections,
                idle: outcome.idle,
                size: outcome.size,
                depth: outcome.depth,
                ..Scenario::default()
            };
        }
        Ok(())
    }
}

impl Outcome {
    /// Notes why the benchmark ended early, if rounds of this server are missing.
    pub(crate) fn end(&mut self, rounds: usize, why: &str) {
        let done = self.measured.as_ref().map_or(0, |measured| measured.rounds);
        if self.skipped.is_some() || done == rounds {
            return;
        }
        self.skipped = Some(match done {
            0 => why.to_owned(),
            _ => format!(
                "only {done} of {}: {why}",
                counted(rounds, "round", "rounds")
            ),
        });
    }

    /// Formats the memory per connection. The system counts whole pages, so with few connections it
    /// is only known that each takes less than its share of one page.
    pub(crate) fn memory(&self) -> Option<String> {
        let figure = self.measured.as_ref()?.server_bytes_per_connection?;
        let least = self.least_memory()?;
        if figure.median < least {
            return Some(format!("< {}", bytes(least)));
        }
        Some(bytes(figure.median))
    }

    /// Returns the memory per connection that was measured under this load, if it is known.
    pub(crate) fn known_memory(&self, measured: &Measured) -> Option<Figure> {
        let least = self.least_memory()?;
        let figure = measured.server_bytes_per_connection;
        figure.filter(|figure| figure.median >= least)
    }

    /// Returns the share of each connection in one page.
    fn least_memory(&self) -> Option<f64> {
        let others = self.scenario.total().checked_sub(1);
        let others = others.filter(|count| *count > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "at most 20,000 connections")]
        Some(PAGE / others as f64)
    }
}

impl Undelivered {
    /// Adds up all rounds. Returns `None` if nothing was for all.
    fn sum(samples: &[Sample]) -> Option<Self> {
        let each: Option<Vec<_>> = samples.iter().map(|sample| sample.deliveries).collect();
        let each = each?;
        Some(Self {
            lost: each.iter().map(|it| it.lost).sum(),
            reordered: each.iter().map(|it| it.reordered).sum(),
        })
    }

    pub(crate) fn is_none(self) -> bool {
        (self.lost, self.reordered) == (0, 0)
    }
}

impl Measured {
    fn new(scenario: &Scenario, samples: &[Sample]) -> Option<Self> {
        let figure = |value: fn(&Sample) -> f64| Figure::of(samples.iter().map(value));
        let known = |value: fn(&Sample) -> Option<f64>| {
            let values: Option<Vec<_>> = samples.iter().map(value).collect();
            Figure::of(values?)
        };

        let per_second = figure(|sample| sample.rate)?;
        let full = known(|sample| Some(sample.handshakes?.full));
        let resumed = known(|sample| Some(sample.handshakes?.resumed));
        let handshakes = full.zip(resumed);
        let generator_busy = figure(|sample| sample.generator_busy)?.median;
        let server_busy = known(|sample| sample.server_busy).map(|figure| figure.median);
        #[expect(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let asked = scenario.pace.rate().map(|rate| rate as f64);
        // What is published counts for each subscriber.
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let asked = asked.map(|asked| match scenario.audience {
            Audience::Sender => asked,
            Audience::All => asked * scenario.connections as f64,
        });

        let rate_was_kept = asked.map(|asked| per_second.median >= asked * KEPT);
        // An open loop spins until the next message is due, so it is always busy.
        let gave_all = generator_busy >= BUSY && rate_was_kept != Some(true);

        Some(Self {
            rounds: samples.len(),
            per_second,
            latency_microseconds: Times {
                p50: figure(|sample| sample.latency.p50)?,
                p90: figure(|sample| sample.latency.p90)?,
                p99: figure(|sample| sample.latency.p99)?,
                p999: figure(|sample| sample.latency.p999)?,
                max: figure(|sample| sample.latency.max)?.most,
            },
            handshakes_per_second: handshakes.map(|(full, resumed)| Handshakes { full, resumed }),
            server_microseconds_per_message: known(|sample| sample.processor),
            server_bytes_per_connection: known(|sample| sample.memory),
            system_calls_per_message: None,
            deliveries: Undelivered::sum(samples),
            generator_busy,
            server_busy,
            generator_waited: figure(|sample| sample.generator_waited)?.median,
            generator_was_the_limit: gave_all && server_busy.is_none_or(|busy| busy < HAS_TIME),
            rate_was_kept,
            timeline: timeline(samples),
        })
    }
}

/// Returns the slices of all rounds, one after the other.
fn timeline(samples: &[Sample]) -> Vec<Slice> {
    let rounds = samples.iter().enumerate();
    let slices = rounds.flat_map(|(place, sample)| {
        let round = place + 1;
        let moments = sample.timeline.iter();
        moments.map(move |&moment| Slice { round, moment })
    });
    slices.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serveloop_measure::{Latency, Pace};

    use crate::bench::contender::Model;

    pub(crate) fn scenario(pace: Pace, connections: usize) -> Scenario {
        Scenario {
            pace,
            connections,
            ..Scenario::default()
        }
    }

    pub(crate) fn sample(rate: f64) -> Sample {
        Sample {
            rate,
            latency: Latency {
                p50: 1e6 / rate,
                p90: 2e6 / rate,
                p99: 4e6 / rate,
                p999: 8e6 / rate,
                max: 9e6 / rate,
            },
            handshakes: None,
            processor: Some(2.0),
            user_share: Some(0.1),
            memory: Some(170.0),
            generator_busy: 0.5,
            generator_waited: 0.0,
            server_busy: Some(0.99),
            deliveries: None,
            timeline: vec![
                Moment {
                    seconds: 1.0,
                    messages: 100,
                    p50: Some(1e6 / rate),
                    p99: Some(4e6 / rate),
                    max: Some(9e6 / rate),
                },
                Moment {
                    seconds: 2.0,
                    ..Moment::default()
                },
            ],
        }
    }

    /// Results of two servers under two loads, of which one server can take only one.
    pub(crate) fn results() -> Results {
        let models = [(Model::EventLoop, 1e5), (Model::Sequential, 0.5e5)];
        let outcomes = [1, 100].map(|connections| {
            let load = scenario(Pace::Closed, connections);
            models.map(|(model, rate)| {
                let contender = Contender::Model(model);
                let samples = match contender.objection(&load) {
                    Some(_) => vec![],
                    None => vec![sample(rate)],
                };
                Outcome::new(&contender, &load, &samples)
            })
        });

        Results {
            format: 1,
            command: "serveloop bench --json '<file>'".to_owned(),
            date: "2026-01-02T03:04:05Z".to_owned(),
            machine: Machine {
                processor: "Some Processor".to_owned(),
                cores: 2,
                memory_bytes: Some(1 << 34),
                system: "Linux 6.1 x86_64".to_owned(),
            },
            method: Method {
                rounds: 1,
                duration_seconds: 2.0,
                warm_up_seconds: 0.4,
                server_cores: vec![0],
                generator_core: 1,
                system_calls_counted: None,
            },
            ended: None,
            results: outcomes.concat(),
        }
    }

    /// The help promises these names: names may be added, but none may change or be removed.
    #[test]
    fn the_names_of_the_json_stay() {
        let json = serde_json::to_value(results()).unwrap();
        for path in [
            "/format",
            "/command",
            "/date",
            "/machine/processor",
            "/machine/cores",
            "/machine/memory_bytes",
            "/machine/system",
            "/method/rounds",
            "/method/duration_seconds",
            "/method/warm_up_seconds",
            "/method/server_cores/0",
            "/method/generator_core",
            "/results/0/server",
            "/results/0/protocol",
            "/results/0/subscribe",
            "/results/0/load",
            "/results/0/connections",
            "/results/0/measured/rounds",
            "/results/0/idle",
            "/results/0/size",
            "/results/0/depth",
            "/results/0/measured/per_second/median",
            "/results/0/measured/per_second/least",
            "/results/0/measured/per_second/most",
            "/results/0/measured/latency_microseconds/p50/median",
            "/results/0/measured/latency_microseconds/p90/median",
            "/results/0/measured/latency_microseconds/p99/median",
            "/results/0/measured/latency_microseconds/p99.9/median",
            "/results/0/measured/latency_microseconds/max",
            "/results/0/measured/server_microseconds_per_message/median",
            "/results/0/measured/server_bytes_per_connection/median",
            "/results/0/measured/generator_busy",
            "/results/0/measured/server_busy",
            "/results/0/measured/generator_waited",
            "/results/0/measured/generator_was_the_limit",
            "/results/0/measured/timeline/0/round",
            "/results/0/measured/timeline/0/seconds",
            "/results/0/measured/timeline/0/messages",
            "/results/0/measured/timeline/0/p50",
            "/results/0/measured/timeline/0/p99",
            "/results/0/measured/timeline/0/max",
            "/results/3/skipped",
        ] {
            let found = json.pointer(path);
            assert!(found.is_some_and(|value| !value.is_null()), "{path}");
        }

        for path in [
            "/method/system_calls_counted",
            "/ended",
            "/results/0/rate",
            "/results/0/skipped",
            "/results/0/measured/system_calls_per_message",
            "/results/0/measured/rate_was_kept",
            "/results/3/measured",
        ] {
            assert_eq!(json.pointer(path), Some(&serde_json::Value::Null), "{path}");
        }
    }

    #[test]
    fn missing_rounds_are_told_with_the_reason() {
        let contender = Contender::Model(Model::EventLoop);
        let load = scenario(Pace::Closed, 1);
        let told = |rounds: usize| {
            let mut outcome = Outcome::new(&contender, &load, &vec![sample(1e5); rounds]);
            outcome.end(3, "ended by SIGINT");
            outcome.skipped
        };
        assert_eq!(told(0).as_deref(), Some("ended by SIGINT"));

        let partial = "only 2 of 3 rounds: ended by SIGINT";
        assert_eq!(told(2).as_deref(), Some(partial));
        assert_eq!(told(3), None);

        let mut unable = results().results[3].clone();
        unable.end(1, "ended by SIGINT");
        let reason = "serves one connection at a time";
        assert_eq!(unable.skipped.as_deref(), Some(reason));
    }

    #[test]
    fn medians_are_taken_of_each_figure_and_the_longest_time_of_all() {
        let samples = [sample(1e5), sample(3e5), sample(2e5)];
        let measured = Measured::new(&scenario(Pace::Closed, 100), &samples).unwrap();
        assert_eq!(measured.per_second.median, 2e5);
        assert_eq!(measured.latency_microseconds.p50.median, 5.0);
        assert_eq!(measured.latency_microseconds.max, 90.0);
        assert_eq!(measured.server_bytes_per_connection.unwrap().median, 170.0);
        assert!(!measured.generator_was_the_limit);
    }

    #[test]
    fn memory_below_a_page_is_not_told_apart() {
        let shown = |memory| {
            let sample = Sample {
                memory: Some(memory),
                ..sample(1e5)
            };
            let contender = Contender::Model(Model::EventLoop);
            let outcome = Outcome::new(&contender, &scenario(Pace::Closed, 101), &[sample]);
            outcome.memory().unwrap()
        };
        assert_eq!(shown(0.0), "< 41 B");
        assert_eq!(shown(170.0), "170 B");
    }

    #[test]
    fn what_is_missing_in_one_round_is_missing() {
        let without = Sample {
            processor: None,
            ..sample(1e5)
        };
        let samples = [sample(1e5), without];
        let measured = Measured::new(&scenario(Pace::Closed, 100), &samples).unwrap();
        assert_eq!(measured.server_microseconds_per_message, None);
    }

    #[test]
    fn a_busy_generator_before_a_server_with_time_left_is_the_limit() {
        let limit = |pace, rate, generator_busy, server_busy| {
            let sample = Sample {
                generator_busy,
                server_busy,
                ..sample(rate)
            };

            let measured = Measured::new(&scenario(pace, 1), &[sample]).unwrap();
            measured.generator_was_the_limit
        };
        assert!(limit(Pace::Closed, 1e5, 0.99, Some(0.6)));
        assert!(limit(Pace::Closed, 1e5, 0.99, None));
        assert!(!limit(Pace::Closed, 1e5, 0.99, Some(0.97)));
        assert!(!limit(Pace::Closed, 1e5, 0.7, Some(0.6)));
        assert!(!limit(Pace::Open(100_000), 1e5, 0.99, Some(0.6)));
        assert!(limit(Pace::Open(100_000), 0.5e5, 0.99, Some(0.6)));
    }

    #[test]
    fn an_open_loop_says_whether_its_rate_was_kept() {
        let kept = |pace| {
            let measured = Measured::new(&scenario(pace, 1), &[sample(1e5)]).unwrap();
            measured.rate_was_kept
        };
        assert_eq!(kept(Pace::Closed), None);
        assert_eq!(kept(Pace::Open(100_000)), Some(true));
        assert_eq!(kept(Pace::Open(110_000)), Some(false));
    }
}

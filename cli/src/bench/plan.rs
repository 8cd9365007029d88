//! The plan of a benchmark, checked before the first server starts.

use std::collections::BTreeSet;
use std::time::Duration;

use serveloop_measure::{Audience, Family, FanOut, Pace, Scenario, descriptors};

use crate::bench::comparison::label;
use crate::bench::contender::{Contender, Model, Target};
use crate::bench::options::Options;
use crate::bench::spoken::Spoken;
use crate::failure::Failure;
use crate::outbound::{Sessions, place_of_tls};
use crate::units::Size;

/// The models that are compared by default.
const USUAL: [Model; 3] = [Model::EventLoop, Model::Threaded, Model::Forking];
const USUAL_CONNECTIONS: [usize; 2] = [1, 100];
const USUAL_SIZE: usize = 64;

/// The most bytes in flight on one connection, and on all connections together.
const UNDER_WAY_MOST: usize = 16 << 20;
const ALL_UNDER_WAY_MOST: usize = 1 << 30;
const DEPTH_MOST: usize = 1_024;
const RATE_MOST: u64 = 10_000_000;
const ROUNDS_MOST: usize = 1_000;
const SHORTEST: Duration = Duration::from_millis(10);
/// The shortest patience, which is longer than the pauses in which nothing is sent.
const LEAST_PATIENCE: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3_600);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) contenders: Vec<Contender>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) spoken: Spoken,
    pub(crate) rounds: usize,
    /// How long one measurement takes, and how long the load runs before it.
    pub(crate) duration: Duration,
    pub(crate) warm_up: Duration,
    /// How long a server may send nothing before it counts as failed.
    pub(crate) patience: Duration,
    pub(crate) syscalls: bool,
}

impl Plan {
    /// # Errors
    /// Fails if the options make no sense, or need more descriptors than the process can have, or if
    /// the name of a target cannot be looked up within its timeout.
    pub(crate) fn new(options: &Options) -> Result<Self, Failure> {
        let mut plan = Self::collect(options).map_err(Failure::Usage)?;
        plan.contenders = contenders(options, &plan)?;
        descriptors::check(plan.connections_most()).map_err(Failure::Usage)?;
        plan.check_workers().map_err(Failure::Usage)?;
        Ok(plan)
    }

    fn check_workers(&self) -> Result<(), String> {
        for contender in &self.contenders {
            let Contender::Model(Model::Workers(count)) = contender else {
                continue;
            };
            self.scenarios.iter().try_for_each(|scenario| {
                let (listeners, most) = (scenario.listeners(), scenario.standing_most());
                let checked = descriptors::check_workers(count.get(), listeners, most);
                checked.map_err(|problem| format!("--compare {contender}: {problem}"))
            })?;
        }
        Ok(())
    }

    /// Returns the most connections that are open at a time.
    fn connections_most(&self) -> usize {
        let totals = self.scenarios.iter().map(Scenario::total);
        totals.max().unwrap_or(0)
    }

    /// Returns the total number of measurements.
    pub(crate) fn measurements(&self) -> usize {
        let possible = |scenario: &Scenario| {
            let able = |contender: &&Contender| contender.objection(scenario).is_none();
            self.contenders.iter().filter(able).count()
        };
        self.rounds * self.scenarios.iter().map(possible).sum::<usize>()
    }

    /// Returns the servers that will be measured, with their loads.
    pub(crate) fn labels(&self) -> BTreeSet<String> {
        let pairs = self.scenarios.iter().flat_map(|scenario| {
            let able = self.contenders.iter();
            let able = able.filter(|contender| contender.objection(scenario).is_none());
            able.map(move |contender| label(&contender.to_string(), scenario))
        });
        pairs.collect()
    }

    /// Collects all but the contenders.
    fn collect(options: &Options) -> Result<Self, String> {
        let spoken = options.exchange.spoken()?;
        let plan = Self {
            contenders: Vec::new(),
            scenarios: scenarios(options, &spoken)?,
            spoken,
            rounds: options.rounds,
            duration: options.duration.into(),
            warm_up: Duration::from(options.duration) / 5,
            patience: options.timeout.into(),
            syscalls: options.syscalls,
        };

        if !(1..=ROUNDS_MOST).contains(&plan.rounds) {
            return Err(format!("--rounds: expected 1 to {ROUNDS_MOST}"));
        }
        if !(SHORTEST..=LONGEST).contains(&plan.duration) {
            return Err("--duration: expected 10ms to 1h".to_owned());
        }
        if !(LEAST_PATIENCE..=LONGEST).contains(&plan.patience) {
            return Err("--timeout: expected 100ms to 1h".to_owned());
        }

        plan.scenarios.iter().try_for_each(check)?;
        Ok(plan)
    }
}

fn contenders(options: &Options, plan: &Plan) -> Result<Vec<Contender>, Failure> {
    let is_secured = |uri: &String| place_of_tls(uri).is_some();
    let given = options.tls.given().or(options.resume.then_some("--resume"));
    if let Some(option) = given.filter(|_| !options.target.iter().any(is_secured)) {
        let problem = format!("{option} is for servers that speak TLS: --target tls://HOST:PORT");
        return Err(Failure::Usage(problem));
    }
    let sessions = match options.resume {
        // Some connections end while others begin.
        true => Sessions::Resumed(2 * plan.connections_most()),
        false => Sessions::New,
    };

    let models = options.compare.iter().copied().map(Contender::Model);
    let mut contenders: Vec<_> = models.collect();
    if options.process.is_some() && (options.target.len(), options.compare.len()) != (1, 0) {
        let problem = "--process needs a single server, which is given as --target";
        return Err(Failure::Usage(problem.to_owned()));
    }
    for uri in &options.target {
        let mut target = Target::find(uri, plan.patience, &options.tls, sessions)?;
        target.process = options.process.map(process).transpose()?;
        plan.spoken
            .exchange(uri, USUAL_SIZE)
            .map_err(Failure::Usage)?;
        contenders.push(Contender::Target(target));
    }
    if contenders.is_empty() {
        contenders.extend(USUAL.map(Contender::Model));
    }

    for (place, contender) in contenders.iter().enumerate() {
        if contenders[..place].contains(contender) {
            return Err(Failure::Usage(format!("{contender} is given twice")));
        }
    }
    Ok(contenders)
}

/// Checks that there is a process of that number.
fn process(id: u32) -> Result<Family, Failure> {
    let family = Family {
        leader: id,
        forks: false,
    };
    // The system takes the number 0 for this process.
    match family.processor_time() {
        Some(_) if id > 0 => Ok(family),
        _ => {
            let problem =
                format!("--process {id}: there is no such process, or it cannot be measured");
            Err(Failure::Usage(problem))
        }
    }
}

fn scenarios(options: &Options, spoken: &Spoken) -> Result<Vec<Scenario>, String> {
    let pace = pace(options)?;
    if spoken.is_for_all() {
        check_subscribers(options, pace)?;
    }
    let sizes = match (spoken.size(), &options.size[..]) {
        (None, []) => vec![USUAL_SIZE],
        (None, sizes) => sizes.iter().copied().map(usize::from).collect(),
        (Some(size), []) => vec![size],
        (Some(_), _) => {
            let problem = "--size is for echo and websocket: anything else has a size of its own";
            return Err(problem.to_owned());
        }
    };
    let connections = match &options.connections[..] {
        [] => &USUAL_CONNECTIONS,
        connections => connections,
    };

    let mut scenarios = Vec::new();
    for size in sizes {
        for &depth in &options.depth {
            scenarios.extend(connections.iter().map(|&connections| Scenario {
                pace,
                connections,
                idle: options.idle,
                size,
                depth,
                protocol: spoken.name(),
                audience: match spoken.is_for_all() {
                    true => Audience::All,
                    false => Audience::Sender,
                },
                ..Scenario::default()
            }));
        }
    }
    Ok(scenarios)
}

/// Refuses what makes no sense if one publishes for all.
fn check_subscribers(options: &Options, pace: Pace) -> Result<(), String> {
    let is_secured = |uri: &String| place_of_tls(uri).is_some();
    let problem = if pace == Pace::Churn {
        "--subscribe cannot be used with --churn: subscribers stay"
    } else if options.idle > 0 {
        "--subscribe cannot be used with --idle: all but one client only listen"
    } else if options.target.iter().any(is_secured) {
        "--subscribe is for servers without TLS"
    } else {
        let is_short = |size: &Size| usize::from(*size) < FanOut::SIZE_LEAST;
        return match options.size.iter().any(is_short) {
            true => {
                let least = FanOut::SIZE_LEAST;
                Err(format!("--size: expected {least} or more with --subscribe"))
            }
            false => Ok(()),
        };
    };
    Err(problem.to_owned())
}

fn pace(options: &Options) -> Result<Pace, String> {
    match (options.churn, options.rate) {
        (false, None) => Ok(Pace::Closed),
        (false, Some(rate @ 1..=RATE_MOST)) => Ok(Pace::Open(rate)),
        (false, Some(_)) => Err(format!("--rate: expected 1 to {RATE_MOST}")),
        (true, _) if options.depth.iter().any(|depth| *depth > 1) => {
            Err("--churn exchanges one message per connection: --depth must be 1".to_owned())
        }
        (true, _) if options.idle > 0 => Err("--churn cannot be used with --idle".to_owned()),
        (true, Some(_)) => Err("--churn cannot be used with --rate".to_owned()),
        (true, None) => Ok(Pace::Churn),
    }
}

fn check(scenario: &Scenario) -> Result<(), String> {
    if scenario.connections == 0 {
        return Err("--connections: expected 1 or more".to_owned());
    }
    if !(1..=DEPTH_MOST).contains(&scenario.depth) {
        return Err(format!("--depth: expected 1 to {DEPTH_MOST}"));
    }
    if scenario.size == 0 {
        return Err("--size: expected 1 or more".to_owned());
    }

    let under_way = scenario.size.saturating_mul(scenario.depth);
    if under_way > UNDER_WAY_MOST {
        return Err("--size times --depth: expected at most 16MiB".to_owned());
    }
    if under_way.saturating_mul(scenario.connections) > ALL_UNDER_WAY_MOST {
        return Err("--size times --depth times --connections: expected at most 1GiB".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;

    fn plan(arguments: &str) -> Result<Plan, String> {
        let command = Options::augment_args(Command::new("bench").no_binary_name(true));
        let matches = command
            .try_get_matches_from(arguments.split_whitespace())
            .map_err(|error| error.to_string())?;
        let options = Options::from_arg_matches(&matches).unwrap();
        Plan::new(&options).map_err(|failure| match failure {
            Failure::Usage(problem) => problem,
            Failure::System(error) => error.to_string(),
        })
    }

    #[test]
    fn every_combination_is_measured() {
        let plan =
            plan("--compare event-loop,workers=2 --connections 1,100 --size 64,64KiB --depth 1,16");
        let plan = plan.unwrap();
        let names: Vec<_> = plan.contenders.iter().map(Contender::to_string).collect();
        assert_eq!(names, ["event-loop", "workers=2"]);
        assert_eq!(plan.scenarios.len(), 8);
        let last = plan.scenarios[7];
        assert_eq!((last.connections, last.size, last.depth), (100, 65_536, 16));
        assert_eq!(plan.measurements(), 5 * 2 * 8);
        assert_eq!(plan.warm_up * 5, plan.duration);
    }

    #[test]
    fn what_a_model_cannot_do_is_not_counted() {
        let plan = plan("--compare event-loop,sequential --connections 1,2 --rounds 3").unwrap();
        assert_eq!(plan.measurements(), 9);
    }

    #[test]
    fn without_a_server_the_models_are_compared() {
        let usual = plan("").unwrap();
        assert_eq!(usual.contenders, USUAL.map(Contender::Model));
        let target = plan("--target tcp://127.0.0.1:7").unwrap();
        assert_eq!(target.contenders.len(), 1);
        let both = plan("--target tcp://127.0.0.1:7 --compare threaded").unwrap();
        assert_eq!(both.contenders.len(), 2);
    }

    #[test]
    fn paces_are_told_apart() {
        let pace = |arguments| plan(arguments).unwrap().scenarios[0].pace;
        assert_eq!(pace(""), Pace::Closed);
        assert_eq!(pace("--rate 50000"), Pace::Open(50_000));
        assert_eq!(pace("--churn"), Pace::Churn);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (arguments, problem) in [
            ("--churn --depth 2", "--depth must be 1"),
            ("--churn --rate 10", "--churn"),
            ("--churn --idle 10", "--churn"),
            ("--rate 0", "--rate"),
            ("--connections 0", "--connections"),
            ("--depth 0", "--depth"),
            ("--depth 2000", "--depth"),
            ("--size 0", "--size"),
            ("--size 1MiB --depth 17", "16MiB"),
            ("--size 1MiB --connections 2000", "1GiB"),
            ("--rounds 0", "--rounds"),
            ("--duration 1ms", "--duration"),
            ("--timeout 50ms", "--timeout"),
            ("--compare threaded,threaded", "twice"),
            ("--compare tokio", "event-loop, workers=NUMBER"),
            ("--target udp://127.0.0.1:7", "streams"),
            ("--target nowhere", "scheme"),
        ] {
            let error = plan(arguments).unwrap_err();
            assert!(error.contains(problem), "{arguments}: {error}");
        }
    }
}

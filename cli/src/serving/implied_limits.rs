//! Limits that imply others: raising or lowering one moves those that were not set.

use serveloop::Config;

/// How many times larger a budget is than the largest thing in it, whose buffer grows in steps.
const SPARE: usize = 2;

/// A limit that an option of the protocol needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// The option, spelled like a field.
    pub(crate) option: &'static str,
    pub(crate) bytes: usize,
    /// The name of the limit's field.
    pub(crate) limit: &'static str,
}

/// Moves the limits of `config` that were not `given`, to make room for those that were and for
/// what the protocol `needs`.
///
/// # Errors
/// Fails if two given limits contradict each other. The message names both.
pub(crate) fn make_room(config: &mut Config, given: &[&str], needs: &[Need]) -> Result<(), String> {
    let is_given = |name: &str| given.contains(&name);
    let need = |limit: &str| {
        let bytes = needs.iter().filter(|need| need.limit == limit);
        bytes.map(|need| need.bytes).max().unwrap_or(0)
    };

    if !is_given("max_frame") {
        config.limits.max_frame = config
            .limits
            .max_frame
            .max(config.limits.max_line)
            .max(need("max_frame"));
    }
    if !is_given("high_water") && is_given("low_water") {
        config.limits.high_water = config
            .limits
            .high_water
            .max(config.limits.low_water.saturating_mul(SPARE));
    }
    if !is_given("max_output") {
        // A reply is at least as long as its message, such as an echo of it or a greeting.
        let usual = Config::default().limits.max_frame;
        let reply = Some(config.limits.max_frame).filter(|frame| *frame > usual);
        let largest = config.limits.high_water.max(reply.unwrap_or(0));
        config.limits.max_output = config.limits.max_output.max(largest.saturating_mul(SPARE));
    }
    if !is_given("max_buffered") {
        let largest = config.limits.max_output.max(config.limits.max_frame);
        let largest = largest.max(need("max_buffered"));
        config.max_buffered = config.max_buffered.max(largest.saturating_mul(SPARE));
    }

    // A small limit lowers those that must fit into it. `max_frame` stays, because a message that
    // finds no room is recognised by its length.
    if !is_given("max_output") {
        config.limits.max_output = config.limits.max_output.min(config.max_buffered);
    }
    if !is_given("high_water") {
        config.limits.high_water = config
            .limits
            .high_water
            .min(config.limits.max_output)
            .max(1);
    }
    if !is_given("low_water") {
        config.limits.low_water = config.limits.low_water.min(config.limits.high_water / 2);
    }
    check(config, is_given, needs)
}

fn check(config: &Config, is_given: impl Fn(&str) -> bool, needs: &[Need]) -> Result<(), String> {
    let fields = [
        ("max_line", config.limits.max_line),
        ("max_frame", config.limits.max_frame),
        ("high_water", config.limits.high_water),
        ("max_output", config.limits.max_output),
        ("max_buffered", config.max_buffered),
    ];

    let pairs = [
        ("max_line", "max_frame"),
        ("high_water", "max_output"),
        ("high_water", "max_buffered"),
        ("max_output", "max_buffered"),
        ("max_frame", "max_buffered"),
    ];

    for whole in ["max_output", "max_buffered"] {
        let bytes = fields.iter().find(|(field, _)| *field == whole);
        let bytes = bytes.map_or(0, |(_, bytes)| *bytes);
        if is_given(whole) && bytes == 0 {
            return Err(format!("{whole} must be at least 1"));
        }
        // `high_water` lies between the two, and it was not set.
        let has_part = is_given("low_water") && !is_given("high_water");
        if is_given(whole) && has_part && config.limits.low_water >= bytes {
            return Err(format!("{whole} must be more than low_water"));
        }
    }
    let value = |name: &str| fields.iter().find(|(field, _)| *field == name);
    let value = |name: &str| value(name).map_or(0, |(_, bytes)| *bytes);

    let pairs = pairs.iter().filter(|(part, _)| is_given(part));
    let pairs = pairs.map(|(part, whole)| (*part, value(part), *whole));

    let needs = needs
        .iter()
        .map(|need| (need.option, need.bytes, need.limit));

    let contradiction = pairs
        .chain(needs)
        .find(|(_, bytes, whole)| is_given(whole) && *bytes > value(whole));

    match contradiction {
        Some((part, _, whole)) => Err(format!("{whole} must be at least {part}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    type Change = fn(&mut Config);

    #[track_caller]
    fn moved(given: &[&str], change: Change) -> Config {
        let mut config = Config::default();
        change(&mut config);
        make_room(&mut config, given, &[]).expect("room");
        config.validate().expect("limits that make sense");
        config
    }

    #[test]
    fn what_was_not_given_moves() {
        assert_eq!(moved(&[], |_| ()), Config::default());

        let config = moved(&["max_frame"], |to| to.limits.max_frame = 512 * MIB);
        assert_eq!(config.limits.max_output, 1_024 * MIB);
        assert_eq!(config.max_buffered, 2_048 * MIB);
        let config = moved(&["max_line"], |to| to.limits.max_line = 4 * MIB);
        assert_eq!(
            (config.limits.max_frame, config.limits.max_output),
            (4 * MIB, 8 * MIB)
        );
        let config = moved(&["high_water"], |to| to.limits.high_water = 512 * MIB);
        assert_eq!(config.limits.max_output, 1_024 * MIB);
        assert_eq!(config.max_buffered, 2_048 * MIB);
        let config = moved(&["max_output"], |to| to.limits.max_output = 512 * MIB);
        assert_eq!(config.max_buffered, 1_024 * MIB);

        let config = moved(&["low_water"], |to| to.limits.low_water = 8 * MIB);
        assert_eq!(
            (config.limits.high_water, config.limits.max_output),
            (16 * MIB, 32 * MIB)
        );
        let config = moved(&["low_water"], |to| to.limits.low_water = 64 << 10);
        assert_eq!(config.limits.high_water, 128 << 10);
        let config = moved(&["low_water", "max_output"], |to| {
            (to.limits.low_water, to.limits.max_output) = (2 * MIB, 3 * MIB);
        });
        assert_eq!(config.limits.high_water, 3 * MIB);

        let config = moved(&["high_water"], |to| to.limits.high_water = 4 << 10);
        assert_eq!(config.limits.low_water, 2 << 10);
        let config = moved(&["max_output"], |to| to.limits.max_output = 10 << 10);
        assert_eq!(
            (config.limits.high_water, config.limits.low_water),
            (10 << 10, 5 << 10)
        );
        let config = moved(&["max_buffered"], |to| to.max_buffered = 128 << 10);
        assert_eq!(
            (config.limits.max_output, config.limits.high_water),
            (128 << 10, 64 << 10)
        );
        assert_eq!(
            config.limits.max_frame, MIB,
            "it says which message finds no room"
        );
        let config = moved(&["high_water", "max_buffered"], |to| {
            (to.limits.high_water, to.max_buffered) = (2 * MIB, 3 * MIB);
        });
        assert_eq!(config.limits.max_output, 3 * MIB);

        let config = moved(&["max_frame"], |to| to.limits.max_frame = usize::MAX);
        assert_eq!(config.max_buffered, usize::MAX);
    }

    #[test]
    fn what_was_given_does_not() {
        let cases: [(&[&str], Change, &str); 9] = [
            (
                &["max_frame", "max_buffered"],
                |to| to.limits.max_frame = 512 * MIB,
                "max_buffered must be at least max_frame",
            ),
            (
                &["max_line", "max_frame"],
                |to| to.limits.max_line = 2 * MIB,
                "max_frame must be at least max_line",
            ),
            (
                &["high_water", "max_output"],
                |to| to.limits.high_water = 2 * MIB,
                "max_output must be at least high_water",
            ),
            (
                &["high_water", "max_buffered"],
                |to| to.limits.high_water = 512 * MIB,
                "max_buffered must be at least high_water",
            ),
            (
                &["max_output", "max_buffered"],
                |to| to.limits.max_output = 512 * MIB,
                "max_buffered must be at least max_output",
            ),
            (
                &["max_output"],
                |to| to.limits.max_output = 0,
                "max_output must be at least 1",
            ),
            (
                &["max_buffered"],
                |to| to.max_buffered = 0,
                "max_buffered must be at least 1",
            ),
            (
                &["low_water", "max_output"],
                |to| to.limits.low_water = MIB,
                "max_output must be more than low_water",
            ),
            (
                &["low_water", "max_buffered"],
                |to| to.limits.low_water = 512 * MIB,
                "max_buffered must be more than low_water",
            ),
        ];

        for (given, change, problem) in cases {
            let mut config = Config::default();
            change(&mut config);
            assert_eq!(make_room(&mut config, given, &[]).unwrap_err(), problem);
        }
    }

    #[test]
    fn protocols_have_needs_of_their_own() {
        let needs = [
            Need {
                option: "max_request",
                bytes: 4 * MIB,
                limit: "max_frame",
            },
            Need {
                option: "max_command_output",
                bytes: 512 * MIB,
                limit: "max_buffered",
            },
        ];

        let mut config = Config::default();
        make_room(&mut config, &[], &needs).unwrap();
        assert_eq!(
            (config.limits.max_frame, config.max_buffered),
            (4 * MIB, 1_024 * MIB)
        );

        for (given, problem) in [
            ("max_frame", "max_frame must be at least max_request"),
            (
                "max_buffered",
                "max_buffered must be at least max_command_output",
            ),
        ] {
            let mut config = Config::default();
            assert_eq!(
                make_room(&mut config, &[given], &needs).unwrap_err(),
                problem
            );
        }
    }
}

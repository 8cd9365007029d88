//! The options that keys of a file stand for, and the values of these.

use clap::builder::ValueRange;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, Command};
use toml::Spanned;
use toml::de::DeValue;

use crate::settings::listener::uri;
use crate::settings::nearest::nearest;
use crate::settings::value::{Digits, Mistake, Value, no_value, plain, shown};
use crate::settings::{ANY_PROTOCOL, CONFIG, SERVE};

/// Options that mean nothing in a file.
const NOT_IN_A_FILE: [&str; 3] = [CONFIG, "help", "version"];
/// What the value of an option is called that takes true and false.
const BOOL: &str = "BOOL";
/// What the value of an option is called that takes several networks at once.
const NETWORKS: &str = "NETWORKS";
/// What the value of an option is called that takes the permissions of a file.
const OCTAL: &str = "OCTAL";
/// Options of which no value is the same as an empty array. For others it would be the opposite: everybody
/// may connect if there is no list of those who may.
const MAY_BE_EMPTY: [&str; 2] = ["deny", "subprotocol"];
const LISTEN: &str = "listen";

/// An option that the file gives a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The name by which the definition of the command line knows it.
    pub(super) id: String,
    /// Its name after the two hyphens.
    pub(super) long: String,
    /// The protocol that it belongs to, if it is not one of all protocols.
    pub(super) section: Option<String>,
    /// Where its key is.
    pub(super) at: usize,
    /// Its values. A flag has an empty one for each time that it is given.
    pub(super) values: Vec<Value>,
    pub(super) is_flag: bool,
}

/// The definition of the command line, as far as a file may use it.
pub(super) struct Options {
    root: Command,
}

impl Options {
    pub(super) fn new(command: fn() -> Command) -> Self {
        Self { root: command() }
    }

    /// Returns the names of the protocols.
    pub(super) fn protocols(&self) -> impl Iterator<Item = &str> {
        let serve = self.root.find_subcommand(SERVE).into_iter();
        serve.flat_map(|serve| serve.get_subcommands().map(Command::get_name))
    }

    /// Returns the options of a protocol, or without one, those of all.
    fn of(&self, protocol: Option<&str>) -> impl Iterator<Item = &Arg> {
        let serve = self.root.find_subcommand(SERVE);
        let (own, general) = match protocol {
            Some(name) => (serve.and_then(|serve| serve.find_subcommand(name)), None),
            None => (serve, Some(&self.root)),
        };
        let general = general.into_iter().flat_map(Command::get_arguments);
        let general = general.filter(|arg| arg.is_global_set());
        let own = own.into_iter().flat_map(Command::get_arguments);
        own.chain(general).filter(|arg| {
            let long = arg.get_long();
            long.is_some_and(|long| !NOT_IN_A_FILE.contains(&long))
        })
    }

    /// Finds the option that a key stands for: one of all protocols if it is outside of a `section`, and
    /// otherwise one of that protocol. Outside, those of the `served` protocol count too.
    fn find(
        &self,
        key: &str,
        section: Option<&str>,
        served: Option<&str>,
    ) -> Option<(&Arg, Option<String>)> {
        let is_it = |arg: &&Arg| arg.get_long() == Some(key);
        let in_section = |name: &str| {
            let found = self.of(Some(name)).find(is_it)?;
            Some((found, Some(name.to_owned())))
        };
        match section {
            Some(name) => in_section(name),
            None => {
                let general = self.of(None).find(is_it).map(|arg| (arg, None));
                general.or_else(|| in_section(served?))
            }
        }
    }

    /// Returns what a key and its value mean.
    pub(super) fn setting(
        &self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
        section: Option<&str>,
        served: Option<&str>,
    ) -> Result<Setting, Vec<Mistake>> {
        let (name, at) = (key.get_ref(), key.span().start);
        let Some((arg, section)) = self.find(name, section, served) else {
            return Err(vec![(at, self.unknown(name, section, served))]);
        };
        let values = values(name, arg, value).map_err(|mistake| vec![mistake])?;
        let setting = Setting {
            id: arg.get_id().to_string(),
            long: name.to_string(),
            section,
            at,
            values,
            is_flag: is_flag(arg) || is_count(arg),
        };

        let mistakes = self.mistakes(&setting, served);
        match mistakes.is_empty() {
            true => Ok(setting),
            false => Err(mistakes),
        }
    }

    /// Says that a key is not known, and which one may be meant.
    fn unknown(&self, key: &str, section: Option<&str>, served: Option<&str>) -> String {
        let longs = |protocol| self.of(protocol).filter_map(Arg::get_long);
        let (near, whose) = match section {
            Some(name) => (nearest(key, longs(Some(name))), format!(" of {name}")),
            None => {
                let own = served.into_iter().flat_map(|name| longs(Some(name)));
                let names = longs(None).chain(own).chain(["protocol"]);
                (nearest(key, names.chain(self.protocols())), String::new())
            }
        };
        if let (None, Some(elsewhere)) = (near, self.elsewhere(key)) {
            return format!(
                "unknown key {key}: it is an option of {elsewhere}, which is not served"
            );
        }
        match near {
            Some(near) => format!("unknown key {key}: the nearest option{whose} is {near}"),
            None => format!("unknown key {key}: there is no such option{whose}"),
        }
    }

    /// Returns a protocol that has an option of this name.
    fn elsewhere(&self, key: &str) -> Option<&str> {
        self.protocols()
            .find(|name| self.of(Some(*name)).any(|arg| arg.get_long() == Some(key)))
    }

    /// Parses each value as the command line would. Returns what is wrong with them.
    fn mistakes(&self, setting: &Setting, served: Option<&str>) -> Vec<Mistake> {
        if setting.is_flag {
            return Vec::new();
        }
        let protocol = setting
            .section
            .as_deref()
            .or(served)
            .unwrap_or(ANY_PROTOCOL);
        let problems = setting.values.iter().map(|value| {
            let argument = format!("--{}={}", setting.long, value.text);
            let command = self.root.clone();
            let parsed = command.try_get_matches_from(["", SERVE, protocol, &argument]);
            let error = parsed.err().filter(|error| is_of_value(error.kind()))?;
            Some((value.at, first_paragraph(&error.to_string())))
        });
        problems.flatten().collect()
    }
}

/// Returns whether an error is about a value, and not about what else the command line should have.
fn is_of_value(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::InvalidValue
            | ErrorKind::ValueValidation
            | ErrorKind::InvalidUtf8
            | ErrorKind::WrongNumberOfValues
            | ErrorKind::TooManyValues
            | ErrorKind::TooFewValues
            | ErrorKind::NoEquals
    )
}

/// Returns what an error of the command line says, on one line and without hints about its usage.
pub(super) fn first_paragraph(text: &str) -> String {
    let text = text.trim_start_matches("error: ");
    let paragraph = text.split("\n\n").next().unwrap_or_default();
    let lines: Vec<_> = paragraph.lines().map(str::trim).collect();
    lines.join(" ")
}

fn is_flag(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn is_count(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Count)
}

fn has_several(arg: &Arg) -> bool {
    let many = |range: ValueRange| range.max_values() > 1;
    matches!(arg.get_action(), ArgAction::Append) || arg.get_num_args().is_some_and(many)
}

fn is_named(arg: &Arg, name: &str) -> bool {
    let names = arg.get_value_names().unwrap_or_default();
    names.iter().any(|known| *known == name)
}

/// Returns the values of an option.
fn values(name: &str, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Vec<Value>, Mistake> {
    let at = value.span().start;
    let wrong = |expected: &str, value: &Spanned<DeValue<'_>>| {
        let found = shown(value.get_ref());
        (
            value.span().start,
            format!("{name}: expected {expected}, not {found}"),
        )
    };
    let empty = || Value {
        text: String::new(),
        at,
        parts: Vec::new(),
    };

    let takes_array = has_several(arg) || is_named(arg, NETWORKS);
    match value.get_ref() {
        DeValue::Boolean(is_on) if is_flag(arg) => Ok(is_on.then(empty).into_iter().collect()),
        _ if is_flag(arg) => Err(wrong("true or false", value)),
        DeValue::Integer(count) if is_count(arg) => match count.to_string().parse::<u8>() {
            Ok(count @ 0..=9) => Ok(vec![empty(); count.into()]),
            _ => Err((at, format!("{name}: expected 0 to 9"))),
        },
        _ if is_count(arg) => Err(wrong("a whole number", value)),
        DeValue::Array(all) if all.is_empty() && takes_array && !MAY_BE_EMPTY.contains(&name) => {
            Err((at, no_value(name)))
        }
        DeValue::Array(all) if has_several(arg) => {
            all.iter().map(|one| single(name, arg, one)).collect()
        }
        DeValue::Array(all) if is_named(arg, NETWORKS) => {
            let all = all.iter().map(|one| single(name, arg, one));
            let all: Vec<_> = all.collect::<Result<_, _>>()?;
            let texts: Vec<_> = all.iter().map(|one| one.text.as_str()).collect();
            Ok(vec![Value {
                text: texts.join(","),
                ..empty()
            }])
        }
        DeValue::Array(_) => Err(wrong("a single value", value)),
        _ => single(name, arg, value).map(|one| vec![one]),
    }
}

/// Returns one value of an option.
fn single(name: &str, arg: &Arg, value: &Spanned<DeValue<'_>>) -> Result<Value, Mistake> {
    let at = value.span().start;
    let is_listen = arg.get_id().as_str() == LISTEN;
    if let (true, DeValue::Table(table)) = (is_listen, value.get_ref()) {
        return uri(table, at);
    }

    let is_bool = is_named(arg, BOOL);
    let is_fitting = match value.get_ref() {
        DeValue::Boolean(_) => is_bool,
        DeValue::Integer(_) => !is_listen && !is_bool,
        DeValue::String(_) => true,
        _ => false,
    };
    let digits = match is_named(arg, OCTAL) {
        true => Digits::Octal,
        false => Digits::Decimal,
    };
    match plain(value.get_ref(), digits).filter(|_| is_fitting) {
        Some(text) => Ok(Value {
            text,
            at,
            parts: Vec::new(),
        }),
        None => {
            let names = arg.get_value_names().unwrap_or_default();
            let expected = match names.first() {
                _ if is_bool => "true or false".to_owned(),
                Some(known) => format!("a {known} as text or whole number"),
                None => "a text or a whole number".to_owned(),
            };
            let found = shown(value.get_ref());
            Err((at, format!("{name}: expected {expected}, not {found}")))
        }
    }
}

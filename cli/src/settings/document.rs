//! The text of a file, and the options in it.

use clap::Command;
use toml::de::{DeTable, DeValue};

use crate::settings::keys::{Options, Setting};
use crate::settings::nearest::nearest;
use crate::settings::place::{Problem, Problems};
use crate::settings::value::Mistake;

/// The key that names the protocol.
const PROTOCOL: &str = "protocol";

/// A file that was understood.
#[derive(Clone, Debug)]
pub(super) struct Document {
    pub(super) file: String,
    pub(super) text: String,
    /// The protocol that the file names, and where.
    protocol: Option<(String, usize)>,
    /// In the order of the file.
    pub(super) settings: Vec<Setting>,
}

impl Document {
    /// Parses the text of a file.
    pub(super) fn parse(
        file: &str,
        text: Vec<u8>,
        command: fn() -> Command,
    ) -> Result<Self, Problems> {
        let text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            let valid = String::from_utf8_lossy(&error.as_bytes()[..at]).into_owned();
            Problems::from(Problem::new(file, &valid, at, "a byte that is not UTF-8"))
        })?;

        let (table, errors) = DeTable::parse_recoverable(&text);
        let mut document = Self {
            file: file.to_owned(),
            text: text.clone(),
            protocol: None,
            settings: Vec::new(),
        };
        // Those that follow are its consequences.
        if let Some(error) = errors.first() {
            let at = error.span().map_or(0, |span| span.start);
            let problem = format!("no valid TOML: {}", error.message());
            return Err(document.problems(vec![(at, problem)]));
        }

        let mistakes = document.collect(table.get_ref(), &Options::new(command));
        match mistakes.is_empty() {
            true => Ok(document),
            false => Err(document.problems(mistakes)),
        }
    }

    /// Takes everything in. Returns what means nothing.
    fn collect(&mut self, table: &DeTable<'_>, options: &Options) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        self.protocol = protocol(table, options).unwrap_or_else(|mistake| {
            mistakes.push(mistake);
            None
        });
        let served = self.protocol.as_ref().map(|(name, _)| name.clone());
        let served = served.as_deref();

        for (key, value) in table.iter() {
            let name = key.get_ref().as_ref();
            let section = options.protocols().find(|protocol| *protocol == name);
            let read = match (section, value.get_ref()) {
                _ if name == PROTOCOL => continue,
                (Some(section), DeValue::Table(_)) if served.is_some_and(|it| it != section) => {
                    let served = served.unwrap_or_default();
                    let problem = format!("options of {section}, but the protocol is {served}");
                    vec![Err(vec![(key.span().start, problem)])]
                }
                (Some(section), DeValue::Table(table)) => {
                    let all = table
                        .iter()
                        .map(|(key, value)| options.setting(key, value, Some(section), served));
                    all.collect()
                }
                _ => vec![options.setting(key, value, None, served)],
            };
            for result in read {
                match result {
                    Ok(setting) => self.settings.push(setting),
                    Err(more) => mistakes.extend(more),
                }
            }
        }

        self.settings.sort_by_key(|setting| setting.at);
        mistakes.extend(self.repeated());
        mistakes
    }

    /// Finds an option of the protocol that is in its section and outside of it.
    fn repeated(&self) -> Option<Mistake> {
        let is_same =
            |one: &Setting, other: &Setting| (&one.id, &one.section) == (&other.id, &other.section);
        let pairs = self.settings.iter().enumerate();
        let mut pairs = pairs.filter(|(place, setting)| {
            let mut earlier = self.settings[..*place].iter();
            earlier.any(|other| is_same(other, setting))
        });
        let (_, setting) = pairs.next()?;
        Some((setting.at, format!("{} is given twice", setting.long)))
    }

    /// Returns the protocol that the file names.
    pub(super) fn protocol(&self) -> Option<&str> {
        self.protocol.as_ref().map(|(name, _)| name.as_str())
    }

    pub(super) fn protocol_at(&self) -> Option<(&str, usize)> {
        let (name, at) = self.protocol.as_ref()?;
        Some((name, *at))
    }

    /// Returns what is wrong if the `typed` protocol is another one than that of the file.
    pub(super) fn disagreement(&self, typed: Option<&str>) -> Option<Mistake> {
        let (name, at) = self.protocol.as_ref()?;
        let typed = typed.filter(|typed| typed != name)?;
        Some((
            *at,
            format!("the protocol is {name} here, and {typed} on the command line"),
        ))
    }

    /// Returns the `wanted` options as arguments. Those of a protocol are left out unless it is served.
    pub(super) fn arguments(
        &self,
        wanted: impl Fn(&Setting) -> bool,
        served: Option<&str>,
    ) -> Vec<String> {
        let is_served = |setting: &&Setting| {
            let section = setting.section.as_deref();
            section.is_none_or(|section| served == Some(section))
        };
        let settings = self.settings.iter().filter(is_served);
        let settings = settings.filter(|setting| wanted(setting));
        let arguments = settings.flat_map(|setting| {
            setting.values.iter().map(|value| match setting.is_flag {
                true => format!("--{}", setting.long),
                false => format!("--{}={}", setting.long, value.text),
            })
        });
        arguments.collect()
    }

    pub(super) fn problems(&self, mistakes: Vec<Mistake>) -> Problems {
        let problems = mistakes
            .into_iter()
            .map(|(at, problem)| Problem::new(&self.file, &self.text, at, &problem));
        Problems::new(problems.collect())
    }
}

/// Reads which protocol is served.
fn protocol(table: &DeTable<'_>, options: &Options) -> Result<Option<(String, usize)>, Mistake> {
    let Some((_, value)) = table.iter().find(|(key, _)| key.get_ref() == PROTOCOL) else {
        return Ok(None);
    };
    let at = value.span().start;
    let DeValue::String(name) = value.get_ref() else {
        let problem = "protocol: expected the name of one, such as \"echo\"; its options follow in a section \
                       of that name";
        return Err((at, problem.to_owned()));
    };
    if options.protocols().any(|known| known == name) {
        return Ok(Some((name.to_string(), at)));
    }

    let known: Vec<_> = options.protocols().collect();
    let problem = match nearest(name, options.protocols()) {
        Some(near) => format!("unknown protocol {name}: the nearest is {near}"),
        None => format!(
            "unknown protocol {name}: expected one of {}",
            known.join(", ")
        ),
    };
    Err((at, problem))
}

//! The limits on one program that the system enforces.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

use crate::settings::Settings;
use crate::sys::highest_limit;

/// The limits on one program, which the system enforces. They travel to the process that becomes the
/// program as its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// Processor time, in whole seconds.
    cpu_seconds: u64,
    /// The longest file that the program may write, in bytes.
    file_size: u64,
    /// The most open descriptors.
    descriptors: u64,
}

impl Confinement {
    /// Returns the limits of these settings. Processor time is rounded up.
    pub(crate) fn of(settings: &Settings) -> Self {
        let seconds = settings.max_cpu_time.as_millis().div_ceil(1_000);
        Self {
            cpu_seconds: u64::try_from(seconds).unwrap_or(u64::MAX),
            file_size: settings.max_file_size,
            descriptors: settings.max_descriptors,
        }
    }

    /// Returns the numbers in the order in which [`read`](Self::read) asks for them.
    pub(crate) fn arguments(self) -> [String; 3] {
        [self.cpu_seconds, self.file_size, self.descriptors].map(|number| number.to_string())
    }

    pub(crate) fn read(mut number: impl FnMut() -> io::Result<u64>) -> io::Result<Self> {
        Ok(Self {
            cpu_seconds: number()?,
            file_size: number()?,
            descriptors: number()?,
        })
    }

    /// Applies the limits to this process. Never raises one.
    pub(crate) fn apply(self) -> io::Result<()> {
        let seconds = self.cpu_seconds;
        // Leaves a second between the signal that can be caught and the one that cannot.
        limit(Resource::Cpu, seconds, seconds.saturating_add(1))?;
        limit(Resource::Fsize, self.file_size, self.file_size)?;
        limit(Resource::Core, 0, 0)?;
        limit(Resource::Nofile, self.descriptors, self.descriptors)
    }
}

fn limit(resource: Resource, soft: u64, hard: u64) -> io::Result<()> {
    let most = highest_limit(resource).unwrap_or(u64::MAX);
    let limits = Rlimit {
        current: Some(soft.min(most)),
        maximum: Some(hard.min(most)),
    };
    Ok(setrlimit(resource, limits)?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn limits_arrive_as_they_were_sent() {
        let settings = Settings {
            max_cpu_time: Duration::from_millis(1_001),
            max_file_size: u64::MAX,
            max_descriptors: 64,
            ..Settings::default()
        };
        let sent = Confinement::of(&settings);
        assert_eq!(sent.arguments(), ["2", "18446744073709551615", "64"]);

        let mut numbers = sent.arguments().into_iter();
        let number = || Ok(numbers.next().unwrap().parse().unwrap());
        assert_eq!(Confinement::read(number).unwrap(), sent);
    }
}

//! The cores that the servers and the load generator run on.

use std::{fmt, io};

use crate::platform::{allowed_cores, pin};

/// The division of the cores. The generator has one core to itself if there are at least two, and
/// the servers have the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The servers' cores, by number.
    pub servers: Vec<usize>,
    /// The generator's core.
    pub generator: usize,
}

impl Cores {
    /// Divides the cores that this process may use, and pins this thread to the generator's core.
    ///
    /// # Errors
    /// Fails if the system does not report or set the affinity.
    pub fn divide() -> io::Result<Self> {
        let cores = Self::among(allowed_cores()?);
        pin(&[cores.generator])?;
        Ok(cores)
    }

    /// Returns the same division with a single core for the servers.
    #[must_use]
    pub fn with_one_for_servers(&self) -> Self {
        Self {
            servers: self.servers.iter().copied().take(1).collect(),
            generator: self.generator,
        }
    }

    /// Returns the same division where the servers have the generator's core, too.
    #[must_use]
    pub fn with_all_for_servers(&self) -> Self {
        let mut servers = self.servers.clone();
        servers.push(self.generator);
        servers.sort_unstable();
        servers.dedup();
        Self {
            servers,
            generator: self.generator,
        }
    }

    /// Moves this thread to the first of the servers' cores, which is the only one from now on.
    ///
    /// # Errors
    /// Fails if the system does not set the affinity.
    pub fn join(&self) -> io::Result<Self> {
        let one = self.with_one_for_servers();
        pin(&one.servers)?;
        Ok(Self {
            generator: one.servers.first().copied().unwrap_or(self.generator),
            ..one
        })
    }

    /// Returns whether the generator shares its core with servers.
    #[must_use]
    pub fn are_shared(&self) -> bool {
        self.servers.contains(&self.generator)
    }

    /// Returns the number of cores.
    #[must_use]
    pub fn count(&self) -> usize {
        self.servers.len() + usize::from(!self.are_shared())
    }

    fn among(mut allowed: Vec<usize>) -> Self {
        let generator = allowed.last().copied().unwrap_or(0);
        if allowed.len() > 1 {
            allowed.pop();
        }
        Self {
            servers: allowed,
            generator,
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(usize::to_string).collect();
        if self.servers == [self.generator] {
            return write!(f, "servers and generator share core {}", self.generator);
        }

        let noun = if servers.len() == 1 { "core" } else { "cores" };
        let (servers, generator) = (servers.join(","), self.generator);
        write!(
            f,
            "servers on {noun} {servers}, generator on core {generator}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_has_a_core_of_its_own_where_there_are_two() {
        let one = Cores::among(vec![3]);
        assert!(one.are_shared());
        assert_eq!(one.to_string(), "servers and generator share core 3");

        let two = Cores::among(vec![0, 1]);
        assert!(!two.are_shared());
        assert_eq!(two.to_string(), "servers on core 0, generator on core 1");

        let all = two.with_all_for_servers();
        assert_eq!((all.count(), all.are_shared()), (2, true));
        assert_eq!(all.to_string(), "servers on cores 0,1, generator on core 1");

        let four = Cores::among(vec![0, 2, 4, 6]);
        assert_eq!(
            four.to_string(),
            "servers on cores 0,2,4, generator on core 6"
        );
        let one = four.with_one_for_servers();
        assert_eq!(one.to_string(), "servers on core 0, generator on core 6");
        assert_eq!(one.with_all_for_servers().servers, [0, 6]);
    }
}

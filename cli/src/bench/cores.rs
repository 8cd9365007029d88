//! The cores that the servers and the load generator run on.

use std::{fmt, io};

use crate::bench::platform::{allowed_cores, pin};

/// The division of the cores. The generator has one core to itself if there are at least two, and
/// the servers have the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) servers: Vec<usize>,
    pub(crate) generator: usize,
}

impl Cores {
    /// Divides the cores that this process may use, and pins this thread to the generator's core.
    ///
    /// # Errors
    /// Fails if the system does not report or set the affinity.
    pub(crate) fn divide() -> io::Result<Self> {
        let cores = Self::among(allowed_cores()?);
        pin(&[cores.generator])?;
        Ok(cores)
    }

    pub(crate) fn are_shared(&self) -> bool {
        self.servers.contains(&self.generator)
    }

    pub(crate) fn count(&self) -> usize {
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
        if self.are_shared() {
            return write!(f, "servers and generator share core {}", self.generator);
        }

        let plural = if servers.len() == 1 { "" } else { "s" };
        let (servers, generator) = (servers.join(","), self.generator);
        write!(
            f,
            "servers on core{plural} {servers}, generator on core {generator}"
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

        let four = Cores::among(vec![0, 2, 4, 6]);
        assert_eq!(
            four.to_string(),
            "servers on cores 0,2,4, generator on core 6"
        );
    }
}

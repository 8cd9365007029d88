//! What stands for TLS in a command that was built without it.

use serveloop::Protocol;

use crate::failure::Failure;
use crate::outbound::Ending;
use crate::outbound::tls_options::TlsOptions;

/// Exists in no such build.
#[derive(Clone, Debug)]
pub(crate) enum Trust {}

/// Exists in no such build.
#[derive(Clone, Debug)]
pub(crate) enum Secured {}

impl Trust {
    pub(crate) fn new(_: &TlsOptions, _: Option<&str>) -> Result<Self, Failure> {
        let problem = "TLS is not supported, because this command was built without it";
        Err(Failure::Usage(problem.to_owned()))
    }

    pub(crate) fn server(&self, _: &str) -> Result<Secured, Failure> {
        match *self {}
    }
}

impl Secured {
    pub(crate) fn around<P: Protocol>(&self, _: P, _: Ending) -> P {
        match *self {}
    }
}

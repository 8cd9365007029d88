//! What stands for TLS in a command that was built without it.

use serveloop::Protocol;

use crate::failure::Failure;
use crate::outbound::Ending;
use crate::outbound::tls_options::{Sessions, TlsOptions};

/// Exists in no such build.
#[derive(Clone, Debug)]
pub(crate) enum Trust {}

/// Exists in no such build.
#[derive(Clone, Debug)]
pub(crate) enum Secured {}

impl Trust {
    pub(crate) fn new(_: &TlsOptions, _: Option<&str>) -> Result<Self, Failure> {
        Err(unsupported())
    }

    pub(crate) fn server(&self, _: &str) -> Result<Secured, Failure> {
        match *self {}
    }
}

pub(crate) fn secured_load(
    _: &TlsOptions,
    _: &str,
    _: Sessions,
) -> Result<serveloop_measure::Secured, Failure> {
    Err(unsupported())
}

fn unsupported() -> Failure {
    let problem = "TLS is not supported, because this command was built without it";
    Failure::Usage(problem.to_owned())
}

impl Secured {
    pub(crate) fn around<P: Protocol>(&self, _: P, _: Ending) -> P {
        match *self {}
    }
}

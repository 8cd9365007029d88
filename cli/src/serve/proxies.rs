//! Proxies in front: the options `--proxy` and `--trust`, and those of a single listener.

use clap::{Args, ValueEnum};
use serveloop::layer::proxy::Proxy;
use serveloop::net::NetworkList;
use serveloop::service::notify::Notifier;
use serveloop::{Address, Config, Listen};

use crate::failure::Failure;
use crate::logger::TARGET;
use crate::restart::PlaceName;
use crate::serve::entry;
use crate::serve::manager::Manager;
use crate::serve::place::{self, given_twice};
use crate::serving::{Access, ListenerTls};
use crate::signals::at_hangup;

/// The command's own options in the query of a listener.
const KEYS: [&str; 2] = ["proxy", "trust"];

#[derive(Args, Clone, Debug)]
pub(crate) struct ProxyOptions {
    /// Expect a PROXY header, version 1 or 2, at the beginning of each connection from a proxy that
    /// --trust lists. Logs and limits then know the client that the header names
    #[arg(long, global = true, value_enum, value_name = "WHEN")]
    proxy: Option<When>,
    /// The proxies whose headers are believed: networks such as 10.0.0.0/8,2001:db8::/32, unix for all peers on Unix
    /// sockets, and vsock or vsock:CID for virtual machines
    #[arg(long, global = true, value_name = "NETWORKS")]
    trust: Option<NetworkList>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum When {
    /// Every connection comes from a trusted proxy; others are refused
    Required,
    /// Other clients may connect too, and send no header
    Optional,
}

/// The options of one listener.
#[derive(Default)]
struct Own {
    proxy: Option<Option<When>>,
    trust: Option<NetworkList>,
}

/// Where to listen: for each place its addresses, of which one has to work, its door and its TLS.
pub(super) struct Places {
    pub(super) listens: Vec<Vec<Listen>>,
    pub(super) doors: Vec<Option<Proxy>>,
    pub(super) tls: Vec<Option<ListenerTls>>,
    pub(super) access: Vec<Option<Access>>,
    pub(super) names: Vec<PlaceName>,
    /// What is read again: of each URI its TLS and its lists, and the lists for all.
    reloaded: Reloaded,
}

/// What SIGHUP reads again.
#[derive(Clone, Default)]
struct Reloaded {
    tls: Vec<ListenerTls>,
    access: Vec<Access>,
}

impl Reloaded {
    fn is_empty(&self) -> bool {
        self.tls.is_empty() && self.access.is_empty()
    }

    fn add_access(&mut self, access: Option<&Access>) {
        self.access
            .extend(access.filter(|access| access.has_files()).cloned());
    }

    fn reload(&self) {
        self.tls.iter().for_each(ListenerTls::reload);
        self.access.iter().for_each(Access::reload);
    }
}

impl ProxyOptions {
    /// Resolves each URI, and finds its door and its lists, which are the `usual` ones if it has none. A
    /// name may have several addresses, and the server needs only one of them to work.
    pub(super) fn resolve(
        &self,
        uris: &[String],
        usual: Option<&Access>,
        config: &Config,
        manager: &mut Manager,
    ) -> Result<Places, Failure> {
        let (mut listens, mut doors, mut tls) = (Vec::new(), Vec::new(), Vec::new());
        let (mut access, mut reloaded) = (Vec::new(), Reloaded::default());
        let mut names = Vec::new();
        reloaded.add_access(usual);
        let mut is_trust_used = self.trust.is_none() || self.proxy.is_some();

        for (number, uri) in uris.iter().enumerate() {
            let place::Written {
                mut places,
                of_tls,
                others,
            } = place::resolve(uri, &[KEYS, entry::KEYS].concat(), config, manager)?;
            let about = |problem| Failure::Usage(format!("{uri:?}: {problem}"));
            let own = Own::of(&others).map_err(about)?;
            is_trust_used |= matches!(own.proxy, Some(Some(_))) && own.trust.is_none();

            let mut all = places.iter().flatten();
            let is_datagram = all.any(|listen| listen.address().is_datagram());
            let door = self.door(own, is_datagram).map_err(about)?;
            if let Some(door) = &door {
                // The limit per peer counts their clients.
                places.iter_mut().flatten().for_each(|listen| {
                    listen.options_mut().trusted_proxies = Some(door.trusted().clone());
                });
            }

            let own_tls = place::tls(uri, &of_tls)?;
            let own_access = entry::own_access(uri, &others)?;
            reloaded.tls.extend(own_tls.clone());
            reloaded.add_access(own_access.as_ref());

            let listed = own_access.or_else(|| usual.cloned());
            access.extend(places.iter().map(|_| listed.clone()));
            doors.extend(places.iter().map(|_| door.clone()));
            tls.extend(places.iter().map(|_| own_tls.clone()));
            names.extend(places.iter().map(|_| PlaceName::new(number, uri)));
            listens.append(&mut places);
        }

        if !is_trust_used {
            let problem = "--trust needs --proxy required or --proxy optional";
            return Err(Failure::Usage(problem.to_owned()));
        }
        Ok(Places {
            listens,
            doors,
            tls,
            access,
            names,
            reloaded,
        })
    }

    /// Returns the door of a listener with these options.
    fn door(&self, own: Own, is_datagram: bool) -> Result<Option<Proxy>, String> {
        let Some(when) = own.proxy.unwrap_or(self.proxy) else {
            return match own.trust {
                Some(_) => Err("trust needs proxy=required or proxy=optional".to_owned()),
                None => Ok(None),
            };
        };

        let sign = if own.proxy.is_some() { "" } else { "--" };
        if is_datagram {
            return Err(format!(
                "{sign}proxy is for tcp, unix and vsock; proxy=off in the query leaves a listener out"
            ));
        }
        let Some(trusted) = own.trust.or_else(|| self.trust.clone()) else {
            return Err(format!(
                "{sign}proxy needs {sign}trust, the networks of the proxies, for example \
                 10.0.0.0/8"
            ));
        };
        Ok(Some(match when {
            When::Required => Proxy::required(trusted),
            When::Optional => Proxy::optional(trusted),
        }))
    }
}

impl Own {
    fn of(given: &[(String, String)]) -> Result<Self, String> {
        let mut own = Self::default();
        if let Some(name) = given_twice(given, &KEYS) {
            return Err(format!("{name} is given twice"));
        }
        for (name, value) in given {
            if entry::KEYS.contains(&name.as_str()) {
                continue;
            }
            if name == "trust" {
                let list = value.parse().map_err(|error| format!("trust: {error}"))?;
                own.trust = Some(list);
            } else {
                own.proxy = Some(parse(value)?);
            }
        }
        Ok(own)
    }
}

fn parse(value: &str) -> Result<Option<When>, String> {
    match value {
        "required" => Ok(Some(When::Required)),
        "optional" => Ok(Some(When::Optional)),
        "off" => Ok(None),
        _ => Err(format!(
            "proxy: expected required, optional or off, not {value:?}"
        )),
    }
}

impl Places {
    pub(super) fn has_doors(&self) -> bool {
        self.doors.iter().any(Option::is_some)
    }

    pub(super) fn addresses(&self) -> Vec<Address> {
        let listens = self.listens.iter().flatten();
        listens.map(|listen| listen.address().clone()).collect()
    }

    /// Makes SIGHUP read certificates and lists again, if there are any, and tell the service manager.
    /// `again` reads the file of options.
    pub(super) fn reload_at_hangup(
        &self,
        notifier: Option<Notifier>,
        again: Option<impl Fn() + Send + Sync + 'static>,
    ) {
        let all = self.reloaded.clone();
        if all.is_empty() && notifier.is_none() && again.is_none() {
            return;
        }
        at_hangup(move || {
            notifier.iter().for_each(Notifier::reloading);
            if let Some(again) = &again {
                again();
            } else if all.is_empty() {
                log::info!(target: TARGET, "SIGHUP: there is nothing to read again");
            }
            all.reload();
            notifier.iter().for_each(Notifier::ready);
        });
    }
}

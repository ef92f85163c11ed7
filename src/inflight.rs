//! In-flight work: where its count is read, and one read of it.
//!
//! *Unknown is not zero.* A read gives a count, or the reason why there is none; each reason has a name that status,
//! metrics and log share.

pub mod exposition;
pub mod json;
pub mod nearest;
pub mod nginx;
pub mod page;
pub mod presets;
pub mod promql;
pub mod sockets;
pub mod text;

mod body;
mod diagnosis;
mod error;
mod listeners;
mod meter;
pub mod opening;
mod processes;
mod source;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::config::ConfigErrors;
use crate::fetch::Client;
pub use error::Error;
pub use listeners::silent_ports;
pub use meter::{Meter, ReadResult, Record};
use page::Page;
pub use sockets::AutoPorts;
pub use source::Source;
use source::without_credentials;

/// A port that is to be found.
const AUTO: &str = "auto";

/// Flags that say what to watch.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "In-flight work")]
pub struct Args {
    /// What to watch: KIND+TRANSPORT://HOST:PORT/PATH#SELECTOR. Repeatable; all must be quiet
    ///
    /// KIND prometheus is for metrics: the selector is PromQL over the one page, such as
    /// sum(http_requests_inprogress{handler!="/metrics"}) or started_total - handled_total; what comes out is summed.
    ///
    /// KIND json: the selector is a JSON pointer to a number, or to an array or object whose members are counted, such
    /// as /workers/0/busy; in /workers/*/busy what every member has is summed.
    ///
    /// KIND text is for a page that is one number, KIND nginx for that of nginx's stub_status; they take no selector.
    ///
    /// TRANSPORT is http, https, unix or file, as in json+unix:///run/app.sock:/stats#/busy or
    /// text+file:///run/work/inflight. Over https any certificate will do on loopback; elsewhere it must be valid.
    ///
    /// The selector is everything after the first #, as written.
    ///
    /// Or, from the kernel, tcp://:PORT counts the connections to a port, and tcp-busy://:PORT those in the middle of a
    /// request. Or a preset, such as fastapi://127.0.0.1:8000; they are listed below.
    #[arg(long, value_name = "SOURCE")]
    pub inflight: Vec<String>,

    /// A counter that rises with every request, as it starts or ends: a source as for --inflight. Repeatable; presets
    /// bring theirs
    ///
    /// It says whether requests still come, on connections from before the drain too. Leave out by labels what is no
    /// client: scrapes and health checks. Of a counter of requests that have ended, add those in flight:
    /// sum(http_requests_total{handler!="/metrics"}) + sum(http_requests_inprogress). KIND nginx reads its requests.
    #[arg(long, value_name = "SOURCE")]
    pub requests: Vec<String>,

    /// The app's port: shows whether requests still arrive, and without --inflight which are under way; or auto: those on
    /// which the pod listens when a drain begins. Repeatable
    #[arg(long, value_name = "PORT")]
    pub app_port: Vec<String>,

    /// What calls the app from within the pod: proxy (its requests on kept connections show that routes still lead here),
    /// clients (they are the pod's own)
    #[arg(long, value_name = "WHAT", default_value = "proxy")]
    pub local_peers: String,

    /// How long one read of one source may take
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub read_timeout: String,
}

/// What to watch, checked.
#[derive(Debug)]
pub struct Settings {
    /// Each of them must be quiet.
    pub sources: Vec<Source>,
    /// Counters of requests.
    pub requests: Vec<Source>,
    /// The ports on which traffic can be watched.
    pub ports: BTreeSet<u16>,
    /// What calls the app from within the pod.
    pub local_peers: LocalPeers,
    /// And those that are found when a drain begins.
    pub auto: Option<AutoPorts>,
    /// How long one read of one source may take.
    pub read_timeout: Duration,
}

/// What calls the app from a loopback address or from the pod's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalPeers {
    /// A proxy in the pod that brings requests from elsewhere, also on connections that it keeps.
    Proxy,
    /// Clients that are in the pod or on this machine, like any others.
    Clients,
}

impl LocalPeers {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text {
            "proxy" => Ok(LocalPeers::Proxy),
            "clients" => Ok(LocalPeers::Clients),
            _ => Err("write proxy or clients"),
        }
    }
}

impl Args {
    /// Checks the flags.
    pub fn validate(&self, errors: &mut ConfigErrors) -> Settings {
        let mut sources: Vec<Source> = (self.inflight.iter())
            .filter_map(|text| {
                errors.check("inflight", &without_credentials(text), Source::parse(text))
            })
            .collect();
        let mut requests = self.counters(errors);
        Source::share_reads(&sources, requests.iter_mut());
        let auto = (self.app_port.iter().any(|text| text == AUTO)).then(AutoPorts::default);
        let mut ports: BTreeSet<u16> = (self.app_port.iter())
            .filter(|text| *text != AUTO)
            .filter_map(|text| errors.check("app-port", text, port(text)))
            .collect();
        if self.inflight.is_empty() && self.app_port.is_empty() {
            errors.say_of(
                "app-port",
                "there is nothing to watch; write --app-port 8000 with your app's port, or --app-port auto, or --inflight \
                 'prometheus+http://127.0.0.1:8000/metrics#http_requests_inprogress' with its port and metric, or both",
            );
        }
        if self.inflight.is_empty() {
            sources.extend(ports.iter().map(|&port| Source::busy(port)));
            sources.extend(auto.clone().map(Source::busy_auto));
        }
        ports.extend(sources.iter().flat_map(Source::ports));
        Settings {
            sources,
            requests,
            ports,
            local_peers: (errors.check(
                "local-peers",
                &self.local_peers,
                LocalPeers::parse(&self.local_peers),
            ))
            .unwrap_or(LocalPeers::Proxy),
            auto,
            read_timeout: errors.positive_duration("read-timeout", &self.read_timeout),
        }
    }
}

impl Args {
    /// The counters of requests: those that are given, else those of the presets.
    fn counters(&self, errors: &mut ConfigErrors) -> Vec<Source> {
        if self.requests.is_empty() {
            return (self.inflight.iter())
                .filter_map(|text| Source::requests_of(text))
                .collect();
        }
        let parse = |text: &String| {
            let source = Source::parse_requests(text)?;
            // What nginx's page and presets say differs between the two flags.
            let same = self.inflight.contains(text);
            match same && !source.page().is_some_and(Page::is_nginx) && text.contains('#') {
                true => Err(
                    "it is given with --inflight too: that is for what falls when a request ends, and this for a \
                     counter that only rises; write the counter's name here"
                        .to_owned(),
                ),
                false => Ok(source),
            }
        };
        (self.requests.iter())
            .filter_map(|text| errors.check("requests", &without_credentials(text), parse(text)))
            .collect()
    }
}

/// What reads need.
#[derive(Debug, Clone)]
pub struct ReadContext {
    /// Sends the requests.
    pub client: Client,
    /// How long one read may take.
    pub read_timeout: Duration,
    /// A connection that moved bytes less than this ago is busy.
    pub quiet_period: Duration,
    /// How long it may be unclear whether a connection is.
    pub max_quiet: Duration,
    /// At or below this count a drain may end.
    pub max_inflight: f64,
    /// The app's ports, whose traffic is watched.
    pub app_ports: BTreeSet<u16>,
    /// Those that are found when a drain begins.
    pub auto: Option<AutoPorts>,
}

impl ReadContext {
    /// Whether the traffic of a port is watched in the drain that runs.
    fn is_watched(&self, port: u16) -> bool {
        let found = self.auto.as_ref().and_then(AutoPorts::found);
        self.app_ports.contains(&port) || found.is_some_and(|ports| ports.contains(&port))
    }
}

/// A port as it was typed.
fn port(text: &str) -> Result<u16, String> {
    (text.parse().ok().filter(|&port| port != 0))
        .ok_or_else(|| format!("{text:?} is not a port; write a number from 1 to 65535"))
}

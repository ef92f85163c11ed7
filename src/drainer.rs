//! The drain and what feeds it: what the sidecar is made of, and a hook that has to drain by itself.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::drain::{
    self, EndpointsLeft, Event, Handle, Owner, Policy, ReadCount, ReadTraffic, Reading,
};
use crate::fetch::{self, Client};
use crate::inflight::{self, Error, Meter, ReadContext};
use crate::metrics::Metrics;
use crate::traffic::{self, KubeletAddresses, Traffic, Watcher};

/// Parts that know each other. The owner and the watcher have to be run.
pub struct Drainer {
    pub owner: Owner,
    pub handle: Handle,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub meters: Arc<[Meter]>,
    pub metrics: Metrics,
    pub client: Client,
    pub kubelet: KubeletAddresses,
    /// None where there is no port whose traffic could be watched.
    pub watcher: Option<Watcher>,
    pub traffic: Option<Traffic>,
}

impl Drainer {
    /// Builds the parts.
    ///
    /// # Errors
    /// Never, but for errors of ours.
    pub fn new(
        inflight: inflight::Settings,
        policy: Policy,
        leave: Option<EndpointsLeft>,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(policy.budget().as_secs_f64())?;
        let client = Client::default();
        let context = ReadContext {
            client: client.clone(),
            read_timeout: inflight.read_timeout,
            quiet_period: policy.quiet_period,
            max_quiet: policy.max_quiet,
        };
        let meters: Arc<[Meter]> = (inflight.sources.into_iter())
            .map(|source| Meter::new(source, context.clone()))
            .collect();
        let kubelet = KubeletAddresses::default();
        let (watcher, traffic) = match inflight.ports {
            ports if ports.is_empty() => (None, None),
            ports => {
                let settings = traffic::Settings {
                    ports,
                    quiet_period: policy.quiet_period,
                    max_quiet: policy.max_quiet,
                    poll_interval: policy.poll_interval,
                };
                let client = client.clone();
                let ours = Arc::new(move |peer| client.own_sockets().contains(peer));
                let (watcher, traffic) = traffic::new(settings, ours, kubelet.clone());
                (Some(watcher), Some(traffic))
            }
        };
        let sources = (meters.iter())
            .map(|meter| drain::Source {
                name: meter.name().to_owned(),
                connections: meter.counts_connections(),
            })
            .collect();
        let look = traffic.clone().map(look);
        let count = count(&meters, &metrics);
        let (owner, handle, events) = drain::new(policy, sources, count, look, leave);
        Ok(Self {
            owner,
            handle,
            events,
            meters,
            metrics,
            client,
            kubelet,
            watcher,
            traffic,
        })
    }
}

/// How the drain looks at traffic.
fn look(traffic: Traffic) -> ReadTraffic {
    Arc::new(move |began, settled| Box::pin(traffic.clone().read(began, settled)))
}

/// How the drain counts: a source that refuses is gone only if something has listened there before.
fn count(meters: &Arc<[Meter]>, metrics: &Metrics) -> ReadCount {
    let (meters, metrics) = (meters.clone(), metrics.clone());
    Arc::new(move |source| {
        let (meters, metrics) = (meters.clone(), metrics.clone());
        Box::pin(async move {
            let meter = &meters[source];
            match read(meter, &metrics).await {
                Ok(count) => Reading::Count(count),
                Err(Error::Http(fetch::Error::Refused)) if meter.record().heard => Reading::Gone,
                Err(_) => Reading::Unknown,
            }
        })
    })
}

async fn read(meter: &Meter, metrics: &Metrics) -> Result<f64, Error> {
    let read = meter.read().await;
    metrics.read(meter.name(), read.as_ref().copied().map_err(Error::kind));
    read
}

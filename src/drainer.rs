//! The drain and what feeds it, joined: both the sidecar and a hook that drains by itself build on it.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cluster::reporter::Occurrence;
use crate::drain::{
    self, EndpointsLeft, Event, Handle, Inputs, Owner, Policy, ReadCount, ReadTraffic, Reading,
};
use crate::fetch::Client;
use crate::inflight::{self, AutoPorts, Error, LocalPeers, Meter, ReadContext};
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::traffic::{self, KubeletAddresses, Traffic, Watcher};

/// What other parts need of a drain: how to ask it, and what it is made of.
#[derive(Clone)]
pub struct Shared {
    pub handle: Handle,
    pub meters: Arc<[Meter]>,
    /// The counters of requests.
    pub counters: Arc<[Meter]>,
    pub metrics: Metrics,
    pub client: Client,
    pub kubelet: KubeletAddresses,
    /// None where there is no port whose traffic could be watched.
    pub traffic: Option<Traffic>,
    /// The app's ports, where they are found when a drain begins.
    pub auto_ports: Option<AutoPorts>,
}

/// A drain and what feeds it, built and not yet running.
pub struct Drainer {
    pub shared: Shared,
    owner: Owner,
    watcher: Option<Watcher>,
    events: mpsc::UnboundedReceiver<Event>,
}

/// A task of the drain that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Owner,
    Watcher,
    Notices,
}

impl Drainer {
    /// Builds the parts.
    ///
    /// # Errors
    /// Never, but for errors of ours.
    pub fn new(
        inflight: inflight::Settings,
        policy: Policy,
        endpoints_left: Option<EndpointsLeft>,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(policy.budget().as_secs_f64())?;
        let client = Client::default();
        let context = ReadContext {
            client: client.clone(),
            read_timeout: inflight.read_timeout,
            quiet_period: policy.quiet_period,
            max_quiet: policy.max_quiet,
            max_inflight: policy.max_inflight,
            app_ports: inflight.ports.clone(),
            auto: inflight.auto.clone(),
        };
        let meters: Arc<[Meter]> = (inflight.sources.into_iter())
            .map(|source| Meter::new(source, context.clone()))
            .collect();
        let counters: Arc<[Meter]> = (inflight.requests.into_iter())
            .map(|source| Meter::new(source, context.clone()))
            .collect();
        let kubelet = KubeletAddresses::default();
        let (watcher, traffic) = watch_traffic(
            inflight.ports,
            inflight.local_peers,
            inflight.auto.clone(),
            &policy,
            &client,
            &kubelet,
        )
        .unzip();
        let sources = (meters.iter())
            .map(|meter| drain::Source {
                name: meter.name().to_owned(),
                connections: meter.counts_connections(),
                ends_when_stuck: meter.ends_when_stuck(),
            })
            .collect();
        let inputs = Inputs {
            read_count: read_count(&meters, &metrics),
            sources,
            counters: (counters.iter())
                .map(|meter| meter.name().to_owned())
                .collect(),
            read_counter: read_counter(&counters, &metrics),
            read_traffic: traffic.clone().map(read_traffic),
            endpoints_left,
        };
        let (owner, handle, events) = drain::new(policy, inputs);
        Ok(Self {
            shared: Shared {
                handle,
                meters,
                counters,
                metrics,
                client,
                kubelet,
                traffic,
                auto_ports: inflight.auto,
            },
            owner,
            watcher,
            events,
        })
    }

    /// Starts its tasks among `tasks`: the owner, the watch on traffic, and the notices, which also `report` what
    /// happens.
    pub fn start<T: From<Task> + Send + 'static>(
        self,
        notices: Notices,
        report: mpsc::UnboundedSender<Occurrence>,
        tasks: &mut JoinSet<T>,
    ) {
        let Self {
            shared,
            owner,
            watcher,
            events,
        } = self;
        tasks.spawn(async move {
            owner.run().await;
            Task::Owner.into()
        });
        if let Some(watcher) = watcher {
            tasks.spawn(async move {
                watcher.run().await;
                Task::Watcher.into()
            });
        }
        tasks.spawn(async move {
            let Shared {
                client,
                metrics,
                traffic,
                ..
            } = shared;
            notices
                .tell(events, &client, &metrics, traffic, &report)
                .await;
            Task::Notices.into()
        });
    }
}

/// A watcher of the app's ports, and how to ask it; nothing where there is no port.
fn watch_traffic(
    ports: BTreeSet<u16>,
    local_peers: LocalPeers,
    auto: Option<AutoPorts>,
    policy: &Policy,
    client: &Client,
    kubelet: &KubeletAddresses,
) -> Option<(Watcher, Traffic)> {
    if ports.is_empty() && auto.is_none() {
        return None;
    }
    let settings = traffic::Settings {
        ports,
        local_peers,
        auto,
        quiet_period: policy.quiet_period,
        max_quiet: policy.max_quiet,
        poll_interval: policy.poll_interval,
    };
    let client = client.clone();
    let is_own = Arc::new(move |peer| client.own_sockets().contains(peer));
    Some(traffic::new(settings, is_own, kubelet.clone()))
}

/// How the drain looks at traffic.
fn read_traffic(traffic: Traffic) -> ReadTraffic {
    Arc::new(move |began, routes_changed| Box::pin(traffic.clone().read(began, routes_changed)))
}

/// How the drain counts: a source that refuses is gone only if something has listened there before.
fn read_count(meters: &Arc<[Meter]>, metrics: &Metrics) -> ReadCount {
    let (meters, metrics) = (meters.clone(), metrics.clone());
    Arc::new(move |source| {
        let (meters, metrics) = (meters.clone(), metrics.clone());
        Box::pin(async move {
            let meter = &meters[source];
            match read(meter, &metrics).await {
                Ok(count) => Reading::Count(count),
                Err(e) if e.is_absent() && meter.record().heard => Reading::Gone,
                Err(e) if e.is_absent() => Reading::Absent,
                Err(_) => Reading::Unknown,
            }
        })
    })
}

/// How the drain reads counters of requests.
fn read_counter(counters: &Arc<[Meter]>, metrics: &Metrics) -> ReadCount {
    let (counters, metrics) = (counters.clone(), metrics.clone());
    Arc::new(move |counter| {
        let (counters, metrics) = (counters.clone(), metrics.clone());
        Box::pin(async move {
            let meter = &counters[counter];
            let read = meter.read().await;
            metrics.counter_read(meter.name(), read.as_ref().copied().map_err(Error::kind));
            read.map_or(Reading::Unknown, Reading::Count)
        })
    })
}

async fn read(meter: &Meter, metrics: &Metrics) -> Result<f64, Error> {
    let read = meter.read().await;
    metrics.read(meter.name(), read.as_ref().copied().map_err(Error::kind));
    read
}

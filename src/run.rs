//! `run`: builds the sidecar's parts, joins them and stops them.

use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::cluster::reporter::{self, Occurrence, Reporter};
use crate::cluster::{self, Cluster};
use crate::drain::{Handle, Policy, Trigger};
use crate::drainer::Drainer;
use crate::http::{App, Server, router};
use crate::inflight::{self, Error, Meter};
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::signal::{Received, Signals};

/// How long to wait for the app's first answer before asking again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// How long the last things may take when the process ends: the kernel's last notices and a call to the API server among
/// them, or not where somebody insists. The kubelet kills no sooner than 2 s after SIGTERM.
const LAST_THINGS: Duration = Duration::from_millis(1900);
const LAST_THINGS_AT_ONCE: Duration = Duration::from_millis(400);

/// What the sidecar does.
#[derive(Debug)]
pub struct Settings {
    /// What to watch.
    pub inflight: inflight::Settings,
    /// When a drain is over.
    pub drain: Policy,
    /// Where to listen, and who may ask.
    pub http: crate::http::Settings,
    /// Whom to tell.
    pub notices: Notices,
    /// What may be asked of the Kubernetes API.
    pub cluster: cluster::Settings,
}

/// A part of the sidecar that has ended.
enum Ended {
    Drain,
    Watcher,
    Server,
    Notices,
    Reporter,
    FirstReads,
}

/// Runs the sidecar until it is told to stop and nothing needs it any more.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let server = Server::bind(settings.http.listen)?;
    let readiness = settings.drain.readiness;
    let read_timeout = settings.inflight.read_timeout;
    let services = settings.cluster.services;
    let cluster = settings.cluster.access.map(Cluster::new);
    let leave = (cluster.clone())
        .filter(|_| !services.is_empty())
        .map(|cluster| reporter::endpoints_left(cluster, services.into()));
    let Drainer {
        owner,
        handle,
        events,
        meters,
        metrics,
        client,
        kubelet,
        watcher,
        traffic,
    } = Drainer::new(settings.inflight, settings.drain, leave)?;
    if let Some(warning) = settings.cluster.warning {
        warn!("{warning}");
    }
    if settings.http.token.is_none() {
        warn!(
            "no token is set: whoever reaches this port can start a drain through /prestop; set --token-file or {}",
            crate::http::TOKEN_VARIABLE
        );
    }
    info!(address = %server.address(), version = env!("CARGO_PKG_VERSION"), "serving");

    let (stop, stopped) = oneshot::channel::<()>();
    let app = App {
        drain: handle.clone(),
        readiness,
        meters: meters.clone(),
        metrics: metrics.clone(),
        client: client.clone(),
        traffic: traffic.clone(),
        kubelet,
        token: settings.http.token,
        app_ready: settings.http.app_ready.map(|url| (url, read_timeout)),
    };
    let mut parts = JoinSet::new();
    parts.spawn(async move {
        owner.run().await;
        Ended::Drain
    });
    parts.spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        server.run(router(app), stop).await;
        Ended::Server
    });
    if let Some(watcher) = watcher {
        parts.spawn(async move {
            watcher.run().await;
            Ended::Watcher
        });
    }
    let (reporter, report) = Reporter::new(cluster, handle.clone());
    parts.spawn(async move {
        reporter.run().await;
        Ended::Reporter
    });
    let notices = settings.notices;
    parts.spawn({
        let (metrics, report) = (metrics.clone(), report.clone());
        async move {
            notices
                .tell(events, &client, &metrics, traffic, &report)
                .await;
            Ended::Notices
        }
    });
    parts.spawn(async move {
        first_reads(&meters, &metrics, |told| {
            let _ = report.send(told);
        })
        .await;
        Ended::FirstReads
    });

    let ended = until_done(&mut signals, &handle, &mut parts).await;
    let _ = stop.send(());
    // The verdict is on its way to the hooks, to the termination message and to the API server.
    let rest = async {
        let mut left = 3;
        while left > 0
            && let Some(ended) = parts.join_next().await
        {
            let last = matches!(ended, Ok(Ended::Notices | Ended::Server | Ended::Reporter));
            left -= u32::from(last);
        }
    };
    let at_once = matches!(ended, Ok(Why::Told));
    let limit = if at_once {
        LAST_THINGS_AT_ONCE
    } else {
        LAST_THINGS
    };
    let _ = timeout(limit, rest).await;
    info!("ended");
    ended.map(drop)
}

/// Why the sidecar ends.
enum Why {
    /// All is done.
    Done,
    /// Somebody insists.
    Told,
}

/// Returns when the drain says that all is done, or when somebody insists.
async fn until_done(
    signals: &mut Signals,
    handle: &Handle,
    parts: &mut JoinSet<Ended>,
) -> anyhow::Result<Why> {
    let mut told = false;
    loop {
        tokio::select! {
            asked = signals.next() => {
                if asked == Received::Interrupt || told {
                    warn!("told to stop at once");
                    // Whoever waits for a verdict gets one.
                    let _ = timeout(LAST_THINGS_AT_ONCE, handle.release()).await;
                    return Ok(Why::Told);
                }
                told = true;
                info!("told to stop");
                handle.drain(Trigger::Signal).await;
            }
            Some(part) = parts.join_next() => match part {
                Ok(Ended::Drain) => return Ok(Why::Done),
                Ok(Ended::FirstReads) => {}
                Ok(Ended::Server) => return Err(anyhow!("the server ended too early")),
                Ok(Ended::Watcher) => return Err(anyhow!("the watch on traffic ended too early")),
                Ok(Ended::Notices) => return Err(anyhow!("the notices ended too early")),
                Ok(Ended::Reporter) => return Err(anyhow!("the Kubernetes part ended too early")),
                Err(e) => return Err(anyhow!(e).context("a part of the sidecar failed")),
            }
        }
    }
}

/// Reads for the first time, and says what cannot work.
async fn check(meter: &Meter, metrics: &Metrics) -> Option<Occurrence> {
    let read = meter.check().await;
    metrics.read(meter.name(), read.as_ref().copied().map_err(Error::kind));
    let record = meter.record();
    let problem = record.problem.filter(|_| record.heard)?;
    Some(Occurrence::Unreadable {
        source: meter.name().to_owned(),
        problem,
    })
}

/// Reads each source once its app answers, so that what cannot work is said before it is needed. Then no timer runs.
async fn first_reads(meters: &[Meter], metrics: &Metrics, tell: impl Fn(Occurrence)) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut silent = false;
        for meter in meters.iter().filter(|meter| !meter.record().heard) {
            if let Some(told) = check(meter, metrics).await {
                tell(told);
            }
            silent |= !meter.record().heard;
        }
        if !silent {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

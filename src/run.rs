//! `run`: builds the sidecar's parts, joins them and stops them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::anyhow;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use crate::cluster::reporter::{self, Occurrence, Reporter};
use crate::cluster::{self, Cluster};
use crate::drain::{Handle, Policy, Trigger};
use crate::drainer::{self, Drainer, Shared};
use crate::http::{App, Server, router};
use crate::inflight::{self, Error, Meter};
use crate::metrics::Metrics;
use crate::notices::Notices;
use crate::signal::{Received, Signals};

/// How long to wait for the app's first answer before asking again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// How long the last things may take when the process ends: the kernel's last notices and a call to the API server among
/// them, unless it is told to stop at once. The kubelet kills no sooner than 2 s after SIGTERM.
const LAST_THINGS: Duration = Duration::from_millis(1900);
const LAST_THINGS_AT_ONCE: Duration = Duration::from_millis(400);

/// How long to wait before a port that is taken is tried again.
const PORT_PAUSE: Duration = Duration::from_secs(5);

/// What the sidecar does.
#[derive(Debug)]
pub struct Settings {
    /// What to watch.
    pub inflight: inflight::Settings,
    /// When a drain is over.
    pub drain: Policy,
    /// Where to listen, and which requests are let through.
    pub http: crate::http::Settings,
    /// Which parts of the pod are told of a drain.
    pub notices: Notices,
    /// What may be asked of the Kubernetes API.
    pub cluster: cluster::Settings,
    /// A mistake, or a port that is taken, must not keep the app from starting.
    pub keep_running: bool,
    /// Mistakes in the flags or the environment, for which defaults were taken.
    pub mistakes: Vec<String>,
}

/// A task of the sidecar that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TaskEnded {
    Drainer(drainer::Task),
    Server,
    Reporter,
    FirstReads,
}

impl From<drainer::Task> for TaskEnded {
    fn from(task: drainer::Task) -> Self {
        TaskEnded::Drainer(task)
    }
}

/// Why the sidecar ends.
enum EndReason {
    /// All is done.
    Done,
    /// A second SIGTERM, or SIGINT.
    AtOnce,
}

/// Runs the sidecar until it is told to stop and nothing needs it any more.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    for mistake in &settings.mistakes {
        error!("{mistake}; the default is used, as --on-mistake says");
    }
    let server = match Server::bind(settings.http.listen) {
        Err(e) if settings.keep_running => {
            error!(
                "{e:#}; the app runs without drains until the port is free: it is tried again and again"
            );
            match free_port(settings.http.listen, &mut signals).await {
                Some(server) => server,
                None => return Ok(()),
            }
        }
        bound => bound?,
    };
    if let Some(auto) = &settings.inflight.auto {
        auto.leave_out(server.address().port());
    }
    let readiness = settings.drain.readiness;
    let read_timeout = settings.inflight.read_timeout;
    let ports = settings.inflight.ports.clone();
    let services = settings.cluster.services;
    let cluster = settings.cluster.access.map(Cluster::new);
    let endpoints_left = (cluster.clone())
        .filter(|_| !services.is_empty())
        .map(|cluster| reporter::endpoints_left(cluster, services.into()));
    let drainer = Drainer::new(settings.inflight, settings.drain, endpoints_left)?;
    if let Some(warning) = settings.cluster.warning {
        warn!("{warning}");
    }
    if settings.http.token.is_none() {
        warn!(
            "no token is set: every client that reaches this port can start a drain through /prestop; set --token-file \
             or {}",
            crate::http::TOKEN_VARIABLE
        );
    }
    info!(address = %server.address(), version = env!("CARGO_PKG_VERSION"), "serving");

    let shared = drainer.shared.clone();
    shared.metrics.mistakes(settings.mistakes.len());
    let app = App {
        drain: shared.handle.clone(),
        readiness,
        meters: shared.meters.clone(),
        counters: shared.counters.clone(),
        metrics: shared.metrics.clone(),
        client: shared.client.clone(),
        traffic: shared.traffic.clone(),
        kubelet: shared.kubelet.clone(),
        auto_ports: shared.auto_ports.clone(),
        mistakes: settings.mistakes.clone().into(),
        token: settings.http.token,
        app_ready: settings.http.app_ready.map(|url| (url, read_timeout)),
    };
    let mut tasks = JoinSet::new();
    let (reporter, report) = Reporter::new(cluster, shared.handle.clone(), shared.traffic.clone());
    let restarted_in_drain = settings.notices.drain_was_running();
    drainer.start(settings.notices, report.clone(), &mut tasks);
    if restarted_in_drain {
        warn!(
            "the drain file says that this container was restarted in the middle of a drain: the drain goes on, but a hook \
             that waited was answered by that restart"
        );
        shared.handle.drain(Trigger::Restart).await;
    }
    if !settings.mistakes.is_empty() {
        let _ = report.send(Occurrence::Mistakes(settings.mistakes));
    }
    let (stop, stopped) = oneshot::channel::<()>();
    tasks.spawn(async move {
        let stop = async {
            let _ = stopped.await;
        };
        server.run(router(app), stop).await;
        TaskEnded::Server
    });
    tasks.spawn(async move {
        reporter.run().await;
        TaskEnded::Reporter
    });
    let Shared {
        handle,
        meters,
        metrics,
        ..
    } = shared;
    tasks.spawn(async move {
        first_reads(&meters, &metrics, |occurrence| {
            let _ = report.send(occurrence);
        })
        .await;
        // The app answers, so that its port should listen too.
        if let Some(warning) = inflight::silent_ports(&ports).await {
            warn!("{warning}");
        }
        TaskEnded::FirstReads
    });

    let end = until_done(&mut signals, &handle, &mut tasks).await;
    let _ = stop.send(());
    finish(end.as_ref().ok(), tasks).await;
    info!("ended");
    end.map(drop)
}

/// The server, once its port is free; nothing where the process is told to stop before.
async fn free_port(listen: SocketAddr, signals: &mut Signals) -> Option<Server> {
    loop {
        tokio::select! {
            _ = signals.next() => return None,
            () = sleep(PORT_PAUSE) => {}
        }
        if let Ok(server) = Server::bind(listen) {
            return Some(server);
        }
    }
}

/// Returns when the drain says that all is done, or when the sidecar is told to stop at once.
async fn until_done(
    signals: &mut Signals,
    handle: &Handle,
    tasks: &mut JoinSet<TaskEnded>,
) -> anyhow::Result<EndReason> {
    let mut told_to_stop = false;
    loop {
        tokio::select! {
            signal = signals.next() => {
                if signal == Received::Interrupt || told_to_stop {
                    warn!("told to stop at once");
                    // The hooks that wait for a verdict get one.
                    let _ = timeout(LAST_THINGS_AT_ONCE, handle.release()).await;
                    return Ok(EndReason::AtOnce);
                }
                told_to_stop = true;
                info!("told to stop");
                handle.drain(Trigger::Signal).await;
            }
            Some(task) = tasks.join_next() => match task {
                Ok(TaskEnded::Drainer(drainer::Task::Owner)) => return Ok(EndReason::Done),
                Ok(TaskEnded::FirstReads) => {}
                Ok(TaskEnded::Server) => return Err(anyhow!("the server ended too early")),
                Ok(TaskEnded::Drainer(drainer::Task::Watcher)) => {
                    return Err(anyhow!("the watch on traffic ended too early"));
                }
                Ok(TaskEnded::Drainer(drainer::Task::Notices)) => {
                    return Err(anyhow!("the notices ended too early"));
                }
                Ok(TaskEnded::Reporter) => return Err(anyhow!("the Kubernetes part ended too early")),
                Err(e) => return Err(anyhow!(e).context("a part of the sidecar failed")),
            }
        }
    }
}

/// Waits for the verdict to reach the hooks, the termination message and the API server, within a limit.
async fn finish(end: Option<&EndReason>, mut tasks: JoinSet<TaskEnded>) {
    let rest = async {
        let mut left = 3;
        while left > 0
            && let Some(task) = tasks.join_next().await
        {
            let tells_verdict = matches!(
                task,
                Ok(TaskEnded::Drainer(drainer::Task::Notices)
                    | TaskEnded::Server
                    | TaskEnded::Reporter)
            );
            left -= u32::from(tells_verdict);
        }
    };
    let limit = match end {
        Some(EndReason::AtOnce) => LAST_THINGS_AT_ONCE,
        _ => LAST_THINGS,
    };
    let _ = timeout(limit, rest).await;
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
async fn first_reads(meters: &[Meter], metrics: &Metrics, report: impl Fn(Occurrence)) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut silent = false;
        for meter in meters.iter().filter(|meter| !meter.record().answered) {
            if let Some(occurrence) = check(meter, metrics).await {
                report(occurrence);
            }
            silent |= !meter.record().answered;
        }
        if !silent {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

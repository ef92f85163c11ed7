//! `run`: builds the sidecar's parts, joins them and stops them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use http::Method;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::drain::{self, Count, Event, Handle, Look, Policy, Reading, Trigger, Verdict};
use crate::fetch::{self, Client, Url};
use crate::http::{App, Server, router};
use crate::inflight::{self, Error, Means, Meter};
use crate::metrics::Metrics;
use crate::mistake::Mistakes;
use crate::report;
use crate::signal::{Asked, Signals};
use crate::traffic::{self, Kubelet, Traffic};

/// The kubelet makes this file where a container says nothing else.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// How long to wait for the app's first answer before asking again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(15);

/// How often the app is told that a drain starts, and how long to wait for its answer and between two tries.
const TRIES: u32 = 3;
const TRY_LIMIT: Duration = Duration::from_secs(1);
const TRY_PAUSE: Duration = Duration::from_millis(200);

/// How long the last things may take when the process ends.
const LAST_THINGS: Duration = Duration::from_millis(500);

/// Flags that say whom to tell.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Who is told")]
pub struct Args {
    /// POSTed once when a drain starts, so that the app can say Connection: close. Repeatable
    #[arg(long, value_name = "URL")]
    pub notify: Vec<String>,

    /// Made when a drain starts and removed when serving again, for apps that would rather look at a file
    #[arg(long, value_name = "PATH")]
    pub drain_file: Option<PathBuf>,

    /// Where the verdict goes in one line, if it can be written
    #[arg(long, value_name = "PATH", default_value = TERMINATION_LOG)]
    pub termination_log: PathBuf,
}

/// Whom to tell, checked.
#[derive(Debug)]
pub struct Notices {
    /// Each gets a `POST` when a drain starts.
    pub notify: Vec<Url>,
    /// Is there while draining.
    pub drain_file: Option<PathBuf>,
    /// Where the verdict goes.
    pub termination_log: PathBuf,
}

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
}

impl Args {
    /// Checks the flags.
    pub fn settle(&self, mistakes: &mut Mistakes) -> Notices {
        if let Some(path) = &self.drain_file {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            if path.is_dir() {
                mistakes.add(
                    "drain-file",
                    &path.to_string_lossy(),
                    "it is a folder; write a file's name in it",
                );
            } else if folder.is_some_and(|folder| !folder.is_dir()) {
                let message =
                    "its folder does not exist; mount the volume there that the app shares";
                mistakes.add("drain-file", &path.to_string_lossy(), message);
            }
        }
        Notices {
            notify: (self.notify.iter())
                .filter_map(|text| mistakes.check("notify", text, Url::parse(text)))
                .collect(),
            drain_file: self.drain_file.clone(),
            termination_log: self.termination_log.clone(),
        }
    }
}

/// A part of the sidecar that has ended.
enum Ended {
    Drain,
    Watcher,
    Server,
    Notices,
    FirstReads,
}

/// Runs the sidecar until it is told to stop and nothing needs it any more.
///
/// # Errors
/// When it cannot start, or a part of it fails.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let server = Server::bind(settings.http.listen)?;
    let metrics = Metrics::new(settings.drain.budget.as_secs_f64())?;
    let read_timeout = settings.inflight.read_timeout;
    let client = Client::default();
    let means = Means {
        client: client.clone(),
        read_timeout,
        quiet_period: settings.drain.quiet_period,
        max_quiet: settings.drain.max_quiet,
    };
    let meters: Arc<[Meter]> = settings
        .inflight
        .sources
        .into_iter()
        .map(|source| Meter::new(source, means.clone()))
        .collect();
    let kubelet = Kubelet::default();
    let (watcher, traffic) = match settings.inflight.ports {
        ports if ports.is_empty() => (None, None),
        ports => {
            let settings = traffic::Settings {
                ports,
                quiet_period: settings.drain.quiet_period,
                max_quiet: settings.drain.max_quiet,
                poll_interval: settings.drain.poll_interval,
                grace_period: settings.drain.grace_period,
            };
            let client = client.clone();
            let ours = Arc::new(move |peer| client.ours().is_ours(peer));
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
    let readiness = settings.drain.readiness;
    let look = traffic.clone().map(look);
    let (owner, handle, events) =
        drain::new(settings.drain, sources, count(&meters, &metrics), look);
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
    let notices = settings.notices;
    parts.spawn({
        let metrics = metrics.clone();
        async move {
            tell(&notices, events, &client, &metrics, traffic).await;
            Ended::Notices
        }
    });
    parts.spawn(async move {
        first_reads(&meters, &metrics).await;
        Ended::FirstReads
    });

    let ended = until_done(&mut signals, &handle, &mut parts).await;
    let _ = stop.send(());
    drop(handle);
    // The verdict is on its way to the hooks, and to the termination message.
    let rest = async {
        let mut left = 2;
        while left > 0
            && let Some(ended) = parts.join_next().await
        {
            left -= u32::from(matches!(ended, Ok(Ended::Notices | Ended::Server)));
        }
    };
    let _ = timeout(LAST_THINGS, rest).await;
    info!("ended");
    ended
}

/// Returns when the drain says that all is done, or when somebody insists.
async fn until_done(
    signals: &mut Signals,
    handle: &Handle,
    parts: &mut JoinSet<Ended>,
) -> anyhow::Result<()> {
    let mut told = false;
    loop {
        tokio::select! {
            asked = signals.next() => {
                if asked == Asked::Interrupt || told {
                    warn!("told to stop at once");
                    // Whoever waits for a verdict gets one.
                    let _ = timeout(LAST_THINGS, handle.release()).await;
                    return Ok(());
                }
                told = true;
                info!("told to stop");
                handle.drain(Trigger::Signal).await;
            }
            Some(part) = parts.join_next() => match part {
                Ok(Ended::Drain) => return Ok(()),
                Ok(Ended::FirstReads) => {}
                Ok(Ended::Server) => return Err(anyhow!("the server ended too early")),
                Ok(Ended::Watcher) => return Err(anyhow!("the watch on traffic ended too early")),
                Ok(Ended::Notices) => return Err(anyhow!("the notices ended too early")),
                Err(e) => return Err(anyhow!(e).context("a part of the sidecar failed")),
            }
        }
    }
}

/// How the drain looks at traffic.
fn look(traffic: Traffic) -> Look {
    Arc::new(move |began, settled| Box::pin(traffic.clone().look(began, settled)))
}

/// How the drain counts: a source that refuses is gone only if something has listened there before.
fn count(meters: &Arc<[Meter]>, metrics: &Metrics) -> Count {
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

/// Reads for the first time.
async fn check(meter: &Meter, metrics: &Metrics) {
    let read = meter.check().await;
    metrics.read(meter.name(), read.as_ref().copied().map_err(Error::kind));
}

/// Reads each source once its app answers, so that what cannot work is said before it is needed. Then no timer runs.
async fn first_reads(meters: &[Meter], metrics: &Metrics) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut silent = false;
        for meter in meters.iter().filter(|meter| !meter.record().heard) {
            check(meter, metrics).await;
            silent |= !meter.record().heard;
        }
        if !silent {
            return;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Tells the app, the termination message and the metrics what happens.
async fn tell(
    notices: &Notices,
    mut events: mpsc::UnboundedReceiver<Event>,
    client: &Client,
    metrics: &Metrics,
    traffic: Option<Traffic>,
) {
    // Of a life before this one: the container was restarted in the middle of a drain.
    remove(notices.drain_file.as_deref()).await;
    let mut notifying = JoinSet::new();
    let mut last = None;
    while let Some(event) = events.recv().await {
        match event {
            Event::Began => {
                for url in notices.notify.clone() {
                    notifying.spawn(notify(client.clone(), url));
                }
                if let Some(path) = &notices.drain_file
                    && let Err(e) = tokio::fs::write(path, "draining\n").await
                {
                    warn!(path = %path.display(), "cannot make the drain file: {e}");
                }
            }
            Event::Ended(verdict) => {
                if let Some(traffic) = &traffic {
                    traffic.answered();
                }
                metrics.drained(&verdict);
                leave_message(&notices.termination_log, &verdict, 0).await;
                last = Some(verdict);
            }
            Event::Serving => {
                if let (Some(traffic), Some(verdict)) = (&traffic, last.take()) {
                    sum(&notices.termination_log, &verdict, traffic).await;
                    traffic.rest();
                }
                notifying.abort_all();
                remove(notices.drain_file.as_deref()).await;
            }
        }
        while notifying.try_join_next().is_some() {}
    }
    if let (Some(traffic), Some(verdict)) = (&traffic, last) {
        sum(&notices.termination_log, &verdict, traffic).await;
    }
}

/// Says how many requests have been cut off since a drain, if any were.
async fn sum(termination_log: &Path, verdict: &Verdict, traffic: &Traffic) {
    let cut = traffic.sum().await.cut;
    if cut > 0 {
        warn!(
            cut,
            outcome = verdict.outcome.name(),
            "requests were cut off: their connections ended without an answer after the hook was answered"
        );
        leave_message(termination_log, verdict, cut).await;
    }
}

async fn remove(drain_file: Option<&Path>) {
    let Some(path) = drain_file else { return };
    match tokio::fs::remove_file(path).await {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            warn!(path = %path.display(), "cannot remove the drain file: {e}");
        }
        _ => {}
    }
}

/// Leaves the verdict as the termination message, if it can be written.
async fn leave_message(path: &Path, verdict: &Verdict, cut: u64) {
    let line = format!("{}\n", report::line(verdict, cut));
    if let Err(e) = write_message(path, line).await {
        debug!(path = %path.display(), "no termination message: {e}");
    }
}

/// Overwrites the message. The kubelet's own file is there or there is no kubelet, so it is never made.
async fn write_message(path: &Path, line: String) -> std::io::Result<()> {
    let (create, path) = (path != Path::new(TERMINATION_LOG), path.to_owned());
    let write = move || {
        let mut file = std::fs::File::options()
            .write(true)
            .truncate(true)
            .create(create)
            .open(path)?;
        std::io::Write::write_all(&mut file, line.as_bytes())
    };
    tokio::task::spawn_blocking(write).await?
}

/// Tells the app that a drain has begun.
async fn notify(client: Client, url: Url) {
    for attempt in 1..=TRIES {
        match client.status(Method::POST, &url, TRY_LIMIT).await {
            Ok(status) if status.is_success() => {
                info!(%url, "the app was told");
                return;
            }
            Ok(status) => warn!(%url, attempt, "the app was told, and answered {status}"),
            Err(e) => warn!(%url, attempt, "the app could not be told: {e}"),
        }
        sleep(TRY_PAUSE * attempt).await;
    }
}

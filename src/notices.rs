//! Notices of what happens to a drain: to the app, the termination message, the metrics and the Kubernetes API.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::cluster::reporter::Occurrence;
use crate::config::{ConfigErrors, Files};
use crate::drain::{Event, Outcome, Verdict};
use crate::fetch::{Client, Url};
use crate::metrics::Metrics;
use crate::report::{self, Aftermath};
use crate::threads::apart_if_possible;
use crate::traffic::Traffic;

/// The kubelet makes this file where a container says nothing else.
const TERMINATION_LOG: &str = "/dev/termination-log";

/// What is in the drain file.
const DRAINING: &str = "draining\n";

/// How often the notice to the app is tried, how long one try may take, and the pause after a failed one.
const TRIES: u32 = 3;
const TRY_LIMIT: Duration = Duration::from_secs(1);
const TRY_PAUSE: Duration = Duration::from_millis(200);

/// Flags of the notices.
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

/// Where notices go, checked.
#[derive(Debug, Clone)]
pub struct Notices {
    /// Each gets a `POST` when a drain starts.
    pub notify: Vec<Url>,
    /// Exists while draining.
    pub drain_file: Option<PathBuf>,
    /// Where the verdict goes.
    pub termination_log: PathBuf,
}

impl Args {
    /// Checks the flags.
    pub fn validate(&self, errors: &mut ConfigErrors) -> Notices {
        if let (Some(path), Files::Here) = (&self.drain_file, errors.files()) {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            if path.is_dir() {
                errors.add(
                    "drain-file",
                    &path.to_string_lossy(),
                    "it is a folder; write a file's name in it",
                );
            } else if folder.is_some_and(|folder| !folder.is_dir()) {
                let message =
                    "its folder does not exist; mount the volume there that the app shares";
                errors.add("drain-file", &path.to_string_lossy(), message);
            }
        }
        Notices {
            notify: (self.notify.iter())
                .filter_map(|text| errors.check("notify", text, Url::parse(text)))
                .collect(),
            drain_file: self.drain_file.clone(),
            termination_log: self.termination_log.clone(),
        }
    }
}

impl Notices {
    /// Sends the notices of each event, until the drain sends no more events.
    pub async fn tell(
        &self,
        mut events: mpsc::UnboundedReceiver<Event>,
        client: &Client,
        metrics: &Metrics,
        traffic: Option<Traffic>,
        report_to_cluster: &mpsc::UnboundedSender<Occurrence>,
    ) {
        // The sidecar's container may have been restarted in the middle of a drain.
        self.remove_drain_file().await;
        let mut notifying = JoinSet::new();
        let mut last = None;
        // Whether the drain that runs, or the last one, was for the app to stop.
        let mut stopping = false;
        // Requests cut off that have been told of.
        let mut told = 0;
        while let Some(event) = events.recv().await {
            // First, since the rest may wait for a disk.
            let _ = report_to_cluster.send(Occurrence::Event(event.clone()));
            match event {
                Event::Began(_) => {
                    stopping = false;
                    for url in self.notify.clone() {
                        notifying.spawn(notify(client.clone(), url));
                    }
                    self.make_drain_file().await;
                }
                Event::Stopping(_) => stopping = true,
                Event::DeadlineChanged(drain) => {
                    metrics.deadline_changed(drain.deadline - drain.began);
                }
                Event::Ended(drain, verdict) => {
                    // By hand, no app stops, and the clients that leave do so by themselves.
                    if let Some(traffic) = traffic.as_ref().filter(|_| stopping) {
                        let gone = verdict.outcome == Outcome::AppGone;
                        traffic.hook_answered(drain.grace_ends, gone);
                    }
                    metrics.drained(&verdict);
                    let past = Past {
                        verdict,
                        aftermath: Aftermath::default(),
                    };
                    self.leave_message(&past).await;
                    last = Some(past);
                }
                Event::AppEnded(_, end) => {
                    metrics.app_ended(end);
                    if let Some(past) = &mut last {
                        past.aftermath.app_end = Some(end);
                        self.leave_message(past).await;
                    }
                }
                Event::Serving => {
                    let over = self
                        .over(last.take(), traffic.as_ref(), &mut told, true)
                        .await;
                    if let Some(traffic) = &traffic {
                        traffic.stop();
                    }
                    notifying.abort_all();
                    self.remove_drain_file().await;
                    let _ = report_to_cluster.send(over);
                }
            }
            while notifying.try_join_next().is_some() {}
        }
        let over = self.over(last, traffic.as_ref(), &mut told, false).await;
        let _ = report_to_cluster.send(over);
    }

    /// Whether the drain file says that a drain runs: at start, the one in which this container was restarted. A volume
    /// lives as long as its pod.
    pub fn drain_was_running(&self) -> bool {
        let text = (self.drain_file.as_ref()).and_then(|path| std::fs::read_to_string(path).ok());
        text.is_some_and(|text| text == DRAINING)
    }

    /// Says that a drain runs.
    async fn make_drain_file(&self) {
        if let Some(path) = &self.drain_file
            && let Err(e) = make_file(path.clone()).await
        {
            warn!(path = %path.display(), "cannot make the drain file: {e}");
        }
    }

    /// Removes the drain file: no drain runs.
    pub async fn remove_drain_file(&self) {
        let Some(path) = &self.drain_file else { return };
        let removed = path.clone();
        match apart_if_possible(move || std::fs::remove_file(&removed)).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                warn!(path = %path.display(), "cannot remove the drain file: {e}");
            }
            _ => {}
        }
    }

    /// What there is to say once a drain is history: the pod is `serving` again, or the sidecar ends. Of requests that
    /// were cut off, those that were `told` of before are left out.
    async fn over(
        &self,
        past: Option<Past>,
        traffic: Option<&Traffic>,
        told: &mut u64,
        serving: bool,
    ) -> Occurrence {
        let handed_over =
            (past.as_ref()).is_some_and(|past| past.verdict.outcome == Outcome::HandedOver);
        let mut cut = 0;
        if let (Some(mut past), Some(traffic)) = (past, traffic) {
            let total = traffic.final_counts(!serving).await.cut_total;
            cut = total - std::mem::replace(told, total);
            if cut > 0 {
                past.aftermath.cut = cut;
                past.warn_of_cut();
                self.leave_message(&past).await;
            }
        }
        Occurrence::Over {
            cut,
            handed_over,
            serving,
        }
    }

    /// Leaves the verdict, and what has happened since, as the termination message, if it can be written.
    async fn leave_message(&self, past: &Past) {
        let path = &self.termination_log;
        let line = format!("{}\n", report::line(&past.verdict, past.aftermath));
        match write_message(path, line).await {
            Ok(()) => {}
            // Outside of a container there is no such file.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                debug!(path = %path.display(), "no termination message: {e}");
            }
            Err(e) => {
                warn!(path = %path.display(), "cannot leave the verdict as the termination message: {e}");
            }
        }
    }
}

/// A drain that is over, and what has happened since.
struct Past {
    verdict: Arc<Verdict>,
    aftermath: Aftermath,
}

impl Past {
    fn warn_of_cut(&self) {
        let cut = self.aftermath.cut;
        let outcome = self.verdict.outcome.name();
        warn!(
            cut,
            outcome,
            "requests were cut off: their connections ended without an answer after the hook was answered"
        );
        if self.verdict.outcome == Outcome::HandedOver {
            warn!("{}", report::NOT_GRACEFUL);
        }
    }
}

/// Overwrites the message. Where a kubelet runs the container its file exists already, so that one is never created.
async fn write_message(path: &Path, line: String) -> std::io::Result<()> {
    let (create, path) = (path != Path::new(TERMINATION_LOG), path.to_owned());
    apart_if_possible(move || {
        let mut file = std::fs::File::options()
            .write(true)
            .truncate(true)
            .create(create)
            .open(&path)?;
        std::io::Write::write_all(&mut file, line.as_bytes())
    })
    .await
}

/// Makes the drain file. Its name is the notice: what is written in it does not matter, so that a full disk keeps no app
/// from being told.
async fn make_file(path: PathBuf) -> std::io::Result<()> {
    apart_if_possible(move || std::fs::write(&path, DRAINING)).await
}

/// Sends the notice that a drain has begun.
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

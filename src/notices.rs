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
use crate::report;
use crate::traffic::Traffic;

/// The kubelet makes this file where a container says nothing else.
const TERMINATION_LOG: &str = "/dev/termination-log";

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
        // Requests cut off that have been reported.
        let mut reported = 0;
        while let Some(event) = events.recv().await {
            // First, since the rest may wait for a disk.
            let _ = report_to_cluster.send(Occurrence::Event(event.clone()));
            match event {
                Event::Began(_) => {
                    stopping = false;
                    for url in self.notify.clone() {
                        notifying.spawn(notify(client.clone(), url));
                    }
                    if let Some(path) = &self.drain_file
                        && let Err(e) = tokio::fs::write(path, "draining\n").await
                    {
                        warn!(path = %path.display(), "cannot make the drain file: {e}");
                    }
                }
                Event::Stopping(_) => stopping = true,
                Event::DeadlineChanged(drain) => {
                    metrics.deadline_changed(drain.deadline - drain.began)
                }
                Event::Ended(drain, verdict) => {
                    // A drain by hand stops no app: clients that leave do so by themselves.
                    if let Some(traffic) = traffic.as_ref().filter(|_| stopping) {
                        let gone = verdict.outcome == Outcome::AppGone;
                        traffic.hook_answered(drain.grace_ends, gone);
                    }
                    metrics.drained(&verdict);
                    write_verdict(&self.termination_log, &verdict, 0).await;
                    last = Some(verdict);
                }
                Event::Serving => {
                    let cut = self
                        .report_cut(last.take(), traffic.as_ref(), &mut reported, false)
                        .await;
                    if let Some(traffic) = &traffic {
                        traffic.stop();
                    }
                    notifying.abort_all();
                    self.remove_drain_file().await;
                    let _ = report_to_cluster.send(Occurrence::Over { cut, serving: true });
                }
            }
            while notifying.try_join_next().is_some() {}
        }
        let cut = self
            .report_cut(last, traffic.as_ref(), &mut reported, true)
            .await;
        let _ = report_to_cluster.send(Occurrence::Over {
            cut,
            serving: false,
        });
    }

    /// Removes the drain file: no drain runs.
    pub async fn remove_drain_file(&self) {
        let Some(path) = &self.drain_file else { return };
        match tokio::fs::remove_file(path).await {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                warn!(path = %path.display(), "cannot remove the drain file: {e}");
            }
            _ => {}
        }
    }

    /// Reports the requests that were cut off since the last report, and how many they are; `ends` where the sidecar does.
    async fn report_cut(
        &self,
        drained: Option<Arc<Verdict>>,
        traffic: Option<&Traffic>,
        reported: &mut u64,
        ends: bool,
    ) -> u64 {
        let (Some(verdict), Some(traffic)) = (drained, traffic) else {
            return 0;
        };
        let total = traffic.final_counts(ends).await.cut_total;
        let cut = total - std::mem::replace(reported, total);
        if cut > 0 {
            warn!(
                cut,
                outcome = verdict.outcome.name(),
                "requests were cut off: their connections ended without an answer after the hook was answered"
            );
            write_verdict(&self.termination_log, &verdict, cut).await;
        }
        cut
    }
}

/// Writes the verdict as the termination message, if it can be written.
async fn write_verdict(path: &Path, verdict: &Verdict, cut: u64) {
    let line = format!("{}\n", report::line(verdict, cut));
    if let Err(e) = write_message(path, line).await {
        debug!(path = %path.display(), "no termination message: {e}");
    }
}

/// Overwrites the message. Where a kubelet runs the container its file exists already, so that one is never created.
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

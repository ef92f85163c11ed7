//! One way, rehearsed from the app's start to the last answer.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::app::{App, describe};
use super::clients::{self, Seen};
use super::kubelet::{self, Terminated};
use super::local::Settings;
use super::network::Network;
use super::page::{self, Page};
use super::ports;
use super::record::{End, Request, Run};
use super::report::progress::Progress;
use super::routes::{Endpoint, Place, Routes};
use super::sidecar::Sidecar;
use super::way::Way;

/// How long the clients go on when all has changed.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// How much longer than the first instance one in a network of its own may take.
const MUCH_LONGER: u32 = 3;
const SOME_MORE: Duration = Duration::from_secs(5);

/// How long a port that is about to be used is asked whether something listens there.
const ASK: Duration = Duration::from_secs(1);

/// Rehearses one way; also what the app's metrics page offers, as it was under load.
///
/// # Errors
/// When the app or the sidecar does not start, or does not serve the URLs.
pub async fn run(
    settings: &Settings,
    way: Way,
    folder: &Path,
    progress: &Progress,
) -> anyhow::Result<(Run, Option<Page>)> {
    progress.say(&format!("{}: starting the app", way.title()));
    let mut pods = Pods::start(settings, way, folder, progress).await?;
    let seen = Seen::default();
    let rehearsal = rehearse(settings, way, &mut pods, &seen, folder, progress);
    let title = way.title();
    tokio::select! {
        result = rehearsal => result,
        never = progress.follow(&title, || seen.counts()) => match never {},
    }
}

/// What runs: the app, the sidecar beside it, and the instance that takes over.
struct Pods {
    app: App,
    sidecar: Option<Sidecar>,
    second: Option<App>,
    /// Why there is none.
    alone: Option<String>,
    /// The second one's, where the app's port is fixed.
    network: Option<Network>,
}

impl Pods {
    async fn start(
        settings: &Settings,
        way: Way,
        folder: &Path,
        progress: &Progress,
    ) -> anyhow::Result<Self> {
        let began = Instant::now();
        let app = start_app(settings, &folder.join(format!("{way}-1.log"))).await?;
        must_serve(settings, &app).await?;
        let took = began.elapsed();
        let sidecar = match way {
            Way::Gracekeeper | Way::Handover => {
                let mut flags = settings.sidecar.clone();
                if way == Way::Handover {
                    flags.retain(|flag| !flag.starts_with("--app-shutdown"));
                    flags.push("--app-shutdown=graceful".to_owned());
                }
                let sidecar = Sidecar::start(&flags, app.address.port(), folder).await?;
                kubelet::wait_until_ready(sidecar.address, settings.start_timeout).await?;
                Some(sidecar)
            }
            Way::None | Way::Sleep(_) => None,
        };
        let output = folder.join(format!("{way}-2.log"));
        let mut pods = Self {
            app,
            sidecar,
            second: None,
            alone: None,
            network: None,
        };
        if settings.chooses_port() {
            pods.second = Some(start_app(settings, &output).await?);
            return Ok(pods);
        }
        match start_elsewhere(settings, pods.app.address, &output, took).await {
            Ok((second, network)) => {
                pods.second = Some(second);
                pods.network = Some(network);
            }
            Err(e) => {
                let why = format!("{e:#}");
                progress.say(&format!(
                    "{}: no second instance takes over: {why}",
                    way.title()
                ));
                pods.alone = Some(why);
            }
        }
        Ok(pods)
    }

    /// Where new connections go when the app that is terminated gets none.
    fn other(&self) -> Option<Endpoint> {
        self.second.as_ref().map(|second| Endpoint {
            instance: 1,
            place: Place::At(second.address),
        })
    }
}

/// Asks an instance for each URL once.
async fn must_serve(settings: &Settings, app: &App) -> anyhow::Result<()> {
    for target in &settings.load.targets {
        let (body, limit) = (&settings.load.body, settings.load.timeout);
        match clients::probe(target, Place::At(app.address), body, limit).await {
            Err(cause) => bail!("{} has no answer: {}", target.url, cause.title()),
            Ok(status) if !status.is_good() => bail!(
                "{} answers {status}; write a URL that the app serves",
                target.url
            ),
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Starts an instance with the same port as the first, in a network of its own, of which it does not see more than
/// loopback. The first one took so long to serve.
async fn start_elsewhere(
    settings: &Settings,
    first: SocketAddr,
    output: &Path,
    took: Duration,
) -> anyhow::Result<(App, Network)> {
    let network = Network::make(first).await?;
    let within = settings.start_timeout.min(MUCH_LONGER * took + SOME_MORE);
    let second = App::start_in(&network, &settings.command, first.port(), output, within).await;
    let second = second.context("in a network of its own")?;
    let serves = must_serve(settings, &second).await;
    serves.context("in a network of its own")?;
    Ok((second, network))
}

async fn start_app(settings: &Settings, output: &Path) -> anyhow::Result<App> {
    let target = settings.load.targets.first().context("there is no URL")?;
    let on = |port| {
        target
            .address(port)
            .context("the URL is not on this machine")
    };
    let address = match target.port() {
        None => on(ports::free(on(0)?.ip())?)?,
        Some(port) => {
            let address = on(port)?;
            if matches!(timeout(ASK, TcpStream::connect(address)).await, Ok(Ok(_))) {
                bail!(
                    "something listens on {address} already; stop it, or write {{port}} for a free port"
                );
            }
            address
        }
    };
    App::start(&settings.command, address, output, settings.start_timeout).await
}

async fn rehearse(
    settings: &Settings,
    way: Way,
    pods: &mut Pods,
    seen: &Seen,
    folder: &Path,
    progress: &Progress,
) -> anyhow::Result<(Run, Option<Page>)> {
    let endpoint = Endpoint {
        instance: 0,
        place: Place::At(pods.app.address),
    };
    let routes = Routes::to(endpoint);
    let load = settings.load.clone();
    let (stop, stopped) = oneshot::channel::<()>();
    // Tasks of this run end with it, also when it is told to stop.
    let mut tasks = JoinSet::new();
    let stopped = async {
        let _ = stopped.await;
    };
    tasks.spawn(clients::send(load, routes.clone(), seen.clone(), stopped));
    sleep(settings.warm_up).await;
    if let Some(status) = pods.app.has_ended() {
        bail!(
            "the app ended with {} while clients used it, before its pod was deleted",
            describe(status)
        );
    }
    let page = page::look(pods.app.address, seen).await;

    let deletion = Instant::now();
    let other = pods.other();
    let mut followers = JoinSet::new();
    let (app_runs, runs) = watch::channel(true);
    let (ready, is_ready) = watch::channel(true);
    if settings.restart {
        if let Some(sidecar) = &pods.sidecar {
            followers.spawn(kubelet::watch_readiness(sidecar.address, ready));
        }
        followers.spawn(follow_readiness(
            routes.clone(),
            endpoint,
            other,
            settings.routes,
            runs,
            is_ready,
        ));
    } else {
        progress.say(&format!("{}: the pod is deleted", way.title()));
        followers.spawn(follow_deletion(
            routes.clone(),
            other,
            deletion + settings.routes,
        ));
    }
    let terminated = kubelet::terminate(
        &mut pods.app,
        pods.sidecar.as_mut(),
        way,
        settings.grace_period,
        settings.restart,
    )
    .await?;
    progress.say(&told(way, &terminated, deletion));
    let mut all_done = terminated.gone.max(deletion + settings.routes);
    if settings.restart {
        let _ = app_runs.send(false);
        restart(settings, pods, &folder.join(format!("{way}-3.log"))).await?;
        let _ = app_runs.send(true);
        all_done = Instant::now() + 2 * settings.routes;
    }
    sleep_until(all_done + AFTERWARDS).await;
    let _ = stop.send(());
    tasks.join_next().await;
    if let Some(sidecar) = &pods.sidecar {
        for warning in sidecar
            .warnings()
            .iter()
            .filter(|warning| !warning.starts_with("no token is set"))
        {
            progress.say(&format!("{}: the sidecar warns: {warning}", way.title()));
        }
    }
    let routes_left = (!settings.restart).then_some(settings.routes.as_secs_f64());
    let mut run = record(way, seen, terminated, deletion, routes_left);
    run.alone.clone_from(&pods.alone);
    Ok((run, page))
}

/// The app's container starts again, in its place.
async fn restart(settings: &Settings, pods: &mut Pods, output: &Path) -> anyhow::Result<()> {
    let address = pods.app.address;
    pods.app = App::start(&settings.command, address, output, settings.start_timeout).await?;
    if let Some(sidecar) = &pods.sidecar {
        kubelet::wait_until_ready(sidecar.address, settings.start_timeout).await?;
    }
    Ok(())
}

/// A pod that is deleted leaves the endpoints, and the routes follow later.
async fn follow_deletion(routes: Routes, other: Option<Endpoint>, at: Instant) {
    sleep_until(at).await;
    routes.change(other);
}

/// A pod is in the endpoints while its app runs and its sidecar is ready, and the routes follow each change later.
async fn follow_readiness(
    routes: Routes,
    endpoint: Endpoint,
    other: Option<Endpoint>,
    delay: Duration,
    mut app_runs: watch::Receiver<bool>,
    mut sidecar_ready: watch::Receiver<bool>,
) {
    loop {
        let changed = tokio::select! {
            changed = app_runs.changed() => changed,
            Ok(()) = sidecar_ready.changed() => Ok(()),
        };
        if changed.is_err() {
            return;
        }
        let ready = *app_runs.borrow() && *sidecar_ready.borrow();
        sleep(delay).await;
        routes.change(if ready { Some(endpoint) } else { other });
    }
}

/// How the termination went, in one line.
fn told(way: Way, terminated: &Terminated, deletion: Instant) -> String {
    let since = |at: Instant| (at - deletion).as_secs_f64();
    format!(
        "{}: SIGTERM after {:.1} s, the app ended after {:.1} s with {}, gone after {:.1} s",
        way.title(),
        since(terminated.sigterm),
        since(terminated.app_ended),
        match terminated.killed {
            true => "SIGKILL, since the grace period was over",
            false => &terminated.status,
        },
        since(terminated.gone)
    )
}

/// What was seen, in seconds from the deletion.
fn record(
    way: Way,
    seen: &Seen,
    terminated: Terminated,
    deletion: Instant,
    routes_left: Option<f64>,
) -> Run {
    let since = |at: Instant| match at.checked_duration_since(deletion) {
        Some(after) => after.as_secs_f64(),
        None => -(deletion - at).as_secs_f64(),
    };
    let requests = seen.requests(0).into_iter().map(|ended| Request {
        began: since(ended.began),
        ended: since(ended.ended),
        reused: ended.reused,
        target: ended.target,
        instance: ended.instance,
        cause: ended.cause,
    });
    Run {
        way,
        requests: requests.collect(),
        end: End {
            hook_answered: terminated.hook_answered.map(since),
            sigterm: since(terminated.sigterm),
            app_ended: since(terminated.app_ended),
            gone: since(terminated.gone),
            killed: terminated.killed,
            status: terminated.status,
            left_behind: terminated.left_behind,
            verdict: terminated.verdict,
            hook_failed: terminated.hook_failed,
        },
        routes_left,
        alone: None,
        server: seen.server(),
    }
}

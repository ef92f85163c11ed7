//! A rehearsal in a cluster: a Deployment or StatefulSet is restarted while a pod beside it sends requests.
//!
//! `plan` looks before anything is done and says what will be; `workload` is what is restarted, `load` the pod that sends,
//! `pods` what a watch shows of the pods that end, `verdicts` what their Events say. What was seen is a `rollout`.

mod access;
mod load;
mod plan;
mod pods;
pub mod rollout;
mod service;
mod verdicts;
mod workload;

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::time::{Instant, sleep, timeout};

use super::clients::Load;
use super::report::progress::Progress;
use super::target::PORT;
use super::{Common, given};
use crate::config::ConfigErrors;
use crate::kubeconfig::Access;
use crate::signal::Signals;
use load::LoadPod;
use plan::Plan;
use pods::PodWatch;
use rollout::Rollout;
use workload::{Mode, Reference};

/// Flags that are for a cluster alone.
const FLAGS: [&str; 7] = [
    "namespace",
    "mode",
    "image",
    "image-pull-policy",
    "rollout-timeout",
    "yes",
    "cluster",
];

/// How long the clients go on when all has changed.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How often the rollout's state is asked for.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the removal of the load pod may take.
const REMOVAL: Duration = Duration::from_secs(20);

/// Flags of a rehearsal in a cluster.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// What is restarted: deploy/NAME or sts/NAME
    #[arg(value_name = "KIND/NAME", help_heading = "In a cluster")]
    workload: Option<String>,

    /// Restarts a Deployment or StatefulSet in the cluster of your kubeconfig, under load from a pod beside it
    #[arg(long, help_heading = "In a cluster")]
    cluster: bool,

    /// Its namespace; the kubeconfig's own unless given
    #[arg(long, short, value_name = "NAMESPACE", help_heading = "In a cluster")]
    namespace: Option<String>,

    /// What its pods must have: sidecar, hook, or as-is for whatever they have. Nothing of it is changed
    #[arg(
        long,
        value_name = "MODE",
        default_value = "as-is",
        help_heading = "In a cluster"
    )]
    mode: String,

    /// The image of the pod that sends the requests: the one with the tools, which make image builds
    #[arg(long, value_name = "IMAGE", help_heading = "In a cluster")]
    image: Option<String>,

    /// When a node pulls that image: Always, IfNotPresent or Never
    #[arg(
        long,
        value_name = "POLICY",
        default_value = "IfNotPresent",
        help_heading = "In a cluster"
    )]
    image_pull_policy: String,

    /// How long the restart may take
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "10m",
        help_heading = "In a cluster"
    )]
    rollout_timeout: String,

    /// Goes on without asking
    #[arg(long, short, help_heading = "In a cluster")]
    yes: bool,
}

/// What to rehearse in a cluster, checked.
#[derive(Debug)]
pub struct Settings {
    pub load: Load,
    pub warm_up: Duration,
    pub workload: Reference,
    pub namespace: Option<String>,
    pub mode: Mode,
    pub image: String,
    pub image_pull_policy: String,
    pub rollout_timeout: Duration,
    pub yes: bool,
}

impl Args {
    /// Whether a cluster is meant.
    pub fn is_asked_for(&self) -> bool {
        self.cluster
    }

    /// Says of each flag that is for a cluster alone that it is.
    pub fn refuse_flags(&self, words: &[String], errors: &mut ConfigErrors) {
        let mut names: Vec<&str> = given(words).filter(|name| FLAGS.contains(name)).collect();
        // Those that were written short.
        if self.namespace.is_some() && !names.contains(&"namespace") {
            names.push("namespace");
        }
        if self.yes && !names.contains(&"yes") {
            names.push("yes");
        }
        for name in names {
            let message = format!("--{name} is for a rehearsal in a cluster; write --cluster too");
            errors.say_of(name, message);
        }
        if let Some(workload) = &self.workload {
            errors.say(format!(
                "{workload:?} is read as a workload in a cluster; write --cluster for one, or -- before the command"
            ));
        }
    }

    /// Checks the flags.
    pub fn validate(self, common: Common, errors: &mut ConfigErrors) -> Option<Settings> {
        for target in &common.load.targets {
            let remedy = match target.url.contains(PORT) {
                true => "no port is chosen in a cluster; write the Service's, or none for 80",
                false if target.address(0).is_some() => {
                    "in a pod that is the pod itself; write the Service's name as the host"
                }
                false => continue,
            };
            errors.add("url", &target.url, remedy);
        }
        let workload = match &self.workload {
            Some(text) => match text.parse() {
                Ok(workload) => Some(workload),
                Err(e) => {
                    let e: String = e;
                    errors.say(format!("{text:?}: {e}"));
                    None
                }
            },
            None => {
                errors.say("there is nothing to restart; write deploy/NAME or sts/NAME");
                None
            }
        };
        if self.image.is_none() {
            errors.say(
                "there is no image for the pod that sends the requests; build it with make image, push it, and write \
                 --image registry.example/gracekeeper-tools:VERSION",
            );
        }
        let mode = errors.check("mode", &self.mode, self.mode.parse());
        if !["Always", "IfNotPresent", "Never"].contains(&self.image_pull_policy.as_str()) {
            let remedy = "write Always, IfNotPresent or Never";
            errors.add("image-pull-policy", &self.image_pull_policy, remedy);
        }
        let rollout_timeout = errors.positive_duration("rollout-timeout", &self.rollout_timeout);
        Some(Settings {
            load: common.load,
            warm_up: common.warm_up,
            workload: workload?,
            namespace: self.namespace,
            mode: mode?,
            image: self.image?,
            image_pull_policy: self.image_pull_policy,
            rollout_timeout,
            yes: self.yes,
        })
    }
}

/// Looks, asks, restarts, and removes the load pod however that ended.
///
/// # Errors
/// When the cluster lets it not be done, when the restart does not end in time, or when a signal comes.
pub async fn run(settings: &Settings, quiet: bool) -> anyhow::Result<Rollout> {
    let access = Access::new(settings.namespace.as_deref()).await?;
    let plan = Plan::make(&access, settings).await?;
    tell(&plan.to_string());
    if !settings.yes && !agreed()? {
        bail!("nothing was done");
    }
    let mut signals = Signals::catch()?;
    let progress = Progress::new(quiet, io::stderr().is_terminal());
    let mut load = LoadPod::new(&access, settings, &plan.load_pod);
    // The creation is not given up in its middle, so that what it made can be removed.
    let told = match load.create().await {
        Ok(()) => tokio::select! {
            rollout = rehearse(&access, settings, &plan, &mut load, &progress) => rollout,
            _ = signals.next() => Err(anyhow!("told to stop")),
        },
        Err(e) => Err(e),
    };
    let removed = timeout(REMOVAL, load.remove()).await;
    let removed = removed.unwrap_or_else(|_| Err(anyhow!("it is still there")));
    let removed = removed.with_context(|| {
        format!(
            "the pod {name} was not removed; kubectl -n {namespace} delete pod {name}",
            name = plan.load_pod,
            namespace = access.namespace
        )
    });
    match (told, removed) {
        (Ok(rollout), removed) => removed.map(|()| rollout),
        (Err(e), Ok(())) => Err(e.context(plan.state_of(load.has_restarted()))),
        (Err(e), Err(also)) => Err(e.context(format!("{also:#}"))),
    }
}

async fn rehearse(
    access: &Access,
    settings: &Settings,
    plan: &Plan,
    load: &mut LoadPod,
    progress: &Progress,
) -> anyhow::Result<Rollout> {
    progress.say(&format!("waiting for the pod {}", plan.load_pod));
    load.wait_until_it_sends().await?;
    progress.say("the clients send");
    let received = load.received();
    let rollout = async {
        sleep(settings.warm_up).await;
        load.check()?;
        let watch = PodWatch::start(access, &plan.workload).await?;
        let restarted = Instant::now();
        load.note_restart();
        plan.workload.restart(access).await?;
        progress.say(&format!("{} is restarted", plan.workload.reference));
        let settled = wait(access, settings, plan, load, &watch, progress).await?;
        sleep(AFTERWARDS).await;
        progress.say("the clients stop");
        load.stop().await?;
        let verdicts = verdicts::read(access).await;
        rollout::of(
            plan,
            settings,
            load,
            &watch,
            (restarted, settled),
            &verdicts,
        )
    };
    let title = plan.workload.reference.to_string();
    tokio::select! {
        rollout = rollout => rollout,
        never = progress.follow(&title, || received.counts()) => match never {},
    }
}

/// Waits until the new pods are there and the old ones gone, and says when that was.
async fn wait(
    access: &Access,
    settings: &Settings,
    plan: &Plan,
    load: &LoadPod,
    watch: &PodWatch,
    progress: &Progress,
) -> anyhow::Result<Instant> {
    let deadline = Instant::now() + settings.rollout_timeout;
    let mut told = 0;
    loop {
        load.check()?;
        for line in watch.lines_after(told) {
            progress.say(&line);
            told += 1;
        }
        let state = plan.workload.state(access).await?;
        if state.is_done() && watch.all_gone() {
            return Ok(Instant::now());
        }
        let stuck = match &state.failed {
            Some(why) => Some(why.clone()),
            None if Instant::now() > deadline => Some(format!(
                "it has not ended after {} (--rollout-timeout)",
                humantime::format_duration(settings.rollout_timeout)
            )),
            None => None,
        };
        if let Some(why) = stuck {
            let counts = load.received().counts();
            bail!(
                "the restart of {} is stuck: {why}; {state}{}; until now {} of {} requests were lost",
                plan.workload.reference,
                watch.waiting(),
                counts.1,
                counts.0,
            );
        }
        sleep(PAUSE).await;
    }
}

/// On standard error, so that standard output has the result alone.
fn tell(text: &str) {
    // That it cannot be shown changes nothing.
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Asks on a terminal whether to go on.
fn agreed() -> anyhow::Result<bool> {
    if !io::stdin().is_terminal() {
        bail!("nothing was done: there is no terminal to ask on; write --yes to go on");
    }
    tell("Go on? [y/N] ");
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

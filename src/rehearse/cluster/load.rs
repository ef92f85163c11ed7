//! The pod that sends the requests, and what it tells.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use futures_util::AsyncBufReadExt as _;
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{DeleteParams, LogParams, PostParams};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::super::clients::Load;
use super::super::clients::remote::{self, Line, Sent};
use super::Settings;
use super::access::{is_missing, why};
use crate::kubeconfig::Access;

/// The name of its container.
const CONTAINER: &str = "clients";

/// How long the pod may take until it sends.
const START: Duration = Duration::from_secs(120);

/// The time between two looks at it.
const PAUSE: Duration = Duration::from_millis(300);

/// How long nothing may come of it while it sends.
const SILENCE: Duration = Duration::from_secs(15);

/// What the pod gets on top of a client's patience to end, and of the rollout's time to live.
const MORE: Duration = Duration::from_secs(5);
const LONGER: Duration = Duration::from_secs(300);

/// Reasons for which a container does not start, which waiting does not mend.
const HOPELESS: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// What has come of the pod. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Received(Arc<Mutex<Parts>>);

#[derive(Debug, Default)]
struct Parts {
    sends: bool,
    /// The number of the next batch.
    next: usize,
    /// When the pod's clock was zero, by ours: the earliest that the lines allow.
    zero: Option<Instant>,
    last: Option<Instant>,
    in_flight: usize,
    requests: Vec<Sent>,
    lost: usize,
    refused: Option<String>,
    /// Lines that are none of ours: errors.
    other: Vec<String>,
    has_gap: bool,
    end: Option<Option<String>>,
}

impl Received {
    /// How many requests have ended, how many of them without a good answer, and how many are in flight.
    pub fn counts(&self) -> (usize, usize, usize) {
        let parts = self.lock();
        (parts.requests.len(), parts.lost, parts.in_flight)
    }

    /// The requests, and when the pod's clock was zero.
    ///
    /// # Errors
    /// When some are missing.
    pub fn requests(&self) -> anyhow::Result<(Vec<Sent>, Instant)> {
        let parts = self.lock();
        if parts.has_gap || parts.end.is_none() {
            bail!(
                "not all results of the pod that sends were read from its log, so they are not told"
            );
        }
        let zero = parts.zero.context("the pod sent nothing")?;
        Ok((parts.requests.clone(), zero))
    }

    /// What the app calls itself.
    pub fn server(&self) -> Option<String> {
        self.lock().end.clone().flatten()
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A line of the log that came now. The log may be read again from its beginning.
    fn take(&self, text: &str, now: Instant) {
        let mut parts = self.lock();
        match serde_json::from_str(text) {
            Ok(Line::Refused { url, why }) => parts.refused = Some(format!("{url} {why}")),
            Ok(Line::Sending {}) => {
                parts.sends = true;
                parts.last.get_or_insert(now);
            }
            Ok(Line::Batch {
                number,
                at,
                in_flight,
                ended,
            }) => {
                let zero = now.checked_sub(Duration::from_micros(at));
                parts.zero = parts.zero.into_iter().chain(zero).min();
                if number < parts.next {
                    return;
                }
                parts.has_gap |= number > parts.next;
                parts.next = number + 1;
                parts.last = Some(now);
                parts.in_flight = in_flight;
                parts.lost += ended.iter().filter(|sent| sent.4.is_some()).count();
                parts.requests.extend(ended);
            }
            Ok(Line::End { server }) => parts.end = Some(server),
            Err(_) if text.trim().is_empty() => {}
            Err(_) => parts.other.push(text.to_owned()),
        }
    }
}

/// The pod.
pub struct LoadPod {
    api: Api<Pod>,
    name: String,
    object: serde_json::Value,
    image: String,
    received: Received,
    followers: JoinSet<()>,
    patience: Duration,
    has_restarted: bool,
}

impl LoadPod {
    /// The pod, which is not made yet.
    pub fn new(access: &Access, settings: &Settings, name: &str) -> Self {
        Self {
            api: Api::namespaced(access.client.clone(), &access.namespace),
            name: name.to_owned(),
            object: object(settings, name),
            image: settings.image.clone(),
            received: Received::default(),
            followers: JoinSet::new(),
            patience: settings.load.timeout,
            has_restarted: false,
        }
    }

    /// Makes it.
    ///
    /// # Errors
    /// When the API server, or an admission policy, refuses.
    pub async fn create(&self) -> anyhow::Result<()> {
        let pod = serde_json::from_value(self.object.clone())?;
        let created = self.api.create(&PostParams::default(), &pod).await;
        created.map_err(|e| anyhow!("the pod that sends cannot be made: {}", why(&e)))?;
        Ok(())
    }

    /// Waits until its clients send.
    ///
    /// # Errors
    /// When it cannot start, or when a URL is not served.
    pub async fn wait_until_it_sends(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut follows = false;
        loop {
            let pod = self.api.get(&self.name).await;
            let pod = pod.map_err(|e| anyhow!("the pod that sends cannot be read: {}", why(&e)))?;
            let status = pod.status.unwrap_or_default();
            // A mesh may add others.
            let mut containers = status.container_statuses.into_iter().flatten();
            let container = containers.find(|it| it.name == CONTAINER);
            let (waits, ended) = look(container.as_ref());
            if let Some((reason, message)) = &waits
                && HOPELESS.contains(&reason.as_str())
            {
                bail!(self.does_not_start(reason, message));
            }
            let has_started =
                container.is_some_and(|it| it.state.is_some_and(|s| s.waiting.is_none()));
            if has_started && !follows {
                follows = true;
                let (api, name) = (self.api.clone(), self.name.clone());
                self.followers
                    .spawn(follow(api, name, self.received.clone()));
            }
            if self.received.lock().sends {
                return Ok(());
            }
            if let Some(code) = ended {
                // Its last words may be on their way.
                sleep(Duration::from_secs(1)).await;
                self.check()?;
                bail!(self.ended_early(code));
            }
            if began.elapsed() > START {
                let conditions = status.conditions.into_iter().flatten();
                let said = conditions.filter_map(|it| it.message).next();
                let said = said.or(waits.map(|(reason, message)| format!("{reason}: {message}")));
                bail!(
                    "the pod that sends has not started after {}: {}",
                    humantime::format_duration(START),
                    said.unwrap_or_else(|| "it is not said why".to_owned())
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Whether all is well with it while it sends.
    ///
    /// # Errors
    /// When a URL is not served, or nothing has come of it for some time.
    pub fn check(&self) -> anyhow::Result<()> {
        let parts = self.received.lock();
        if let Some(refused) = &parts.refused {
            bail!("{refused}");
        }
        if parts.end.is_some() {
            bail!("the pod that sends was ended from outside");
        }
        if let Some(last) = parts.last
            && last.elapsed() > SILENCE
        {
            bail!(
                "nothing has come of the pod that sends for {} s",
                SILENCE.as_secs()
            );
        }
        Ok(())
    }

    /// What has come of it.
    pub fn received(&self) -> Received {
        self.received.clone()
    }

    /// The restart is asked for now.
    pub fn note_restart(&mut self) {
        self.has_restarted = true;
    }

    /// Whether the restart was asked for.
    pub fn has_restarted(&self) -> bool {
        self.has_restarted
    }

    /// Ends its clients, and waits for what is under way and for the end of its log.
    ///
    /// # Errors
    /// When that end does not come.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        self.delete(None).await?;
        let deadline = Instant::now() + self.patience + 2 * MORE;
        while self.received.lock().end.is_none() {
            if Instant::now() > deadline {
                bail!(
                    "the end of the log of the pod that sends did not come, so its results are not whole"
                );
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Removes it, and waits until it is gone.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn remove(&mut self) -> anyhow::Result<()> {
        self.delete(Some(1)).await?;
        loop {
            match self.api.get(&self.name).await {
                Err(e) if is_missing(&e) => return Ok(()),
                Err(e) => bail!(why(&e)),
                Ok(_) => sleep(PAUSE).await,
            }
        }
    }

    async fn delete(&self, grace_period: Option<u32>) -> anyhow::Result<()> {
        let params = DeleteParams {
            grace_period_seconds: grace_period,
            ..DeleteParams::default()
        };
        match self.api.delete(&self.name, &params).await {
            Err(e) if !is_missing(&e) => Err(anyhow!("{}", why(&e))),
            _ => Ok(()),
        }
    }

    fn does_not_start(&self, reason: &str, message: &str) -> String {
        let remedy = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" => {
                "; push it where the nodes pull from, or load it on them and write --image-pull-policy=Never"
            }
            "ErrImageNeverPull" => {
                "; load it on the nodes, or write --image-pull-policy=IfNotPresent"
            }
            _ => "",
        };
        format!(
            "the pod that sends does not start, with the image {}: {reason}: {message}{remedy}",
            self.image
        )
    }

    fn ended_early(&self, code: i32) -> String {
        let said = self.received.lock().other.join("; ");
        let remedy = match said.contains(remote::COMMAND) {
            true => "; this image is without the tools: make image builds the one with them too",
            false => "",
        };
        format!("the pod that sends ended with exit status {code}: {said}{remedy}")
    }
}

/// Why a container waits, and how it ended.
fn look(container: Option<&ContainerStatus>) -> (Option<(String, String)>, Option<i32>) {
    let state = container.and_then(|it| it.state.as_ref());
    let waits = state.and_then(|state| state.waiting.clone()).map(|it| {
        (
            it.reason.unwrap_or_default(),
            it.message.unwrap_or_default(),
        )
    });
    let ended = state.and_then(|state| state.terminated.as_ref());
    (waits, ended.map(|it| it.exit_code))
}

/// Reads the log as it grows; where that breaks off, again from its beginning.
async fn follow(api: Api<Pod>, name: String, received: Received) {
    let params = LogParams {
        follow: true,
        container: Some(CONTAINER.to_owned()),
        ..LogParams::default()
    };
    loop {
        match api.log_stream(&name, &params).await {
            Ok(stream) => {
                // It is read from its beginning.
                received.lock().other.clear();
                let mut lines = stream.lines();
                while let Ok(Some(line)) = lines.try_next().await {
                    received.take(&line, Instant::now());
                }
            }
            Err(e) if is_missing(&e) => return,
            Err(_) => {}
        }
        if received.lock().end.is_some() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// The pod as an object: within the restricted profile of Pod Security, without a token, and not for long.
fn object(settings: &Settings, name: &str) -> serde_json::Value {
    let Load { timeout, .. } = &settings.load;
    let lives = settings.rollout_timeout + settings.warm_up + START + LONGER;
    let mut args = vec![remote::COMMAND.to_owned()];
    args.extend(remote::flags(&settings.load));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": {
                "app.kubernetes.io/name": "gracekeeper-rehearse",
                "gracekeeper.dev/inject": "false",
            },
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": lives.as_secs(),
            "terminationGracePeriodSeconds": (*timeout + MORE).as_secs(),
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [{
                "name": CONTAINER,
                "image": settings.image,
                "imagePullPolicy": settings.image_pull_policy,
                "args": args,
                "resources": {
                    "requests": {"cpu": "50m", "memory": "32Mi"},
                    "limits": {"cpu": "1", "memory": "256Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: usize, at: u64, ended: usize) -> String {
        let line = Line::Batch {
            number,
            at,
            in_flight: 1,
            ended: vec![Sent(0, at, false, 0, None); ended],
        };
        serde_json::to_string(&line).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_that_is_read_again_counts_once_and_a_gap_is_noticed() {
        let received = Received::default();
        let zero = Instant::now();
        // The first line took 300 ms to come, the second one 20 ms.
        received.take(&batch(0, 100_000, 2), zero + Duration::from_millis(400));
        received.take(&batch(1, 200_000, 3), zero + Duration::from_millis(220));
        received.take(&batch(0, 100_000, 2), zero + Duration::from_secs(9));
        assert_eq!(received.counts(), (5, 0, 1));
        assert!(received.requests().is_err(), "the end has not come");
        received.take("{\"end\":{\"server\":null}}", zero);
        let (requests, at) = received.requests().unwrap();
        assert_eq!((requests.len(), at), (5, zero + Duration::from_millis(20)));
        received.take(&batch(7, 900_000, 1), zero + Duration::from_secs(1));
        assert!(received.requests().is_err(), "batches are missing");
    }
}

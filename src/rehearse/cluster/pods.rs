//! What a watch shows of the workload's pods: when each was deleted, when its app ended, when it was gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::anyhow;
use futures_util::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::access::why;
use super::workload::Workload;
use crate::cluster::OWN_CONTAINER;
use crate::kubeconfig::Access;

/// The time after which a watch that broke off begins again.
const PAUSE: Duration = Duration::from_millis(200);

/// A pod, by this machine's clock.
#[derive(Debug, Clone, Default)]
pub struct SeenPod {
    pub name: String,
    pub uid: String,
    /// It was there before the restart.
    pub is_old: bool,
    pub deleted: Option<Instant>,
    /// All of its containers but ours had ended.
    pub app_ended: Option<Instant>,
    pub gone: Option<Instant>,
    /// The first exit status of its app's containers that is not 0, or 0.
    pub exit_status: Option<i32>,
    /// What our container wrote as its last words.
    pub last_words: Option<String>,
    /// Why a container of it does not run.
    waits: Option<String>,
}

impl SeenPod {
    fn update(&mut self, pod: &Pod, now: Instant) {
        if pod.metadata.deletion_timestamp.is_some() {
            self.deleted = self.deleted.or(Some(now));
        }
        let status = pod.status.clone().unwrap_or_default();
        let (ours, apps): (Vec<ContainerStatus>, Vec<ContainerStatus>) =
            (status.container_statuses.into_iter().flatten())
                .partition(|it| it.name == OWN_CONTAINER);
        let ended: Vec<_> = (apps.iter())
            .filter_map(|it| it.state.as_ref()?.terminated.as_ref())
            .collect();
        if !apps.is_empty() && ended.len() == apps.len() {
            self.app_ended = self.app_ended.or(Some(now));
            let codes = ended.iter().map(|it| it.exit_code);
            self.exit_status =
                Some(codes.fold(0, |first, code| if first == 0 { code } else { first }));
        }
        let natives = status.init_container_statuses.into_iter().flatten();
        let ours = (ours.into_iter().chain(natives)).find(|it| it.name == OWN_CONTAINER);
        let words = ours.and_then(|it| it.state?.terminated?.message);
        self.last_words = words
            .map(|it| it.trim().to_owned())
            .or(self.last_words.take());
        let waiting = (apps.iter())
            .filter_map(|it| it.state.as_ref()?.waiting.as_ref())
            .map(|it| {
                let reason = it.reason.clone().unwrap_or_default();
                match &it.message {
                    Some(message) => format!("{reason}: {message}"),
                    None => reason,
                }
            })
            .next();
        // Not scheduled, or not ready.
        let conditions = status.conditions.into_iter().flatten();
        let mut unmet = conditions
            .filter(|it| it.status == "False")
            .filter_map(|it| it.message);
        self.waits = waiting.or_else(|| unmet.next());
    }
}

#[derive(Debug, Default)]
struct Parts {
    /// By their UIDs.
    pods: BTreeMap<String, SeenPod>,
    /// What happened, in order.
    lines: Vec<String>,
}

/// Follows the pods until it is dropped.
pub struct PodWatch {
    parts: Arc<Mutex<Parts>>,
    _follower: JoinSet<()>,
}

impl PodWatch {
    /// The pods that are there now are the old ones.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn start(access: &Access, workload: &Workload) -> anyhow::Result<Self> {
        let api: Api<Pod> = Api::namespaced(access.client.clone(), &access.namespace);
        let parts = Arc::new(Mutex::new(Parts::default()));
        let version = list(&api, &workload.selector, &parts, true).await;
        let version = version.map_err(|e| anyhow!("the pods cannot be listed: {}", why(&e)))?;
        let mut follower = JoinSet::new();
        let selector = workload.selector.clone();
        follower.spawn(follow(api, selector, version, parts.clone()));
        Ok(Self {
            parts,
            _follower: follower,
        })
    }

    /// The pods that were there before the restart, in the order in which they were deleted.
    pub fn old(&self) -> Vec<SeenPod> {
        let parts = lock(&self.parts);
        let mut old: Vec<_> = parts
            .pods
            .values()
            .filter(|it| it.is_old)
            .cloned()
            .collect();
        old.sort_by_key(|pod| pod.deleted);
        old
    }

    /// Whether all of them are gone.
    pub fn all_gone(&self) -> bool {
        self.old().iter().all(|pod| pod.gone.is_some())
    }

    /// What has happened to pods until now, without so many lines that are known.
    pub fn lines_after(&self, known: usize) -> Vec<String> {
        lock(&self.parts).lines[known..].to_vec()
    }

    /// Which pod the restart waits for, after a semicolon: a new one that is not ready, or an old one that does not go.
    pub fn waiting(&self) -> String {
        let parts = lock(&self.parts);
        let mut new = parts
            .pods
            .values()
            .filter(|pod| !pod.is_old && pod.gone.is_none());
        if let Some((name, why)) = new.find_map(|pod| Some((&pod.name, pod.waits.as_ref()?))) {
            return format!("; the pod {name} waits: {why}");
        }
        let mut old = parts
            .pods
            .values()
            .filter(|pod| pod.is_old && pod.gone.is_none());
        let stays = old.find_map(|pod| Some((&pod.name, pod.deleted?)));
        stays.map_or_else(String::new, |(name, deleted)| {
            let since = deleted.elapsed().as_secs();
            format!("; the pod {name} is still there, {since} s after its deletion")
        })
    }
}

fn lock(parts: &Mutex<Parts>) -> MutexGuard<'_, Parts> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes in all pods that are there; those that were and are not any more are gone.
async fn list(
    api: &Api<Pod>,
    selector: &str,
    parts: &Mutex<Parts>,
    is_old: bool,
) -> kube::Result<String> {
    let pods = api.list(&ListParams::default().labels(selector)).await?;
    let now = Instant::now();
    let uids: Vec<_> = pods
        .items
        .iter()
        .filter_map(|pod| pod.metadata.uid.clone())
        .collect();
    let mut parts = lock(parts);
    for pod in &pods.items {
        // One that was being deleted before is none of this restart's.
        let is_old = is_old && pod.metadata.deletion_timestamp.is_none();
        parts.update(pod, is_old, now);
    }
    let missed: Vec<String> = (parts.pods.keys())
        .filter(|uid| !uids.contains(uid))
        .cloned()
        .collect();
    for uid in missed {
        parts.remove(&uid, now);
    }
    Ok(pods.metadata.resource_version.unwrap_or_default())
}

impl Parts {
    fn update(&mut self, pod: &Pod, is_old: bool, now: Instant) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let seen = self.pods.entry(uid.clone()).or_insert_with(|| SeenPod {
            uid,
            name: pod.metadata.name.clone().unwrap_or_default(),
            is_old,
            ..SeenPod::default()
        });
        let was_deleted = seen.deleted.is_some();
        seen.update(pod, now);
        if seen.is_old && !was_deleted && seen.deleted.is_some() {
            self.lines.push(format!("the pod {} is deleted", seen.name));
        }
    }

    fn remove(&mut self, uid: &str, now: Instant) {
        if let Some(seen) = self.pods.get_mut(uid)
            && seen.gone.is_none()
        {
            let deleted = *seen.deleted.get_or_insert(now);
            seen.gone = Some(now);
            if seen.is_old {
                let after = (now - deleted).as_secs_f64();
                self.lines
                    .push(format!("the pod {} is gone after {after:.1} s", seen.name));
            }
        }
    }
}

async fn follow(api: Api<Pod>, selector: String, mut version: String, parts: Arc<Mutex<Parts>>) {
    let params = WatchParams::default().labels(&selector);
    loop {
        if let Ok(stream) = api.watch(&params, &version).await {
            let mut stream = std::pin::pin!(stream);
            while let Ok(Some(event)) = stream.try_next().await {
                let now = Instant::now();
                match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                        lock(&parts).update(&pod, false, now);
                    }
                    WatchEvent::Deleted(pod) => {
                        let mut parts = lock(&parts);
                        parts.update(&pod, false, now);
                        parts.remove(pod.metadata.uid.as_deref().unwrap_or_default(), now);
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(_) => break,
                }
            }
        }
        // It ends now and then, and when the API server does.
        loop {
            sleep(PAUSE).await;
            if let Ok(now) = list(&api, &selector, &parts, false).await {
                version = now;
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_pods_end_is_told_by_what_the_watch_shows() {
        let mut parts = Parts::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let meta = json!({"name": "web-1", "uid": "u"});
        parts.update(&pod(json!({"metadata": meta})), true, now);
        let deleted =
            json!({"name": "web-1", "uid": "u", "deletionTimestamp": "2026-11-28T08:00:00Z"});
        parts.update(&pod(json!({"metadata": deleted})), false, at(1));
        let status = json!({
            "containerStatuses": [{"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 137}}}],
            "initContainerStatuses": [{"name": "gracekeeper", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"terminated": {"exitCode": 0, "message": "drained after 5.0s\n"}}}],
        });
        parts.update(
            &pod(json!({"metadata": deleted, "status": status})),
            false,
            at(7),
        );
        parts.remove("u", at(8));
        let seen = &parts.pods["u"];
        assert_eq!(
            (seen.deleted, seen.app_ended, seen.gone),
            (Some(at(1)), Some(at(7)), Some(at(8)))
        );
        assert_eq!((seen.is_old, seen.exit_status), (true, Some(137)));
        assert_eq!(seen.last_words.as_deref(), Some("drained after 5.0s"));
        assert_eq!(
            parts.lines,
            [
                "the pod web-1 is deleted",
                "the pod web-1 is gone after 7.0 s"
            ]
        );
    }
}

//! What our own pod's object says of its end.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::{Object, ObjectMeta};
use serde::Deserialize;

use crate::config;

/// A pod's object, as much of it as is read here. All of a pod's types would make the program half as large again.
pub type Pod = Object<Spec, Status>;

/// What the user wrote.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    termination_grace_period_seconds: Option<i64>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Container {
    liveness_probe: Option<Probe>,
    startup_probe: Option<Probe>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    termination_grace_period_seconds: Option<i64>,
}

/// Its status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: Option<String>,
}

/// The condition that says why a pod has to go (KEP-3329).
const DISRUPTION: &str = "DisruptionTarget";

/// Kubernetes' default.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Our own pod, as far as its end is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPod {
    /// It has been deleted.
    pub deletion: Option<Deletion>,
    /// The least that the kubelet gives a container that it stops of its own.
    pub grace: Duration,
    /// Why the pod has to go, where that is said.
    pub reason: Option<String>,
}

/// A deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// The grace period that was granted.
    pub granted: Duration,
    /// When it is over, by the API server's clock.
    pub deadline: Timestamp,
}

impl OwnPod {
    /// Takes it from the pod's object.
    pub fn new(pod: &Pod) -> Self {
        let ObjectMeta {
            deletion_timestamp,
            deletion_grace_period_seconds,
            ..
        } = &pod.metadata;
        let of_pod = (pod.spec.termination_grace_period_seconds).map_or(DEFAULT_GRACE, seconds);
        // A probe may have a grace period of its own, for the kills that it causes.
        let of_probes = (pod.spec.containers.iter())
            .chain(&pod.spec.init_containers)
            .flat_map(probes)
            .filter_map(|probe| probe.termination_grace_period_seconds)
            .map(seconds);
        let deletion = deletion_timestamp.as_ref().map(|at| Deletion {
            granted: deletion_grace_period_seconds.map_or(of_pod, seconds),
            deadline: at.0,
        });
        let disruption = (pod.status.iter())
            .flat_map(|status| &status.conditions)
            .find(|condition| condition.kind == DISRUPTION && condition.status == "True");
        Self {
            deletion,
            grace: of_probes.fold(of_pod, Duration::min),
            reason: disruption.and_then(|condition| condition.reason.clone()),
        }
    }
}

/// The probes that make the kubelet stop a container.
fn probes(container: &Container) -> impl Iterator<Item = &Probe> {
    [&container.liveness_probe, &container.startup_probe]
        .into_iter()
        .flatten()
}

/// No longer than a flag takes.
fn seconds(n: i64) -> Duration {
    Duration::from_secs(n.try_into().unwrap_or_default()).min(config::LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_number_of_seconds_is_more_than_a_clock_can_count() {
        let week = Duration::from_secs(7 * 24 * 3600);
        assert_eq!(
            (seconds(30), seconds(-1)),
            (Duration::from_secs(30), Duration::ZERO)
        );
        assert_eq!(seconds(i64::MAX), week);
    }

    fn own(pod: serde_json::Value) -> OwnPod {
        let whole = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {}});
        let mut whole = whole.as_object().unwrap().clone();
        whole.extend(pod.as_object().unwrap().clone());
        OwnPod::new(&serde_json::from_value(whole.into()).unwrap())
    }

    #[test]
    fn a_pod_that_lives() {
        let pod = own(json!({"spec": {"containers": [], "terminationGracePeriodSeconds": 60}}));
        assert_eq!(
            (pod.deletion, pod.grace, pod.reason),
            (None, 60 * SECOND, None)
        );
        assert_eq!(own(json!({})).grace, 30 * SECOND);
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pod_that_was_evicted() {
        let pod = own(json!({
            "metadata": {"deletionTimestamp": "2026-11-24T12:00:08Z", "deletionGracePeriodSeconds": 8},
            "spec": {"containers": [], "terminationGracePeriodSeconds": 60},
            "status": {"conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"},
            ]},
        }));
        let deletion = pod.deletion.unwrap();
        assert_eq!(deletion.granted, 8 * SECOND);
        assert_eq!(deletion.deadline.to_string(), "2026-11-24T12:00:08Z");
        assert_eq!(pod.reason.as_deref(), Some("EvictionByEvictionAPI"));
    }

    #[test]
    fn a_probes_own_grace_period_bounds_what_a_restart_may_take() {
        let pod = own(json!({"spec": {
            "terminationGracePeriodSeconds": 60,
            "containers": [{"name": "app", "livenessProbe": {"terminationGracePeriodSeconds": 12}}],
        }}));
        assert_eq!(pod.grace, 12 * SECOND);
    }
}

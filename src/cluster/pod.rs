//! What our own pod's object says of its end.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::core::{Object, ObjectMeta};
use serde::Deserialize;

use crate::config;
use crate::traffic;

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
    ports: Vec<ContainerPort>,
    /// Of an init container, `Always` where it is a sidecar.
    restart_policy: Option<String>,
    readiness_probe: Option<Probe>,
    liveness_probe: Option<Probe>,
    startup_probe: Option<Probe>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: Option<String>,
    container_port: u16,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Probe {
    termination_grace_period_seconds: Option<i64>,
    period_seconds: Option<i64>,
    http_get: Option<HttpGet>,
    grpc: Option<Grpc>,
}

#[derive(Debug, Clone, Deserialize)]
struct HttpGet {
    /// Where it calls, if not the pod.
    host: Option<String>,
    port: ProbePort,
}

#[derive(Debug, Clone, Deserialize)]
struct Grpc {
    port: u16,
}

/// A port's number, or its name among the container's.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum ProbePort {
    Number(u16),
    Name(String),
}

/// Its status.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    conditions: Vec<Condition>,
    container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    state: ContainerState,
}

/// One of the states that a container can be in; the others are `waiting` and `terminated`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ContainerState {
    running: Option<serde::de::IgnoredAny>,
}

impl Status {
    /// Whether no container runs but sidecars and ours. Sidecars are init containers, or named as injection names ours.
    fn app_is_stopped(&self) -> bool {
        let mut apps = (self.container_statuses.iter()).filter(|of| of.name != OWN_CONTAINER);
        !self.container_statuses.is_empty() && apps.all(|of| of.state.running.is_none())
    }
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
/// And for a probe's period, in seconds.
const DEFAULT_PERIOD: i64 = 10;

/// How the chart and the injection name the sidecar's container.
pub const OWN_CONTAINER: &str = "gracekeeper";

/// Our own pod, as far as its end is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnPod {
    /// It has been deleted.
    pub deletion: Option<Deletion>,
    /// The least that the kubelet gives a container that it stops of its own.
    pub grace: Duration,
    /// Why the pod has to go, where that is said.
    pub reason: Option<String>,
    /// The kubelet's probes that bring bytes to a port, while the pod is stopped and while only a container is.
    pub probes: Probes,
    /// None of the app's containers runs.
    pub app_is_stopped: bool,
}

/// The kubelet's probes that bring bytes to a port of the pod. A `tcpSocket` probe brings none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Probes {
    /// Those that go on until the containers have stopped: readiness, and all of sidecars.
    pub lasting: Vec<traffic::Probe>,
    /// Those that end when the pod is to stop: liveness of the others.
    pub until_stopped: Vec<traffic::Probe>,
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
            probes: Probes::new(&pod.spec),
            app_is_stopped: pod.status.as_ref().is_some_and(Status::app_is_stopped),
        }
    }
}

impl Probes {
    /// Startup probes are over before a drain begins, or the app is not up.
    fn new(spec: &Spec) -> Self {
        let mut probes = Self::default();
        for container in &spec.containers {
            (probes.lasting).extend(call_of(container, container.readiness_probe.as_ref()));
            (probes.until_stopped).extend(call_of(container, container.liveness_probe.as_ref()));
        }
        let sidecars = (spec.init_containers.iter())
            .filter(|container| container.restart_policy.as_deref() == Some("Always"));
        for sidecar in sidecars {
            let both = [&sidecar.readiness_probe, &sidecar.liveness_probe];
            (probes.lasting).extend(
                both.into_iter()
                    .filter_map(|probe| call_of(sidecar, probe.as_ref())),
            );
        }
        probes
    }

    /// Those that go on during a drain; `going` where the pod is to stop, and not only a container.
    pub fn during(&self, going: bool) -> Vec<traffic::Probe> {
        let until_stopped = self.until_stopped.iter().filter(|_| !going);
        self.lasting.iter().chain(until_stopped).copied().collect()
    }
}

/// Which port of the pod a probe calls, and how often; none where it brings no bytes there.
fn call_of(container: &Container, probe: Option<&Probe>) -> Option<traffic::Probe> {
    let probe = probe?;
    let port = match (&probe.http_get, &probe.grpc) {
        (Some(get), _) if get.host.as_ref().is_none_or(String::is_empty) => match &get.port {
            ProbePort::Number(port) => *port,
            ProbePort::Name(name) => {
                let named = |port: &&ContainerPort| port.name.as_ref() == Some(name);
                let port = container.ports.iter().find(named);
                port.map(|port| port.container_port)
                    .or_else(|| name.parse().ok())?
            }
        },
        (None, Some(grpc)) => grpc.port,
        _ => return None,
    };
    // Kubernetes takes nothing for what is not there, and for 0.
    let period = (probe.period_seconds.filter(|&period| period > 0)).unwrap_or(DEFAULT_PERIOD);
    Some(traffic::Probe {
        port,
        every: seconds(period),
    })
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

    #[test]
    fn probes_that_bring_bytes_are_known_with_their_ports_and_periods() {
        let pod = own(json!({"spec": {
            "containers": [
                {
                    "name": "app",
                    "ports": [{"name": "web", "containerPort": 8000}, {"containerPort": 9000}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": "web", "scheme": "HTTPS"}, "periodSeconds": 3},
                    "livenessProbe": {"grpc": {"port": 9000}},
                    "startupProbe": {"httpGet": {"port": 8000}, "periodSeconds": 1},
                },
                {"name": "other", "readinessProbe": {"tcpSocket": {"port": 8000}}},
                {"name": "elsewhere", "readinessProbe": {"httpGet": {"port": 8000, "host": "192.0.2.1"}}},
                {"name": "wrong", "readinessProbe": {"httpGet": {"port": "nowhere"}}},
            ],
            "initContainers": [
                {"name": "setup", "readinessProbe": {"httpGet": {"port": 1}}},
                {
                    "name": "proxy",
                    "restartPolicy": "Always",
                    "livenessProbe": {"httpGet": {"port": 15021}, "periodSeconds": 0},
                },
            ],
        }}));
        let probe = |port: u16, seconds: u32| traffic::Probe {
            port,
            every: seconds * SECOND,
        };
        assert_eq!(pod.probes.during(true), [probe(8000, 3), probe(15021, 10)]);
        assert_eq!(
            pod.probes.during(false),
            [probe(8000, 3), probe(15021, 10), probe(9000, 10)]
        );
    }

    #[test]
    fn an_app_is_stopped_when_none_of_its_containers_runs() {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let running = json!({"running": {"startedAt": "2026-11-24T12:00:08Z"}});
        let status = |app: &serde_json::Value, other: &str| {
            json!({"status": {"containerStatuses": [
                {"name": "app", "state": app},
                {"name": other, "state": running},
            ]}})
        };
        assert!(own(status(&waiting, "gracekeeper")).app_is_stopped);
        assert!(!own(status(&running, "gracekeeper")).app_is_stopped);
        assert!(!own(status(&waiting, "other")).app_is_stopped);
        assert!(!own(json!({})).app_is_stopped, "it is not known");
    }
}

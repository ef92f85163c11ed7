//! What is restarted: a Deployment or a StatefulSet, and how its pods end.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::Selector;
use serde_json::{Value, json};

use super::access::{is_missing, why};
use crate::cluster::OWN_CONTAINER;
use crate::kubeconfig::Access;

/// The annotation of the pod template that `kubectl rollout restart` sets.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// A kind that can be restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    StatefulSet,
}

/// A workload as `kubectl` names it: deploy/web.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub kind: Kind,
    pub name: String,
}

/// What pods must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Whatever they have.
    AsIs,
    /// gracekeeper's exec hook.
    Hook,
    /// gracekeeper's sidecar.
    Sidecar,
}

/// What a pod has for its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ending {
    Sidecar,
    /// The sidecar's container, and no preStop hook that asks it.
    SidecarAlone,
    Hook,
    /// A hook that sleeps so many seconds.
    Sleep(f64),
    OtherHook,
    None,
}

/// The workload, as it was found.
#[derive(Debug)]
pub struct Workload {
    pub reference: Reference,
    /// Its pods' labels, as a query has them.
    pub selector: String,
    /// Those of its pods that are not being deleted.
    pub pods: Vec<Pod>,
    pub ending: Ending,
    /// All pods end before new ones start.
    pub recreates: bool,
}

/// How far a rollout has come.
#[derive(Debug, Default)]
pub struct State {
    observed: bool,
    wanted: u64,
    /// Pods in all, those of the new kind, those of them that are available.
    all: u64,
    updated: u64,
    available: u64,
    /// The controller has given up, and why.
    pub failed: Option<String>,
}

impl Kind {
    /// The name of its resource.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Deployment => "deployments",
            Kind::StatefulSet => "statefulsets",
        }
    }

    fn resource(self) -> ApiResource {
        ApiResource {
            group: "apps".to_owned(),
            version: "v1".to_owned(),
            api_version: "apps/v1".to_owned(),
            kind: format!("{self:?}"),
            plural: self.plural().to_owned(),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.plural();
        write!(f, "{}/{}", kind.trim_end_matches('s'), self.name)
    }
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "write deploy/NAME or sts/NAME";
        let (kind, name) = text.split_once('/').ok_or(form)?;
        let kind = match kind.trim_end_matches(".apps") {
            "deploy" | "deployment" | "deployments" => Kind::Deployment,
            "sts" | "statefulset" | "statefulsets" => Kind::StatefulSet,
            other => return Err(format!("{other} is not restarted here; {form}")),
        };
        if name.is_empty() || name.contains('/') {
            return Err(form.to_owned());
        }
        Ok(Self {
            kind,
            name: name.to_owned(),
        })
    }
}

impl FromStr for Mode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "as-is" => Ok(Mode::AsIs),
            "hook" => Ok(Mode::Hook),
            "sidecar" => Ok(Mode::Sidecar),
            _ => Err("write sidecar, hook or as-is"),
        }
    }
}

impl Mode {
    fn fits(self, ending: Ending) -> bool {
        match self {
            Mode::AsIs => true,
            Mode::Hook => ending == Ending::Hook,
            Mode::Sidecar => ending == Ending::Sidecar,
        }
    }
}

/// As `--compare` has it, as far as it does.
impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Sidecar => f.write_str("gracekeeper"),
            Ending::SidecarAlone => f.write_str("sidecar-without-hook"),
            Ending::Hook => f.write_str("gracekeeper:hook"),
            Ending::Sleep(seconds) => write!(f, "sleep={seconds}"),
            Ending::OtherHook => f.write_str("own-hook"),
            Ending::None => f.write_str("none"),
        }
    }
}

impl Ending {
    /// As a sentence names it.
    pub fn title(self) -> String {
        match self {
            Ending::Sidecar => "gracekeeper's sidecar".to_owned(),
            Ending::SidecarAlone => "gracekeeper's sidecar, and no hook that asks it".to_owned(),
            Ending::Hook => "gracekeeper's hook".to_owned(),
            Ending::Sleep(seconds) => format!("sleep {seconds}"),
            Ending::OtherHook => "a hook of its own".to_owned(),
            Ending::None => "no hook".to_owned(),
        }
    }

    /// What a pod has. Its hook is that of the first container that has one.
    fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else {
            return Ending::None;
        };
        let has_sidecar = (spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten()))
        .any(|container| container.name == OWN_CONTAINER);
        let apps = spec.containers.iter().filter(|it| it.name != OWN_CONTAINER);
        let hook = apps.filter_map(hook).next();
        match (has_sidecar, hook) {
            (true, Some(Ending::Sidecar | Ending::Hook)) => Ending::Sidecar,
            (true, _) => Ending::SidecarAlone,
            // It asks what is not there.
            (false, Some(Ending::Sidecar)) => Ending::OtherHook,
            (false, hook) => hook.unwrap_or(Ending::None),
        }
    }
}

/// A container's preStop hook.
fn hook(container: &Container) -> Option<Ending> {
    let hook = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
    if let Some(sleep) = &hook.sleep {
        return Some(Ending::Sleep(sleep.seconds as f64));
    }
    let path = hook.http_get.as_ref().and_then(|get| get.path.as_deref());
    if path.is_some_and(|path| path.starts_with("/prestop")) {
        return Some(Ending::Sidecar);
    }
    let Some(command) = hook.exec.as_ref().and_then(|exec| exec.command.as_ref()) else {
        return Some(Ending::OtherHook);
    };
    let words: Vec<&str> = command
        .iter()
        .flat_map(|word| word.split_whitespace())
        .collect();
    let is_ours = |pair: &[&str]| pair[0].ends_with("gracekeeper") && pair[1] == "hook";
    if words.windows(2).any(is_ours) {
        return Some(Ending::Hook);
    }
    let slept = words.windows(2).find_map(|pair| {
        let seconds = pair[1].trim_end_matches(['s', ';']).parse().ok();
        seconds.filter(|_| pair[0].rsplit('/').next() == Some("sleep"))
    });
    Some(slept.map_or(Ending::OtherHook, Ending::Sleep))
}

impl Workload {
    /// Looks at it and at its pods.
    ///
    /// # Errors
    /// When there is none, when a restart of it cannot be rehearsed, or when its pods have not what `mode` says.
    pub async fn find(access: &Access, reference: &Reference, mode: Mode) -> anyhow::Result<Self> {
        let object = match api(access, reference).get(&reference.name).await {
            Ok(object) => object,
            Err(e) if is_missing(&e) => bail!(
                "there is no {reference} in namespace {}; write -n NAMESPACE for another one",
                access.namespace
            ),
            Err(e) => bail!("{reference} cannot be read: {}", why(&e)),
        };
        let spec = &object.data["spec"];
        can_be_restarted(reference, spec)?;
        let state = State::of_object(reference.kind, &object);
        if !state.is_done() {
            bail!(
                "{reference} is not settled: {state}; wait for kubectl -n {} rollout status {reference}",
                access.namespace
            );
        }
        let selector: LabelSelector = serde_json::from_value(spec["selector"].clone())
            .with_context(|| format!("the selector of {reference} cannot be understood"))?;
        let selector = Selector::try_from(selector)
            .map_err(|e| anyhow!("the selector of {reference} cannot be understood: {e}"))?
            .to_string();
        let pods: Api<Pod> = Api::namespaced(access.client.clone(), &access.namespace);
        let pods = pods.list(&ListParams::default().labels(&selector)).await;
        let pods =
            pods.map_err(|e| anyhow!("the pods of {reference} cannot be listed: {}", why(&e)))?;
        let pods: Vec<Pod> = (pods.items.into_iter())
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .collect();
        let first = pods
            .first()
            .ok_or_else(|| anyhow!("{reference} has no pod that runs; nothing can be rehearsed"))?;
        for pod in &pods {
            let (ending, name) = (Ending::of(pod), pod.metadata.name.as_deref());
            if !mode.fits(ending) {
                bail!(
                    "the pod {} has {}, not what --mode says; add it with gracekeeper inject or the label \
                     gracekeeper.dev/inject, roll it out, and rehearse then: this command changes nothing but the restart",
                    name.unwrap_or_default(),
                    ending.title()
                );
            }
        }
        Ok(Self {
            ending: Ending::of(first),
            recreates: spec["strategy"]["type"] == "Recreate",
            reference: reference.clone(),
            selector,
            pods,
        })
    }

    /// Restarts it as `kubectl rollout restart` does, and changes nothing else.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn restart(&self, access: &Access) -> anyhow::Result<()> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patch =
            json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
        let params = PatchParams {
            field_manager: Some("kubectl-rollout".to_owned()),
            ..PatchParams::default()
        };
        let patched = api(access, &self.reference)
            .patch(&self.reference.name, &params, &Patch::Merge(patch))
            .await;
        patched.map_err(|e| anyhow!("{} cannot be restarted: {}", self.reference, why(&e)))?;
        Ok(())
    }

    /// How far its rollout has come.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn state(&self, access: &Access) -> anyhow::Result<State> {
        match api(access, &self.reference).get(&self.reference.name).await {
            Ok(object) => Ok(State::of_object(self.reference.kind, &object)),
            Err(e @ kube::Error::Api(_)) => {
                Err(anyhow!("{} cannot be read: {}", self.reference, why(&e)))
            }
            // An API server that is away for a moment is asked again.
            Err(_) => Ok(State::default()),
        }
    }
}

fn api(access: &Access, reference: &Reference) -> Api<DynamicObject> {
    let resource = reference.kind.resource();
    Api::namespaced_with(access.client.clone(), &access.namespace, &resource)
}

/// Whether a restart ends its pods, all of them.
fn can_be_restarted(reference: &Reference, spec: &Value) -> anyhow::Result<()> {
    if spec["replicas"] == 0 {
        bail!("{reference} has 0 replicas; scale it to as many as in production");
    }
    if spec["paused"] == true {
        bail!(
            "{reference} is paused, so nothing would be restarted; kubectl rollout resume {reference}"
        );
    }
    let update = &spec["updateStrategy"];
    if update["type"] == "OnDelete" {
        bail!(
            "{reference} has the update strategy OnDelete, so its pods would not be restarted; delete them by hand, or use \
             RollingUpdate"
        );
    }
    let partition = &update["rollingUpdate"]["partition"];
    if partition.as_u64().is_some_and(|from| from > 0) {
        bail!(
            "{reference} has partition {partition}, so not all of its pods would be restarted; set it to 0"
        );
    }
    Ok(())
}

impl State {
    fn of_object(kind: Kind, object: &DynamicObject) -> Self {
        let generation = object.metadata.generation.unwrap_or_default();
        Self::of(kind, generation, &object.data)
    }

    fn of(kind: Kind, generation: i64, object: &Value) -> Self {
        let (spec, status) = (&object["spec"], &object["status"]);
        let count = |name: &str| status[name].as_u64().unwrap_or(0);
        let observed = status["observedGeneration"].as_i64() >= Some(generation);
        let conditions = status["conditions"].as_array().into_iter().flatten();
        let failed = conditions
            .filter(|it| it["type"] == "Progressing" && it["reason"] == "ProgressDeadlineExceeded")
            .filter_map(|it| it["message"].as_str().map(str::to_owned))
            .next();
        Self {
            observed,
            wanted: spec["replicas"].as_u64().unwrap_or(1),
            all: count("replicas"),
            updated: count("updatedReplicas"),
            available: match kind {
                Kind::Deployment => count("availableReplicas"),
                // A StatefulSet's is of old and new pods together.
                Kind::StatefulSet => count("readyReplicas"),
            },
            failed: failed.filter(|_| observed),
        }
    }

    /// Whether all pods are new and serve.
    pub fn is_done(&self) -> bool {
        self.observed
            && self.updated == self.wanted
            && self.all == self.wanted
            && self.available == self.wanted
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} pods are new, {} are available",
            self.updated, self.wanted, self.available
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_named_as_for_kubectl() {
        for (text, written) in [
            ("deploy/web", "deployment/web"),
            ("deployment.apps/web", "deployment/web"),
            ("sts/db", "statefulset/db"),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), written);
        }
        for text in ["web", "deploy/", "ds/web", "deploy/web/x", ""] {
            assert!(text.parse::<Reference>().is_err(), "{text}");
        }
    }

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    #[test]
    fn what_a_pod_has_for_its_end_is_found() {
        let sleep = json!({"preStop": {"exec": {"command": ["sh", "-c", "sleep 15"]}}});
        let ours = json!({"preStop": {"exec": {"command": ["/hook/gracekeeper", "hook", "--app-port=1"]}}});
        let asks = json!({"preStop": {"httpGet": {"path": "/prestop/app", "port": 9903}}});
        let app = |lifecycle: &Value| json!({"name": "app", "lifecycle": lifecycle});
        let sidecar = json!([{"name": "gracekeeper", "restartPolicy": "Always"}]);
        for (spec, ending) in [
            (json!({"containers": [app(&Value::Null)]}), Ending::None),
            (json!({"containers": [app(&sleep)]}), Ending::Sleep(15.0)),
            (
                json!({"containers": [app(&json!({"preStop": {"sleep": {"seconds": 7}}}))]}),
                Ending::Sleep(7.0),
            ),
            (json!({"containers": [app(&ours)]}), Ending::Hook),
            (json!({"containers": [app(&asks)]}), Ending::OtherHook),
            (
                json!({"initContainers": sidecar, "containers": [app(&asks)]}),
                Ending::Sidecar,
            ),
            (
                json!({"initContainers": sidecar, "containers": [app(&Value::Null)]}),
                Ending::SidecarAlone,
            ),
        ] {
            assert_eq!(Ending::of(&pod(spec.clone())), ending, "{spec}");
        }
    }

    #[test]
    fn a_restart_that_would_end_no_pods_is_refused() {
        let reference: Reference = "sts/db".parse().unwrap();
        assert!(can_be_restarted(&reference, &json!({"replicas": 2})).is_ok());
        for (spec, said) in [
            (json!({"replicas": 0}), "0 replicas"),
            (json!({"paused": true}), "is paused"),
            (json!({"updateStrategy": {"type": "OnDelete"}}), "OnDelete"),
            (
                json!({"updateStrategy": {"rollingUpdate": {"partition": 2}}}),
                "partition 2",
            ),
        ] {
            let message = can_be_restarted(&reference, &spec).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn a_rollout_is_done_when_all_pods_are_new_and_serve() {
        let object = |updated: u64, all: u64, available: u64| {
            json!({"spec": {"replicas": 3}, "status": {"observedGeneration": 2, "updatedReplicas": updated,
                   "replicas": all, "availableReplicas": available}})
        };
        let done =
            |generation, object: &Value| State::of(Kind::Deployment, generation, object).is_done();
        assert!(done(2, &object(3, 3, 3)));
        assert!(
            !done(3, &object(3, 3, 3)),
            "the controller has not seen the restart yet"
        );
        assert!(!done(2, &object(3, 4, 4)), "an old pod is left");
        assert!(!done(2, &object(3, 3, 2)), "a new one does not serve yet");
    }
}

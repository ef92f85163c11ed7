//! What runs in a cluster, read by list calls with the user's kubeconfig.

use kube::Api;
use kube::api::{ApiResource, DynamicObject};

use crate::kubeconfig::{Access, list};
use crate::podspec::Stream;

use super::input::Problem;
use super::manifests::File;

/// Where to look.
#[derive(Debug)]
pub struct Scope {
    /// The namespace; the kubeconfig's own where none is given.
    pub namespace: Option<String>,
    /// All namespaces.
    pub all: bool,
}

/// A kind that is listed: group, version, kind, plural, and whether a cluster may lack it.
const KINDS: [(&str, &str, &str, &str, bool); 9] = [
    ("apps", "v1", "Deployment", "deployments", false),
    ("apps", "v1", "StatefulSet", "statefulsets", false),
    ("apps", "v1", "DaemonSet", "daemonsets", false),
    ("batch", "v1", "CronJob", "cronjobs", false),
    ("", "v1", "Service", "services", false),
    (
        "policy",
        "v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        false,
    ),
    (
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        false,
    ),
    ("", "v1", "Pod", "pods", false),
    ("argoproj.io", "v1alpha1", "Rollout", "rollouts", true),
];

/// Lists what the rules know. A kind that may not be listed is a problem, and the others are still read.
///
/// # Errors
/// When there is no kubeconfig, or the API server does not answer.
pub async fn read(scope: &Scope) -> anyhow::Result<(Vec<File>, Vec<Problem>)> {
    let access = Access::new(scope.namespace.as_deref()).await?;
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    for (group, version, kind, plural, may_lack) in KINDS {
        let resource = resource(group, version, kind, plural);
        let api: Api<DynamicObject> = match scope.all {
            true => Api::all_with(access.client.clone(), &resource),
            false => Api::namespaced_with(access.client.clone(), &access.namespace, &resource),
        };
        match list(&api).await {
            Ok(objects) => files.extend(
                objects
                    .into_iter()
                    .filter_map(|object| file(object, &resource)),
            ),
            Err(kube::Error::Api(status)) if status.code == 404 && may_lack => {}
            Err(kube::Error::Api(status)) => problems.push(Problem {
                name: plural.to_owned(),
                at: None,
                message: format!("cannot be listed: {}", status.message),
                help: None,
                is_note: false,
            }),
            Err(e) => return Err(access.unanswered(e)),
        }
    }
    // A namespace's labels say what is injected; without the right to read them nothing is known of it.
    let namespaces: Api<DynamicObject> = Api::all_with(
        access.client,
        &resource("", "v1", "Namespace", "namespaces"),
    );
    if let Ok(objects) = list(&namespaces).await {
        let resource = resource("", "v1", "Namespace", "namespaces");
        files.extend(
            objects
                .into_iter()
                .filter_map(|object| file(object, &resource)),
        );
    }
    Ok((files, problems))
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let api_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version,
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

/// An object as a file, without what the API server adds. A pod that a controller made is left out: its template is there.
fn file(mut object: DynamicObject, resource: &ApiResource) -> Option<File> {
    let is_owned = object
        .metadata
        .owner_references
        .as_ref()
        .is_some_and(|owners| !owners.is_empty());
    if is_owned && resource.kind == "Pod" {
        return None;
    }
    object.metadata.managed_fields = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
    if let Some(data) = object.data.as_object_mut() {
        data.remove("status");
    }
    object.types = Some(kube::api::TypeMeta {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
    });
    let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let name = format!("cluster/{namespace}/{}/{name}", resource.plural);
    let text = serde_json::to_string_pretty(&object).ok()?;
    Some(File {
        name,
        stream: Stream::parse(text),
        on_disk: false,
    })
}

//! What gracekeeper said of each pod in its Events.

use std::collections::BTreeMap;

use k8s_openapi::api::events::v1::Event;
use kube::Api;

use crate::cluster::{CONTROLLER, Reason};
use crate::kubeconfig::{Access, each};

/// Events that tell how a drain ended.
const ENDED: [Reason; 5] = [
    Reason::Drained,
    Reason::DrainDeadlineExceeded,
    Reason::DrainReleased,
    Reason::DrainBlind,
    Reason::DrainStuck,
];

/// What is said of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The verdict in one line.
    pub verdict: Option<String>,
    /// That requests were cut off.
    pub cut: Option<String>,
}

/// What is said of each pod, by its UID, or by its name where an Event has none: a StatefulSet's pods keep their names.
/// Where Events cannot be read, nothing is.
pub async fn read(access: &Access) -> BTreeMap<String, Said> {
    let api: Api<Event> = Api::namespaced(access.client.clone(), &access.namespace);
    let mut said = BTreeMap::new();
    // What was read before a page failed is still worth showing.
    let _ = each(&api, |event| take(&event, &mut said)).await;
    said
}

fn take(event: &Event, said: &mut BTreeMap<String, Said>) {
    let regarding = event.regarding.as_ref();
    let pod = regarding.and_then(|it| it.uid.clone().or(it.name.clone()));
    let (Some(pod), Some(reason), Some(note)) = (pod, &event.reason, &event.note) else {
        return;
    };
    if event.reporting_controller.as_deref() != Some(CONTROLLER) {
        return;
    }
    let said = said.entry(pod).or_default();
    if ENDED.iter().any(|ended| ended.name() == reason) {
        said.verdict = Some(note.clone());
    } else if reason == Reason::RequestsCut.name() {
        said.cut = Some(note.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pods_verdict_is_the_event_that_ends_its_drain() {
        let mut said = BTreeMap::new();
        for (controller, reason, note) in [
            ("gracekeeper", "DrainStarted", "started"),
            ("gracekeeper", "Drained", "drained after 5.0s"),
            ("gracekeeper", "RequestsCut", "2 requests were cut off"),
            ("kubelet", "Drained", "not ours"),
        ] {
            let event = json!({
                "metadata": {}, "eventTime": null, "reportingController": controller, "reason": reason, "note": note,
                "regarding": {"name": "web-1"},
            });
            take(&serde_json::from_value(event).unwrap(), &mut said);
        }
        let web = &said["web-1"];
        assert_eq!(web.verdict.as_deref(), Some("drained after 5.0s"));
        assert_eq!(web.cut.as_deref(), Some("2 requests were cut off"));
    }
}

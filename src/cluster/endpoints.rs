//! Whether Services still send requests to our own pod: their EndpointSlices, listed once and then watched.

use std::collections::HashMap;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{ListParams, WatchEvent, WatchParams};

use super::{Access, Cluster, Error, bounded};

/// The label by which a slice belongs to a Service.
const SERVICE: &str = "kubernetes.io/service-name";

impl Cluster {
    /// Returns when none of these Services sends requests here any more. There is no time limit but on its first call.
    ///
    /// # Errors
    /// When the API server does not say so.
    pub async fn left(&self, services: &[String]) -> Result<(), Error> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client(), &self.access.namespace);
        let selector = format!("{SERVICE} in ({})", services.join(","));
        let listed = bounded(slices.list(&ListParams::default().labels(&selector))).await?;
        let mut leads: HashMap<String, bool> = (listed.items.iter())
            .map(|slice| (name(slice), leads_to(slice, &self.access)))
            .collect();
        if leads.is_empty() {
            return Err(Error::Wrong("no EndpointSlice belongs to such a Service"));
        }
        if !leads.values().any(|&leads| leads) {
            return Ok(());
        }
        let version = listed.metadata.resource_version.unwrap_or_default();
        let watch = WatchParams::default().labels(&selector);
        let mut changes = bounded(slices.watch(&watch, &version)).await?.boxed();
        while let Some(change) = changes.try_next().await? {
            match change {
                WatchEvent::Added(slice) | WatchEvent::Modified(slice) => {
                    leads.insert(name(&slice), leads_to(&slice, &self.access));
                }
                WatchEvent::Deleted(slice) => {
                    leads.remove(&name(&slice));
                }
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) => return Err(Error::Refused(status.message)),
            }
            if !leads.values().any(|&leads| leads) {
                return Ok(());
            }
        }
        Err(Error::Wrong(
            "the watch on EndpointSlices has ended too early",
        ))
    }
}

fn name(slice: &EndpointSlice) -> String {
    slice.metadata.name.clone().unwrap_or_default()
}

/// Whether a slice sends requests to our pod: one of its endpoints is the pod, and ready. Without a condition it is ready.
fn leads_to(slice: &EndpointSlice, access: &Access) -> bool {
    slice.endpoints.iter().flatten().any(|endpoint| {
        let ours = endpoint.target_ref.as_ref().is_some_and(|target| {
            target.kind.as_deref() == Some("Pod")
                && target.name.as_ref() == Some(&access.pod)
                && (access.uid.is_none() || target.uid.is_none() || target.uid == access.uid)
        });
        let ready = (endpoint.conditions.as_ref()).and_then(|conditions| conditions.ready);
        ours && ready.unwrap_or(true)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_slice_leads_here_while_our_pod_is_a_ready_endpoint_of_it() {
        let access = Access {
            host: "10.0.0.1".to_owned(),
            port: 443,
            service_account: "/x".into(),
            namespace: "shops".to_owned(),
            pod: "shop-1".to_owned(),
            uid: Some("u".to_owned()),
        };
        let slice = |name: &str, uid: &str, conditions| {
            let slice = json!({"addressType": "IPv4", "endpoints": [
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true},
                 "targetRef": {"kind": "Pod", "name": "shop-2", "uid": "v"}},
                {"addresses": ["10.0.0.1"], "conditions": conditions,
                 "targetRef": {"kind": "Pod", "name": name, "uid": uid}},
            ]});
            serde_json::from_value(slice).unwrap()
        };
        assert!(leads_to(
            &slice("shop-1", "u", json!({"ready": true})),
            &access
        ));
        assert!(leads_to(&slice("shop-1", "u", json!({})), &access));
        let leaving = json!({"ready": false, "serving": true, "terminating": true});
        assert!(!leads_to(&slice("shop-1", "u", leaving), &access));
        assert!(!leads_to(
            &slice("shop-1", "w", json!({"ready": true})),
            &access
        ));
        assert!(!leads_to(
            &slice("shop-3", "u", json!({"ready": true})),
            &access
        ));
    }
}

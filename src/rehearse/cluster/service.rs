//! The Services that the URLs name: whether they are there, have the port, and lead to a pod.

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::super::target::Target;
use super::access::why;
use crate::kubeconfig::Access;

/// Looks at the Service that a URL's host names in this namespace, and says what the user should know of it.
///
/// # Errors
/// When no request could be answered through it.
pub async fn look(
    access: &Access,
    target: &Target,
    pod_labels: &BTreeMap<String, String>,
) -> anyhow::Result<Option<String>> {
    let services: Api<Service> = Api::namespaced(access.client.clone(), &access.namespace);
    let services = services.list(&ListParams::default()).await;
    let services = services.map_err(|e| anyhow!("the Services cannot be listed: {}", why(&e)))?;
    let (host, port) = target.authority();
    let Some(service) = find(&services.items, host, &access.namespace)? else {
        return Ok(None);
    };
    let name = service.metadata.name.as_deref().unwrap_or_default();
    let spec = service.spec.as_ref();
    let is_headless = spec.and_then(|spec| spec.cluster_ip.as_deref()) == Some("None");
    let ports = spec
        .and_then(|spec| spec.ports.as_ref())
        .into_iter()
        .flatten();
    let ports: Vec<i32> = ports.map(|port| port.port).collect();
    if !is_headless && !ports.contains(&i32::from(port)) {
        let ports: Vec<String> = ports.iter().map(i32::to_string).collect();
        bail!(
            "{}: the Service {name} has no port {port}; it has {}",
            target.url,
            ports.join(", ")
        );
    }
    let selector = spec.and_then(|spec| spec.selector.as_ref());
    if ready_endpoints(access, name).await? == 0 {
        let selected = match selector {
            Some(labels) => {
                let labels: Vec<_> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!(
                    "no pod that is ready has the labels of its selector, {}",
                    labels.join(",")
                )
            }
            None => "it has no selector, and its EndpointSlices name none".to_owned(),
        };
        bail!(
            "{}: the Service {name} has no ready endpoint: {selected}",
            target.url
        );
    }
    let leads = selector.is_some_and(|labels| {
        labels
            .iter()
            .all(|(key, value)| pod_labels.get(key) == Some(value))
    });
    Ok((!leads).then(|| {
        format!(
            "the Service {name} does not select these pods itself; their restart shows only if it leads to them by others"
        )
    }))
}

/// The Service that this host is, by its name or its address; none where the host is none of this namespace.
fn find<'a>(
    services: &'a [Service],
    host: &str,
    namespace: &str,
) -> anyhow::Result<Option<&'a Service>> {
    let has_address = |service: &&Service| {
        let spec = service.spec.as_ref();
        spec.and_then(|spec| spec.cluster_ips.as_ref())
            .is_some_and(|addresses| addresses.iter().any(|address| address == host))
    };
    if host.parse::<std::net::IpAddr>().is_ok() {
        return Ok(services.iter().find(has_address));
    }
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    if labels.next().is_some_and(|label| label != namespace) {
        return Ok(None);
    }
    let named = services
        .iter()
        .find(|it| it.metadata.name.as_deref() == Some(name));
    if named.is_none() {
        let names: Vec<&str> = (services.iter())
            .filter_map(|service| service.metadata.name.as_deref())
            .collect();
        let there = match names.as_slice() {
            [] => "there is none".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        bail!("there is no Service {name} in namespace {namespace}; {there}");
    }
    Ok(named)
}

async fn ready_endpoints(access: &Access, service: &str) -> anyhow::Result<usize> {
    let slices: Api<EndpointSlice> = Api::namespaced(access.client.clone(), &access.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&of_service).await;
    let slices = slices.map_err(|e| anyhow!("the EndpointSlices cannot be listed: {}", why(&e)))?;
    let endpoints = slices
        .items
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten());
    let is_ready = |conditions: &Option<k8s_openapi::api::discovery::v1::EndpointConditions>| {
        // Not known is ready, says the type's own documentation.
        conditions.as_ref().and_then(|it| it.ready) != Some(false)
    };
    Ok(endpoints.filter(|it| is_ready(&it.conditions)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_host_is_a_service_by_its_names_or_its_address() {
        let services: Vec<Service> = serde_json::from_value(json!([
            {"metadata": {"name": "web"}, "spec": {"clusterIPs": ["10.96.3.4"]}},
            {"metadata": {"name": "db"}},
        ]))
        .unwrap();
        let found = |host| {
            let found = find(&services, host, "shop").map_err(|e| e.to_string())?;
            Ok::<_, String>(found.and_then(|it| it.metadata.name.clone()))
        };
        for host in ["web", "web.shop", "web.shop.svc.cluster.local", "10.96.3.4"] {
            assert_eq!(found(host), Ok(Some("web".to_owned())), "{host}");
        }
        for host in ["web.other", "www.example.com", "10.96.9.9"] {
            assert_eq!(found(host), Ok(None), "{host}");
        }
        let message = found("wbe").unwrap_err();
        assert!(
            message.contains("no Service wbe in namespace shop; there are: web, db"),
            "{message}"
        );
    }
}

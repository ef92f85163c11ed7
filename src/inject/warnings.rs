//! What is said of a pod that is injected: what is left out, and what would stop it too early. The chart's policy of
//! warnings says the same, in the same words.

use std::time::Duration;

use super::plan::Facts;
use super::settings::{PREFIX, Setting, is_not_of_the_hook};
use crate::podspec::Node;

/// The sidecar's own defaults.
const MIN_WAIT: &str = "5s";
const RESERVE: &str = "5s";
/// An app that finishes by itself has the rest of the grace period.
const RESERVE_GRACEFUL: &str = "0s";

/// Every warning, in the order of the policy's.
pub fn warnings(facts: &Facts<'_>) -> Vec<String> {
    [
        unknown_annotations(facts),
        wrong_values(facts),
        own_hooks(facts),
        short_grace(facts).into_iter().collect(),
        missing_containers(facts),
        drain_file(facts).into_iter().collect(),
        flags_without_a_sidecar(facts),
        taken_port(facts).into_iter().collect(),
        port_of_the_node(facts).into_iter().collect(),
        service(facts).into_iter().collect(),
    ]
    .concat()
}

/// The annotations of ours, without their prefix, in order, with their values.
fn given<'a>(facts: &Facts<'a>) -> Vec<(&'a str, &'a str)> {
    let annotations = facts.pod.metadata.and_then(|it| it.get("annotations"));
    let mut given: Vec<_> = (annotations.into_iter().flat_map(Node::entries))
        .filter_map(|entry| {
            let name = entry.key.text()?.strip_prefix(PREFIX)?;
            Some((name, entry.value.text().unwrap_or_default()))
        })
        .collect();
    given.sort_unstable();
    given
}

fn of_pods(name: &str) -> Option<&'static Setting> {
    Setting::named(name).filter(|setting| setting.is_of_pods())
}

fn unknown_annotations(facts: &Facts<'_>) -> Vec<String> {
    (given(facts).into_iter())
        .filter(|(name, _)| of_pods(name).is_none() && *name != "injected-by")
        .map(|(name, _)| {
            format!(
                "the annotation {PREFIX}{name} sets nothing; docs/injection.md lists those that do"
            )
        })
        .collect()
}

fn wrong_values(facts: &Facts<'_>) -> Vec<String> {
    (given(facts).into_iter())
        .filter_map(|(name, value)| {
            let setting = of_pods(name).filter(|setting| !setting.takes(value))?;
            let value = value.replace('\n', " ");
            Some(format!(
                "the annotation {PREFIX}{name} \"{value}\" is left out: {}",
                setting.remedy
            ))
        })
        .collect()
}

fn own_hooks(facts: &Facts<'_>) -> Vec<String> {
    (facts.apps().into_iter())
        .filter(|(_, container)| container.pre_stop().is_some())
        .map(|(_, container)| {
            format!(
                "the container {} has a preStop hook of its own, which stays as it is, so nothing holds the app until its \
                 requests have ended; to chain the two, see \"A hook of your own\" in docs/injection.md",
                container.name()
            )
        })
        .collect()
}

fn short_grace(facts: &Facts<'_>) -> Option<String> {
    let or = |name, default| match facts.settings.get(name) {
        "" => default,
        value => value,
    };
    let default_reserve = match facts.settings.get("app-shutdown") {
        "graceful" => RESERVE_GRACEFUL,
        _ => RESERVE,
    };
    let (min_wait, reserve) = (or("min-wait", MIN_WAIT), or("reserve", default_reserve));
    let time = |text| humantime::parse_duration(text).unwrap_or_default();
    let needed = time(min_wait) + time(reserve);
    let grace = facts.pod.grace();
    let granted = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
    let short = needed >= granted.max(time(facts.settings.get("grace-period")));
    short.then(|| {
        format!(
            "terminationGracePeriodSeconds {grace} is not longer than min-wait {min_wait} and reserve {reserve} together, so \
             requests get no time to end; raise it, or let the annotation {PREFIX}grace-period do so"
        )
    })
}

fn missing_containers(facts: &Facts<'_>) -> Vec<String> {
    let is_there = |name: &str| facts.containers.iter().any(|it| it.name() == name);
    (facts.settings.list("containers").into_iter())
        .filter(|name| !is_there(name))
        .map(|name| {
            format!(
                "the annotation {PREFIX}containers names {name}, and there is no such container"
            )
        })
        .collect()
}

fn drain_file(facts: &Facts<'_>) -> Option<String> {
    let file = facts.settings.get("drain-file");
    let nowhere = !facts.is_hook() && !file.is_empty() && facts.drain_file_mount().is_none();
    nowhere.then(|| {
        format!(
            "the drain file {file} is in no volume that a container mounts, and the sidecar has no other place to write to; \
             mount an emptyDir at its folder"
        )
    })
}

fn flags_without_a_sidecar(facts: &Facts<'_>) -> Vec<String> {
    (given(facts).into_iter())
        .filter(|(name, _)| facts.is_hook() && is_not_of_the_hook(name))
        .map(|(name, _)| {
            format!("the annotation {PREFIX}{name} does nothing in mode hook, which has no sidecar")
        })
        .collect()
}

fn taken_port(facts: &Facts<'_>) -> Option<String> {
    let port: i64 = facts.settings.get("port").parse().ok()?;
    let taken = !facts.is_hook() && facts.taken_ports().contains(&port);
    taken.then(|| {
        format!("the annotation {PREFIX}port {port} is left out: a container of this pod has that port; write another")
    })
}

fn port_of_the_node(facts: &Facts<'_>) -> Option<String> {
    let unknown = facts.on_host()
        && facts.settings.get("app-port").is_empty()
        && facts.tcp_ports().is_empty();
    unknown.then(|| {
        format!(
            "a pod on the node's network that declares no port: --app-port=auto takes every program of the node for the app; \
             write the annotation {PREFIX}app-port"
        )
    })
}

fn service(facts: &Facts<'_>) -> Option<String> {
    let useless =
        !facts.is_hook() && !facts.settings.get("service").is_empty() && facts.kube() == "off";
    useless.then(|| {
        format!(
            "the annotation {PREFIX}service needs the Kubernetes API, which the sidecar may not use; add the service account \
             to the values injection.serviceAccounts of the chart"
        )
    })
}

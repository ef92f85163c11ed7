//! Times that have to fit into the grace period.

use std::sync::LazyLock;

use regex::Regex;

use crate::check::manifests::PodFacts;
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::rules::hooks::stops_the_app;
use crate::check::sidecar::{HookKind, hook_kind, image_name};
use crate::config::duration;
use crate::podspec::edit::{self, Edit};
use crate::podspec::{Container, Node};

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK001",
        severity: Severity::Warning,
        summary: "A Service sends requests to these pods, and nothing lets the requests end before the app is stopped",
        why: "When a pod is deleted, the kubelet sends SIGTERM at once, while load balancers and kube-proxy still learn that the \
              pod is going. Until they have, new requests arrive at an app that is stopping, and are refused. A preStop hook \
              holds SIGTERM back. (pkg/kubelet/kuberuntime/kuberuntime_container.go, killContainer: hook first, then SIGTERM)",
        remedy: "spec:\n  terminationGracePeriodSeconds: 60\n  containers:\n    - name: app\n      lifecycle:\n        preStop:\n          \
                 httpGet: { path: /prestop/app, port: 9903 } # gracekeeper's sidecar; at the least: sleep: { seconds: 10 }\n",
        find: Find::Pod(traffic_without_drain),
    },
    Rule {
        id: "GK002",
        severity: Severity::Error,
        summary: "The grace period is shorter than the sidecar's min-wait and reserve together",
        why: "The sidecar keeps the reserve back for the app's own stop, and never answers the hook before min-wait. With less time \
              than both need, the wait for routes is cut short, and requests that still arrive are lost.",
        remedy: "spec:\n  terminationGracePeriodSeconds: 60 # at least min-wait + reserve + the longest request\n",
        find: Find::Pod(grace_below_min_wait),
    },
    Rule {
        id: "GK003",
        severity: Severity::Error,
        summary: "The preStop hook sleeps as long as the grace period, or longer",
        why: "The hook's time is part of the grace period. When it is over while the hook still sleeps, the app gets SIGTERM with 2 \
              seconds left and is then killed with whatever it is doing. (pkg/kubelet/kuberuntime/kuberuntime_container.go, \
              killContainer and minimumGracePeriodInSeconds) A sleep action longer than the grace period is refused by the API server.",
        remedy: "spec:\n  terminationGracePeriodSeconds: 60 # more than the sleep and the longest request together\n",
        find: Find::Pod(sleep_beyond_grace),
    },
    Rule {
        id: "GK004",
        severity: Severity::Warning,
        summary: "The preStop hook stops the app at once, before routes have changed",
        why: "The hook runs at the moment the pod is deleted. An app that is told to stop then closes its listener while load \
              balancers and kube-proxy still send new requests, which are refused. Wait first, then stop; SIGTERM comes anyway when \
              the hook has ended.",
        remedy: "lifecycle:\n  preStop:\n    exec:\n      command: [\"sh\", \"-c\", \"sleep 10; nginx -s quit; while pgrep -x nginx; do sleep 1; done\"]\n",
        find: Find::Pod(hook_stops_the_app),
    },
    Rule {
        id: "GK005",
        severity: Severity::Error,
        summary: "A grace period of 0 leaves hook and app about 2 seconds",
        why: "With 0 the API server removes the pod at once (pkg/registry/core/pod/strategy.go, CheckGracefulDelete), so that no one sees it end, \
              and the kubelet gives the hook 2 seconds, sends SIGTERM and kills the app right after it \
              (pkg/kubelet/kuberuntime/kuberuntime_container.go, minimumGracePeriodInSeconds). Seen on Kubernetes 1.36: of a hook of 20 \
              seconds 2 were waited for.",
        remedy: "spec:\n  terminationGracePeriodSeconds: 30\n",
        find: Find::Pod(no_grace),
    },
    Rule {
        id: "GK006",
        severity: Severity::Warning,
        summary: "The hook and the app's own shutdown time need more than the grace period",
        why: "The app's shutdown begins when the hook has ended. What the app was promised for its last requests is not there: it is \
              killed when the grace period is over.",
        remedy: "spec:\n  terminationGracePeriodSeconds: 90 # the hook's time and the app's shutdown time together\n",
        find: Find::Pod(shutdown_beyond_grace),
    },
    Rule {
        id: "GK007",
        severity: Severity::Warning,
        summary: "The sidecar's --grace-period is not the pod's grace period",
        why: "The sidecar reads the real one from the Kubernetes API where it may; where it may not (no service account, --kube=off, an \
              API server that is away), the flag is all it knows. A larger one makes it wait too long, and the app is killed; a \
              smaller one ends the drain early.",
        remedy: "args: [run, --grace-period=60s] # the same as terminationGracePeriodSeconds\n",
        find: Find::Pod(other_grace_period),
    },
];

/// Seconds that an app needs for its own stop at the least, after its hook.
const LEAST_STOP: i64 = 2;

fn traffic_without_drain(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(service) = facts.main_service() else {
        return;
    };
    let has_hook = facts
        .running()
        .any(|container| container.pre_stop().is_some());
    if has_hook || facts.injected || facts.sidecar.is_some() || drains_by_itself(facts) {
        return;
    }
    let name = service.source.object.name().unwrap_or_default();
    let Some(app) = facts.apps().next() else {
        return;
    };
    let finding = findings.add(
        &facts.source,
        &app.head().span,
        format!("Service {name} sends requests to these pods, and no container has a preStop hook: requests that arrive after SIGTERM are lost"),
    );
    finding.remedy(format!(
        "spec:\n  terminationGracePeriodSeconds: {}\n  containers:\n    - name: {}\n      lifecycle:\n        preStop:\n          \
         httpGet: {{ path: /prestop/app, port: 9903 }} # gracekeeper's sidecar; at the least: sleep: {{ seconds: 10 }}\n",
        facts.pod.grace().max(60),
        app.name()
    ));
    if service.is_headless() || is_outage_anyway(facts) || clients_try_again(facts) {
        finding.severity(Severity::Hint);
    }
}

/// Whether it is a member of a store whose client libraries go to another member by themselves.
fn clients_try_again(facts: &PodFacts<'_>) -> bool {
    let stores = ["etcd", "kafka", "zookeeper"];
    facts
        .apps()
        .all(|app| stores.contains(&image_name(app.image())))
}

/// Whether no other pod takes over while this one ends, so that requests are lost with a hook too.
fn is_outage_anyway(facts: &PodFacts<'_>) -> bool {
    let object = facts.source.object;
    let strategy = object
        .spec()
        .and_then(|spec| spec.at(&["strategy", "type"]));
    let recreate = strategy.is_some_and(|node| node.text() == Some("Recreate"));
    match object.kind {
        "Deployment" | "Rollout" => recreate,
        "Pod" => true,
        "ReplicationController" => {
            object
                .spec()
                .and_then(|spec| spec.number_at("replicas"))
                .unwrap_or(1)
                < 2
        }
        _ => facts.replicas.is_some_and(|replicas| replicas < 2),
    }
}

/// Whether the app is known to go on serving after SIGTERM for a while, or a flag or variable looks like a delay of its own before the stop, such as Traefik's requestAcceptGraceTimeout.
fn drains_by_itself(facts: &PodFacts<'_>) -> bool {
    let marks = [
        "drain",
        "lameduck",
        "shutdown-delay",
        "shutdown_delay",
        "shutdowndelay",
        "requestacceptgracetimeout",
        "pre-stop",
        "prestop",
    ];
    let is_mark = |text: &str| {
        let text = text.to_lowercase();
        marks.iter().any(|mark| text.contains(mark))
    };
    // Knative's and Tekton's programs wait 45 s after SIGTERM, Gatekeeper 10 s (--shutdown-delay), podinfo 3 s; Istio's
    // proxy drains.
    let waiting = [
        "knative.dev/",
        "tektoncd/",
        "openpolicyagent/gatekeeper:",
        "stefanprodan/podinfo",
    ];
    let is_known = |image: &str| {
        (waiting.iter()).any(|name| image.contains(name))
            || image == "auto"
            || image_name(image) == "proxyv2"
    };
    facts.apps().any(|app| {
        let words = app.command().into_iter().chain(app.args());
        let variables = app.envs().filter_map(|entry| entry.text_at("name"));
        is_known(app.image()) || words.chain(variables).any(is_mark)
    })
}

fn grace_below_min_wait(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let (min_wait, reserve) = (sidecar.flags.min_wait(), sidecar.flags.reserve());
    let needed = (min_wait + reserve).ceil() as i64;
    let grace = facts.pod.grace();
    if grace >= needed {
        return;
    }
    let at = facts.pod.grace_node().unwrap_or(sidecar.container.head());
    findings
        .add(
            &facts.source,
            &at.span,
            format!("the grace period is {grace}s, but min-wait {min_wait}s and reserve {reserve}s need {needed}s, and requests come on top"),
        )
        .remedy(format!("terminationGracePeriodSeconds: {}\n", needed.max(30)))
        .fix(set_grace(facts, needed.max(30)));
}

fn sleep_beyond_grace(facts: &PodFacts<'_>, findings: &mut Findings) {
    let grace = facts.pod.grace();
    for (container, seconds, node) in sleeps(facts) {
        if grace == 0 || seconds + LEAST_STOP <= grace {
            continue;
        }
        let needed = (seconds + 30).max(60);
        findings
            .add(
                &facts.source,
                &node.span,
                format!(
                    "the preStop hook of container {} sleeps {seconds}s, and the grace period is {grace}s: the app is killed without time for its own stop",
                    container.name()
                ),
            )
            .remedy(format!("terminationGracePeriodSeconds: {needed}\n"))
            .fix(set_grace(facts, needed));
    }
}

/// The hooks that sleep.
fn sleeps<'a, 'b>(
    facts: &'b PodFacts<'a>,
) -> impl Iterator<Item = (&'b Container<'a>, i64, &'a Node)> {
    facts.running().filter_map(|container| {
        let hook = container.pre_stop()?;
        match hook_kind(&hook) {
            HookKind::Sleep(seconds) => Some((container, seconds, hook.node)),
            _ => None,
        }
    })
}

fn set_grace(facts: &PodFacts<'_>, seconds: i64) -> Option<Edit> {
    facts.can_be_edited().then_some(())?;
    edit::set_entry(
        facts.source.text,
        facts.pod.spec,
        "terminationGracePeriodSeconds",
        &seconds.to_string(),
        None,
    )
}

fn hook_stops_the_app(facts: &PodFacts<'_>, findings: &mut Findings) {
    if facts.services.is_empty() {
        return;
    }
    for container in facts.apps() {
        let Some(hook) = container.pre_stop() else {
            continue;
        };
        if let Some(what) = stops_the_app(&hook) {
            findings.add(
                &facts.source,
                &hook.node.span,
                format!(
                    "the preStop hook of container {} runs {what} at once, while requests still arrive",
                    container.name()
                ),
            );
        }
    }
}

fn no_grace(facts: &PodFacts<'_>, findings: &mut Findings) {
    // Pods that only keep a place, or fetch images, have nothing to end.
    if facts
        .running()
        .all(|container| image_name(container.image()) == "pause")
    {
        return;
    }
    let Some(node) = facts
        .pod
        .grace_node()
        .filter(|node| node.number() == Some(0))
    else {
        return;
    };
    let finding = findings.add(
        &facts.source,
        &node.span,
        "a grace period of 0 leaves the hook 2 seconds and the app no time after SIGTERM",
    );
    if facts.services.is_empty() {
        finding.severity(Severity::Warning);
    }
}

fn shutdown_beyond_grace(facts: &PodFacts<'_>, findings: &mut Findings) {
    let grace = facts.pod.grace();
    for app in facts.apps() {
        let Some((flag, seconds, node)) = shutdown_time(app) else {
            continue;
        };
        let hook = app.pre_stop().map(|hook| hook_kind(&hook));
        let waited = match (hook, &facts.sidecar) {
            (Some(HookKind::Sleep(seconds)), _) => seconds,
            (Some(HookKind::App), Some(sidecar)) => sidecar.flags.min_wait().ceil() as i64,
            _ => 0,
        };
        if waited + seconds <= grace || grace == 0 {
            continue;
        }
        let before = match waited {
            0 => String::new(),
            _ => format!(" after the hook's {waited}s"),
        };
        let needed = waited + seconds + 5;
        findings
            .add(
                &facts.source,
                &node.span,
                format!("{flag} gives the app {seconds}s to shut down{before}, but the grace period is {grace}s"),
            )
            .remedy(format!("terminationGracePeriodSeconds: {needed}\n"))
            .fix(set_grace(facts, needed));
    }
}

/// The time that known servers are given for their own shutdown, and the flag or variable that says so.
fn shutdown_time<'a>(app: &Container<'a>) -> Option<(String, i64, &'a Node)> {
    static FLAG: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"--(timeout-graceful-shutdown|graceful-timeout|graceful-shutdown-timeout|shutdown-timeout|shutdown-grace-period|shutdown-grace-timeout)[= ](\d+[a-z]*)",
        )
        .ok()
    });
    let seconds = |text: &str| -> Option<i64> {
        let plain = text.parse().ok();
        plain.or_else(|| Some(duration(text).ok()?.as_secs() as i64))
    };
    let words: Vec<&'a Node> = ["command", "args"]
        .into_iter()
        .flat_map(|key| crate::check::sidecar::nodes(app.node, key))
        .collect();
    for (index, node) in words.iter().enumerate() {
        let text = node.text().unwrap_or_default();
        let next = words.get(index + 1).and_then(|next| next.text());
        let both = match next {
            Some(next) if !text.contains(['=', ' ']) => format!("{text} {next}"),
            _ => text.to_owned(),
        };
        if let Some(found) = FLAG.as_ref().and_then(|flag| flag.captures(&both))
            && let Some(seconds) = seconds(&found[2])
        {
            return Some((format!("--{}", &found[1]), seconds, node));
        }
    }
    let spring = "SPRING_LIFECYCLE_TIMEOUT_PER_SHUTDOWN_PHASE";
    let entry = app.env(spring)?;
    let value = seconds(&entry.text_at("value")?.to_lowercase())?;
    Some((spring.to_owned(), value, entry))
}

fn other_grace_period(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let grace = facts.pod.grace();
    let written = sidecar.flags.all("grace-period");
    let (said, node) = match written.last() {
        Some(&(text, node)) => match duration(text) {
            Ok(said) => (said.as_secs_f64(), node),
            Err(_) => return,
        },
        None if sidecar.flags.has_unknown => return,
        None => (30.0, sidecar.container.head()),
    };
    if said == grace as f64 {
        return;
    }
    let how = match written.is_empty() {
        true => format!("the sidecar has no --grace-period and takes {said}s"),
        false => format!("the sidecar's grace period is {said}s"),
    };
    let right = format!("--grace-period={grace}s");
    let as_word = node
        .text()
        .is_some_and(|text| text.starts_with("--grace-period="));
    findings
        .add(
            &facts.source,
            &node.span,
            format!("{how}, but the pod's terminationGracePeriodSeconds is {grace}"),
        )
        .remedy(format!("args: [run, {right}]\n"))
        .fix((as_word && facts.can_be_edited()).then(|| edit::replace(node, right)));
}

//! Probes that are too slow for a drain, or end it.

use crate::check::manifests::PodFacts;
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::{HookKind, hook_kind};
use crate::podspec::edit;
use crate::podspec::{Action, Role};

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK025",
        severity: Severity::Warning,
        summary: "The sidecar's readiness probe fails later than the drain may end",
        why: "A drain that is no deletion (the app is restarted, or drained by hand) leaves the Services only when the probe has failed often \
              enough. With the defaults of 10 seconds and 3 failures that takes up to 30 seconds; min-wait is 5. (pkg/kubelet/prober/worker.go)",
        remedy: "readinessProbe:\n  httpGet: { path: /readyz, port: 9903 }\n  periodSeconds: 2\n",
        find: Find::Pod(slow_readiness),
    },
    Rule {
        id: "GK026",
        severity: Severity::Error,
        summary: "A liveness probe fails while the pod drains, and so kills what it should keep",
        why: "/readyz answers 503 from the beginning of a drain. A pod that is deleted is not hurt by it: its probes still fail (those of native \
              sidecars go on), but nothing more is killed (seen on Kubernetes 1.36). A pod that drains without being deleted, by hand or because the \
              app is restarted, is: the kubelet kills the container in the middle of the drain, and again after each restart. \
              (pkg/kubelet/prober/prober_manager.go, StopLivenessAndStartup; pkg/kubelet/kuberuntime/kuberuntime_manager.go, \
              computePodActions)",
        remedy: "livenessProbe:\n  httpGet: { path: /livez, port: 9903 }\n",
        find: Find::Pod(liveness_at_readiness),
    },
    Rule {
        id: "GK027",
        severity: Severity::Warning,
        summary: "A probe's own grace period is shorter than the hook",
        why: "When a liveness or startup probe fails, its own terminationGracePeriodSeconds counts and not the pod's: the hook is cut short, and the \
              requests of an app that is only slow are lost. (pkg/kubelet/kuberuntime/kuberuntime_container.go, setTerminationGracePeriod; seen on Kubernetes 1.36: with 3 of 60 \
              seconds SIGTERM came 3 seconds after the hook began)",
        remedy: "livenessProbe:\n  terminationGracePeriodSeconds: 60 # no less than the pod's, or leave it out\n",
        find: Find::Pod(short_probe_grace),
    },
];

fn slow_readiness(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let Some(probe) = sidecar.container.probe("readinessProbe") else {
        return;
    };
    if sidecar
        .flags
        .value("readiness")
        .is_some_and(|policy| policy != "now")
        || matches!(facts.source.object.kind, "Job" | "CronJob")
    {
        return;
    }
    let min_wait = sidecar.flags.min_wait();
    let at_best = (probe.failure_threshold() - 1) * probe.period();
    if at_best as f64 <= min_wait {
        return;
    }
    let fix = facts.can_be_edited().then(|| {
        edit::set_entry(
            facts.source.text,
            probe.handler.node,
            "periodSeconds",
            "2",
            None,
        )
    });
    findings
        .add(
            &facts.source,
            &probe.handler.node.span,
            format!(
                "every {}s, {} times: the pod is unready {at_best}s to {}s after a drain began, and the drain may end after {min_wait}s",
                probe.period(),
                probe.failure_threshold(),
                probe.failure_threshold() * probe.period()
            ),
        )
        .remedy("readinessProbe:\n  periodSeconds: 2\n")
        .fix((probe.failure_threshold() <= 3).then_some(fix).flatten().flatten());
}

fn liveness_at_readiness(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    for container in facts.running() {
        for kind in ["livenessProbe", "startupProbe"] {
            let Some(probe) = container.probe(kind) else {
                continue;
            };
            let Action::HttpGet {
                path: "/readyz",
                port: Some(port),
                ..
            } = probe.handler.action()
            else {
                continue;
            };
            let is_own = container.node.span == sidecar.container.node.span;
            let number = port.number().or_else(|| container.port_named(port.name()?));
            if number != Some(sidecar.port()) || (kind == "startupProbe" && !is_own) {
                continue;
            }
            // A startup probe is done once it has succeeded.
            if kind == "startupProbe" {
                continue;
            }
            let path = probe.handler.node.at(&["httpGet", "path"]);
            findings
                .add(
                    &facts.source,
                    &probe.handler.node.span,
                    format!("the {kind} of container {} asks the sidecar's /readyz, which fails while the pod drains", container.name()),
                )
                .fix(path.filter(|_| is_own && facts.can_be_edited()).map(|path| edit::replace(path, "/livez")));
        }
    }
}

fn short_probe_grace(facts: &PodFacts<'_>, findings: &mut Findings) {
    for container in facts
        .running()
        .filter(|container| container.role == Role::Ordinary)
    {
        let Some(hook) = container.pre_stop() else {
            continue;
        };
        let needed = match (hook_kind(&hook), &facts.sidecar) {
            (HookKind::Sleep(seconds), _) => seconds as f64 + 2.0,
            (HookKind::App, Some(sidecar)) => sidecar.flags.min_wait() + sidecar.flags.reserve(),
            _ => continue,
        };
        for kind in ["livenessProbe", "startupProbe"] {
            let probe = container.probe(kind);
            let Some(node) =
                probe.and_then(|probe| probe.handler.node.get("terminationGracePeriodSeconds"))
            else {
                continue;
            };
            let Some(grace) = node.number().filter(|&grace| (grace as f64) < needed) else {
                continue;
            };
            let pod = facts.pod.grace();
            findings
                .add(
                    &facts.source,
                    &node.span,
                    format!("when the {kind} fails, container {} has {grace}s, and its hook alone needs {needed}s", container.name()),
                )
                .remedy(format!("{kind}:\n  terminationGracePeriodSeconds: {pod}\n"))
                .fix(facts.can_be_edited().then(|| edit::replace(node, pod.to_string())));
        }
    }
}

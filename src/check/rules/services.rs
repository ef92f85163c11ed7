//! Services and load balancers that go on sending, and nodes that do not wait.

use crate::check::manifests::{Manifests, PodFacts, Service};
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::{HookKind, hook_kind};
use crate::config::duration;
use crate::podspec::Node;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK032",
        severity: Severity::Warning,
        summary: "publishNotReadyAddresses sends requests to pods that are not ready",
        why: "With it the endpoints of pods count as ready whatever their probes say, so a pod that fails readiness to be left alone \
              still gets requests. It is meant for headless Services by which peers find each other. \
              (staging/src/k8s.io/endpointslice/utils.go, podToEndpoint)",
        remedy: "spec:\n  publishNotReadyAddresses: false\n",
        find: Find::All(not_ready_addresses),
    },
    Rule {
        id: "GK033",
        severity: Severity::Warning,
        summary: "externalTrafficPolicy Local, and readiness that fails at once",
        why: "A load balancer goes on sending to a node until its health check fails, some seconds. Meanwhile kube-proxy sends to the node's pods that \
              end but are still ready (serving); a pod that has failed readiness is not among them, and with Local there is no other: \
              the requests are dropped. (pkg/proxy/topology.go, CategorizeEndpoints)",
        remedy: "args: [run, --readiness=after=15s] # as long as the load balancer's health check needs; or never\n",
        find: Find::All(local_policy_and_early_readiness),
    },
    Rule {
        id: "GK034",
        severity: Severity::Warning,
        summary: "A load balancer that sends to pods directly needs a longer wait than they have",
        why: "AWS network load balancers with ip targets and Google's network endpoint groups are told by API calls that a pod is going. New \
              connections still come until they have followed: about 2 minutes with AWS's NLB (measured by users in \
              kubernetes-sigs/aws-load-balancer-controller, issues 2366 and 3270), and Google's own example waits 40 seconds (its \
              knowledge base, \"502 503 errors on external HTTP(s) load balancer\"). The sidecar waits on while connections still arrive; on a quiet \
              pod min-wait is all there is.",
        remedy: "args: [run, --min-wait=40s, --grace-period=120s] # or for an NLB: --min-wait=120s; with terminationGracePeriodSeconds to match\n",
        find: Find::All(slow_load_balancer),
    },
    Rule {
        id: "GK038",
        severity: Severity::Warning,
        summary: "The grace period is longer than the cluster's autoscaler waits",
        why: "The cluster autoscaler gives pods at most --max-graceful-termination-sec (600 unless set) when it removes a node, and Karpenter \
              ends a node after its NodePool's terminationGracePeriod: what still runs then is killed.",
        remedy: "spec:\n  terminationGracePeriodSeconds: 600 # or raise --max-graceful-termination-sec, or Karpenter's terminationGracePeriod\n",
        find: Find::All(longer_than_node),
    },
];

/// What the cluster autoscaler waits at most, in seconds, unless it is told otherwise.
const AUTOSCALER_WAITS: i64 = 600;

fn not_ready_addresses(manifests: &Manifests<'_>, findings: &mut Findings) {
    for service in &manifests.services {
        let node = service.spec.get("publishNotReadyAddresses");
        if let Some(node) = node.filter(|node| node.is_true() && !service.is_headless()) {
            let finding = findings.add(
                &service.source,
                &node.span,
                "pods get requests from this Service although they are not ready, also while they drain",
            );
            // Some programs are to be reached before they are ready.
            if !manifests
                .selected_by(service)
                .any(|facts| facts.sidecar.is_some())
            {
                finding.severity(Severity::Hint);
            }
        }
    }
}

fn local_policy_and_early_readiness(manifests: &Manifests<'_>, findings: &mut Findings) {
    for service in &manifests.services {
        let policy = service.spec.get("externalTrafficPolicy");
        let Some(node) = policy.filter(|node| node.text() == Some("Local")) else {
            continue;
        };
        let early = manifests.selected_by(service).find(|facts| {
            facts
                .sidecar
                .as_ref()
                .is_some_and(|sidecar| sidecar.flags.value("readiness").unwrap_or("now") == "now")
        });
        if let Some(facts) = early {
            findings.add(
                &service.source,
                &node.span,
                format!("{} fails readiness as soon as it drains: the last pod of a node is left while the load balancer still sends there", facts.source.object.title()),
            );
        }
    }
}

fn slow_load_balancer(manifests: &Manifests<'_>, findings: &mut Findings) {
    for service in &manifests.services {
        let Some((name, needed, node)) = direct_load_balancer(service) else {
            continue;
        };
        for facts in manifests.selected_by(service) {
            let Some(waited) = wait_of(facts).filter(|&waited| waited < needed) else {
                continue;
            };
            findings.add(
                &service.source,
                &node.span,
                format!("{name} may send new connections for {needed:.0}s after a pod began to end, and {} waits {waited:.0}s", facts.source.object.title()),
            );
        }
    }
}

/// The load balancer that sends to pods directly, by the Service's annotations, and how many seconds it needs.
fn direct_load_balancer<'a>(service: &Service<'a>) -> Option<(&'static str, f64, &'a Node)> {
    let object = &service.source.object;
    let aws = "service.beta.kubernetes.io/aws-load-balancer";
    let nlb = [("nlb-target-type", "ip"), ("type", "nlb-ip")];
    for (key, value) in nlb {
        let node = object.annotation(&format!("{aws}-{key}"));
        if let Some(node) = node.filter(|node| node.text() == Some(value)) {
            return Some(("an AWS NLB with ip targets", 120.0, node));
        }
    }
    let neg = object.annotation("cloud.google.com/neg")?;
    let text: String = neg.text()?.chars().filter(|c| !c.is_whitespace()).collect();
    (text.contains("\"ingress\":true") || text.contains("exposed_ports")).then_some((
        "a Google load balancer with network endpoint groups",
        40.0,
        neg,
    ))
}

/// How long the pods wait before they are stopped, in seconds. None where that is not known.
fn wait_of(facts: &PodFacts<'_>) -> Option<f64> {
    if facts.injected {
        return None;
    }
    if let Some(sidecar) = &facts.sidecar {
        return Some(sidecar.flags.min_wait());
    }
    let mut waited = 0.0_f64;
    for hook in facts.running().filter_map(|container| container.pre_stop()) {
        match hook_kind(&hook) {
            HookKind::Sleep(seconds) => waited = waited.max(seconds as f64),
            _ => return None,
        }
    }
    Some(waited)
}

fn longer_than_node(manifests: &Manifests<'_>, findings: &mut Findings) {
    let karpenter = (manifests.of_kind("NodePool"))
        .filter_map(|pool| {
            let text = pool
                .object
                .node
                .at(&["spec", "template", "spec", "terminationGracePeriod"])?
                .text()?;
            let seconds = duration(text).ok()?.as_secs() as i64;
            Some((seconds, pool.object.name().unwrap_or_default()))
        })
        .min();
    let autoscaler = autoscaler_waits(manifests);
    for facts in &manifests.pods {
        let grace = facts.pod.grace();
        let node = facts.pod.grace_node();
        let (limit, whose) = match karpenter {
            Some((seconds, pool)) if seconds < grace => {
                (seconds, format!("Karpenter's NodePool {pool} waits"))
            }
            _ => (autoscaler, "the cluster autoscaler waits".to_owned()),
        };
        // Without a NodePool or an autoscaler among the manifests it is the default that is compared.
        if let Some(node) = node.filter(|_| grace > limit) {
            let finding = findings.add(
                &facts.source,
                &node.span,
                format!("the grace period is {grace}s, and when a node is removed {whose} {limit}s at most"),
            );
            if karpenter.is_none_or(|(seconds, _)| seconds >= grace) {
                finding.severity(Severity::Hint);
            }
        }
    }
}

/// What a cluster autoscaler among the manifests is told to wait, else its default.
fn autoscaler_waits(manifests: &Manifests<'_>) -> i64 {
    manifests
        .pods
        .iter()
        .flat_map(|facts| facts.apps())
        .flat_map(|app| app.command().into_iter().chain(app.args()))
        .find_map(|word| {
            word.trim_start_matches('-')
                .strip_prefix("max-graceful-termination-sec=")?
                .parse()
                .ok()
        })
        .unwrap_or(AUTOSCALER_WAITS)
}

//! Rollouts and node drains that take all pods at once, or none ever.

use crate::check::manifests::{Manifests, PodFacts, Source, first_pair};
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::podspec::Node;
use crate::podspec::object::selects;

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK028",
        severity: Severity::Warning,
        summary: "maxUnavailable lets a rollout take all replicas at once",
        why: "The Deployment may stop every old pod before a new one is ready; however well each pod drains, for a while no pod serves. \
              (pkg/controller/deployment/util/deployment_util.go, ResolveFenceposts)",
        remedy: "strategy:\n  rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }\n",
        find: Find::Pod(all_unavailable),
    },
    Rule {
        id: "GK029",
        severity: Severity::Warning,
        summary: "With the strategy Recreate no pod serves during a rollout",
        why: "Recreate waits until every old pod has ended before it makes a new one. Each rollout is an outage of a whole shutdown and a whole \
              start. (pkg/controller/deployment/recreate.go)",
        remedy: "strategy:\n  type: RollingUpdate\n  rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }\n",
        find: Find::Pod(recreate),
    },
    Rule {
        id: "GK030",
        severity: Severity::Hint,
        summary: "More than one replica, and no PodDisruptionBudget",
        why: "A node drain evicts all pods of a node that no budget protects, at the same moment. Where the replicas are on one node, or on nodes \
              that are drained together, none is left.",
        remedy: "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: { name: app }\nspec:\n  maxUnavailable: 1\n  selector: { matchLabels: { app: app } }\n",
        find: Find::All(no_budget),
    },
    Rule {
        id: "GK031",
        severity: Severity::Warning,
        summary: "A PodDisruptionBudget that never lets a node drain",
        why: "An eviction that the budget does not allow is refused, again and again: `kubectl drain` hangs, upgrades stop, and in the end \
              the node is taken away with the pods on it, without their grace period. (pkg/registry/core/pod/storage/eviction.go)",
        remedy: "spec:\n  maxUnavailable: 1\n",
        find: Find::All(budget_that_never_allows),
    },
];

fn all_unavailable(facts: &PodFacts<'_>, findings: &mut Findings) {
    let spec = facts.source.object.spec();
    if facts.services.is_empty() {
        return;
    }
    let (strategy, replicas) = match (facts.source.object.kind, facts.replicas) {
        ("Deployment", Some(replicas)) => ("strategy", replicas),
        // Of a DaemonSet only the share is known.
        ("DaemonSet", _) => ("updateStrategy", i64::MAX),
        _ => return,
    };
    let node = spec.and_then(|spec| spec.at(&[strategy, "rollingUpdate", "maxUnavailable"]));
    let Some(node) = node else {
        return;
    };
    let takes = match node.text().and_then(|text| text.strip_suffix('%')) {
        // Percents are rounded down.
        Some(percent) => percent
            .parse::<i64>()
            .ok()
            .map(|percent| percent.clamp(0, 100))
            .map(|percent| match replicas {
                i64::MAX => {
                    if percent == 100 {
                        i64::MAX
                    } else {
                        0
                    }
                }
                replicas => replicas.saturating_mul(percent) / 100,
            }),
        None => node.number(),
    };
    if replicas > 0 && takes.is_some_and(|takes| takes >= replicas) {
        let how_many = match replicas {
            i64::MAX => "all pods".to_owned(),
            1 => "the only replica".to_owned(),
            replicas => format!("all {replicas} replicas"),
        };
        findings.add(
            &facts.source,
            &node.span,
            format!("a rollout may stop {how_many} before a new one is ready"),
        );
    }
}

fn recreate(facts: &PodFacts<'_>, findings: &mut Findings) {
    let object = facts.source.object;
    let strategy = object
        .spec()
        .and_then(|spec| spec.at(&["strategy", "type"]));
    let Some(node) =
        strategy.filter(|node| node.text() == Some("Recreate") && object.kind == "Deployment")
    else {
        return;
    };
    if facts.services.is_empty() || facts.replicas == Some(0) {
        return;
    }
    let volumes = facts
        .pod
        .spec
        .get("volumes")
        .into_iter()
        .flat_map(Node::items);
    let has_claim = volumes
        .into_iter()
        .any(|volume| volume.get("persistentVolumeClaim").is_some());
    let finding = findings.add(
        &facts.source,
        &node.span,
        "every rollout is an outage: all pods end before a new one starts",
    );
    if has_claim {
        finding.message += "; with a volume that one pod at a time may mount there is no other way in a Deployment";
        finding.severity(Severity::Hint);
    }
}

fn no_budget(manifests: &Manifests<'_>, findings: &mut Findings) {
    for facts in &manifests.pods {
        let replicas = facts.replicas.unwrap_or(0);
        if replicas < 2 || facts.services.is_empty() {
            continue;
        }
        let has_budget = manifests
            .budgets_for(facts.pod.labels())
            .any(|budget| protects(budget, facts));
        if !has_budget {
            let at = facts
                .source
                .object
                .spec()
                .and_then(|spec| spec.get("replicas"));
            let at = at.unwrap_or(facts.source.object.head());
            findings.add(
                &facts.source,
                &at.span,
                format!("{replicas} replicas and no PodDisruptionBudget: a node drain may evict them all at once"),
            )
            .remedy(budget_yaml(facts));
        }
    }
}

/// A budget for these pods, by the labels of their workload.
fn budget_yaml(facts: &PodFacts<'_>) -> String {
    let object = facts.source.object;
    let name = object.name().unwrap_or("app");
    let namespace = (object.namespace())
        .map(|namespace| format!(", namespace: {namespace}"))
        .unwrap_or_default();
    let of_workload = object
        .spec()
        .and_then(|spec| spec.at(&["selector", "matchLabels"]));
    let of_service = || facts.main_service()?.spec.get("selector");
    let labels = of_workload
        .or_else(of_service)
        .map_or_else(|| "{ app: app }".to_owned(), |labels| labels.to_json());
    format!(
        "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {{ name: {name}{namespace} }}\nspec:\n  maxUnavailable: 1\n  \
         selector: {{ matchLabels: {labels} }}\n"
    )
}

/// Whether a budget selects these pods. Expressions are taken to match.
fn protects(budget: &Source<'_>, facts: &PodFacts<'_>) -> bool {
    let selector = budget.object.node.at(&["spec", "selector"]);
    let labels = selector.and_then(|selector| selector.get("matchLabels"));
    budget.object.may_share_namespace(&facts.source.object)
        && match labels {
            Some(labels) => {
                selects(Some(labels), facts.pod.labels()) || labels.entries().next().is_none()
            }
            None => selector.is_some(),
        }
}

fn budget_that_never_allows(manifests: &Manifests<'_>, findings: &mut Findings) {
    for budget in manifests.of_kind("PodDisruptionBudget") {
        let Some(spec) = budget.object.spec() else {
            continue;
        };
        let none = |node: &&Node| matches!(node.text(), Some("0" | "0%"));
        if let Some(node) = spec.get("maxUnavailable").filter(none) {
            findings.add(budget, &node.span, "this budget allows no eviction at all, so a node with such a pod cannot be drained");
            continue;
        }
        let Some(node) = spec.get("minAvailable") else {
            continue;
        };
        let labels = spec
            .get("selector")
            .and_then(|selector| selector.get("matchLabels"));
        let candidates: Vec<&PodFacts<'_>> = match labels.and_then(first_pair) {
            Some(label) => manifests.labelled(Some(label)).collect(),
            None => manifests.pods.iter().collect(),
        };
        let replicas = (candidates.into_iter())
            .filter(|facts| protects(budget, facts))
            .filter_map(|facts| facts.replicas)
            .collect::<Vec<_>>();
        let total: i64 = replicas
            .iter()
            .fold(0, |sum, replicas| sum.saturating_add(*replicas));
        let is_all = node.text() == Some("100%");
        let reaches = node
            .number()
            .is_some_and(|least| !replicas.is_empty() && total > 0 && least >= total);
        if is_all || reaches {
            let of = match total {
                0 => "all".to_owned(),
                total => format!("of {total}"),
            };
            findings.add(
                budget,
                &node.span,
                format!("{} {of} pods must be available, so none may be evicted and the node cannot be drained", node.text().unwrap_or_default()),
            );
        }
    }
}

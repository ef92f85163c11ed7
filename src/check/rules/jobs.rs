//! Jobs that never end.

use crate::check::manifests::PodFacts;
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::image_name;
use crate::podspec::Role;

/// The rules of this file.
pub const RULES: &[Rule] = &[Rule {
    id: "GK037",
    severity: Severity::Error,
    summary: "A Job with an ordinary sidecar never ends",
    why: "A Job's pod is complete when all its ordinary containers have ended, and a sidecar does not end by itself. Native sidecars do not count. \
          (pkg/kubelet/kubelet_pods.go, getPhase)",
    remedy: "initContainers:\n  - name: gracekeeper\n    restartPolicy: Always # a native sidecar; or --exit-with-app for an ordinary one\n",
    find: Find::Pod(job_that_never_ends),
}];

/// Names of sidecars that go on for ever.
const SIDECARS: [&str; 7] = [
    "istio-proxy",
    "linkerd-proxy",
    "cloud-sql-proxy",
    "cloudsql-proxy",
    "cloud_sql_proxy",
    "gce-proxy",
    "vault-agent",
];

fn job_that_never_ends(facts: &PodFacts<'_>, findings: &mut Findings) {
    if !matches!(facts.source.object.kind, "Job" | "CronJob") {
        return;
    }
    if let Some(sidecar) = &facts.sidecar {
        let ends = sidecar
            .flags
            .value("exit-with-app")
            .is_some_and(|value| value != "false")
            || sidecar
                .flags
                .words()
                .iter()
                .any(|(word, _)| word == "--exit-with-app");
        if sidecar.container.role == Role::Ordinary && !ends {
            findings.add(
                &facts.source,
                &sidecar.container.head().span,
                "the sidecar is an ordinary container of a Job and goes on when the Job's work is done",
            );
        }
    }
    let ordinary: Vec<_> = facts.apps().collect();
    for container in &ordinary {
        let is_sidecar = SIDECARS.contains(&container.name())
            || SIDECARS.contains(&image_name(container.image()));
        // The others may tell it to end.
        let is_told = ordinary.iter().any(|other| {
            let mut words = other.command().into_iter().chain(other.args());
            words.any(|word| {
                word.contains("quitquitquit")
                    || word.contains("pkill")
                    || word.contains("/shutdown")
            })
        });
        let ends = container
            .args()
            .iter()
            .any(|word| word.contains("exit-after-auth") || word.contains("quitquitquit"));
        if is_sidecar && ordinary.len() > 1 && !is_told && !ends {
            findings
                .add(
                    &facts.source,
                    &container.head().span,
                    format!("container {} is an ordinary sidecar of a Job and goes on when the Job's work is done", container.name()),
                )
                .severity(Severity::Warning);
        }
    }
}

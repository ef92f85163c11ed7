//! Service meshes: proxies that end before the app, or stand between the kubelet and the hook.

use crate::check::manifests::{Mesh, PodFacts};
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::{HookKind, hook_kind};
use crate::podspec::{Node, Role};

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK035",
        severity: Severity::Warning,
        summary: "The mesh's proxy is an ordinary sidecar and ends before the app",
        why: "Ordinary containers get SIGTERM in no order. Istio's proxy stops 5 seconds after its own (terminationDrainDuration), Linkerd's when \
              its connections are idle; the app that still answers requests behind a hook then has no network. Native sidecars end after \
              the app: the default of Istio since 1.27 and of Linkerd since 2.20. \
              (pkg/kubelet/kuberuntime/kuberuntime_termination_order.go)",
        remedy: "metadata:\n  annotations:\n    sidecar.istio.io/nativeSidecar: \"true\"\n    # Linkerd: config.linkerd.io/proxy-enable-native-sidecar: \"true\" (before 2.20 config.beta.linkerd.io/...)\n",
        find: Find::Pod(proxy_ends_first),
    },
    Rule {
        id: "GK036",
        severity: Severity::Warning,
        summary: "The mesh's proxy stands between the kubelet and the hook",
        why: "The mesh redirects what comes to the pod's ports to its proxy, the kubelet's hooks too. The call is plain HTTP, which strict mutual TLS \
              refuses; newer versions of Istio send it through their agent instead, which is gone when the proxy is. Either way the hook fails, \
              and the app is stopped at once. Let the sidecar's port past the proxy.",
        remedy: "metadata:\n  annotations:\n    traffic.sidecar.istio.io/excludeInboundPorts: \"9903\"\n    # Linkerd: config.linkerd.io/skip-inbound-ports: \"9903\"\n",
        find: Find::Pod(proxy_before_the_hook),
    },
];

fn proxy_ends_first(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(mesh) = facts.mesh else {
        return;
    };
    let drains = facts.apps().any(|app| app.pre_stop().is_some());
    if !drains || waits_for_the_app(facts, mesh) {
        return;
    }
    let finding = findings.add(
        &facts.source,
        &mesh.at.span,
        match mesh.proxy {
            Some(_) => format!("{}'s proxy is an ordinary container: it may be gone while the app's hook still waits for requests", mesh.name),
            None => format!("{}'s proxy may be injected as an ordinary container, and be gone while the app's hook still waits for requests", mesh.name),
        },
    );
    // What will be injected depends on the mesh's version.
    if mesh.proxy.is_none() {
        finding.severity(Severity::Hint);
    }
}

/// Whether the proxy outlasts the app.
fn waits_for_the_app(facts: &PodFacts<'_>, mesh: Mesh<'_>) -> bool {
    let keys = [
        "sidecar.istio.io/nativeSidecar",
        "config.linkerd.io/proxy-enable-native-sidecar",
        "config.beta.linkerd.io/proxy-enable-native-sidecar",
        "config.alpha.linkerd.io/proxy-enable-native-sidecar",
    ];
    let native = keys
        .iter()
        .any(|key| facts.pod.annotation(key).and_then(Node::text) == Some("true"));
    let waits = facts
        .pod
        .annotation("config.alpha.linkerd.io/proxy-wait-before-exit-seconds")
        .is_some()
        || facts
            .pod
            .annotation("proxy.istio.io/config")
            .and_then(Node::text)
            .is_some_and(|config| {
                config.contains("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")
                    || config.contains("terminationDrainDuration")
            });
    let by_container = mesh.proxy.is_some_and(|proxy| {
        proxy.role == Role::NativeSidecar
            || proxy.pre_stop().is_some()
            || proxy
                .env("EXIT_ON_ZERO_ACTIVE_CONNECTIONS")
                .and_then(|entry| entry.text_at("value"))
                == Some("true")
    });
    native || waits || by_container
}

fn proxy_before_the_hook(facts: &PodFacts<'_>, findings: &mut Findings) {
    let (Some(mesh), Some(sidecar)) = (facts.mesh, &facts.sidecar) else {
        return;
    };
    let by_http = facts
        .running()
        .filter_map(|container| container.pre_stop())
        .any(|hook| matches!(hook_kind(&hook), HookKind::App | HookKind::Own));
    let port = sidecar.port();
    let key = match mesh.name {
        "Istio" => "traffic.sidecar.istio.io/excludeInboundPorts",
        _ => "config.linkerd.io/skip-inbound-ports",
    };
    let excluded = facts
        .pod
        .annotation(key)
        .and_then(Node::text)
        .is_some_and(|ports| names_port(ports, port));
    if by_http && !excluded && !facts.pod.host_network() {
        findings
            .add(
                &facts.source,
                &mesh.at.span,
                format!("{}'s proxy takes the kubelet's calls to port {port}: with strict mutual TLS the hook is refused", mesh.name),
            )
            .remedy(format!("metadata:\n  annotations:\n    {key}: \"{port}\"\n"));
    }
}

/// Whether a list of ports and ranges, such as `25,8000-8010`, has a port.
fn names_port(list: &str, port: i64) -> bool {
    list.split(',')
        .map(str::trim)
        .any(|part| match part.split_once('-') {
            Some((from, to)) => {
                let within =
                    || Some((from.parse::<i64>().ok()?..=to.parse().ok()?).contains(&port));
                within().unwrap_or(false)
            }
            None => part == "*" || part.parse() == Ok(port),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read() {
        assert!(names_port("25, 9903", 9903));
        assert!(names_port("9000-10000", 9903));
        assert!(!names_port("990,99-9902", 9903));
    }
}

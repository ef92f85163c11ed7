//! preStop hooks that cannot work as written.

use std::sync::LazyLock;

use regex::Regex;

use crate::check::manifests::PodFacts;
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::{HookKind, hook_kind, image_name, is_client, nodes};
use crate::podspec::edit;
use crate::podspec::{Action, Container, Handler, Port, Role};

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK008",
        severity: Severity::Error,
        summary: "A hook names a port that its own container does not have",
        why: "The kubelet looks up a port's name among the ports of the container that has the hook. A name of another container is \
              not found, the hook fails, and the app is stopped at once. (pkg/kubelet/lifecycle/handlers.go, runHTTPHandler and \
              resolvePort)",
        remedy: "lifecycle:\n  preStop:\n    httpGet: { path: /prestop/app, port: 9903 } # a number\n",
        find: Find::Pod(port_name_of_another),
    },
    Rule {
        id: "GK009",
        severity: Severity::Warning,
        summary: "A hook calls a port that no container of the pod opens",
        why: "The kubelet calls the pod's own address. Where nothing listens the hook fails with an Event FailedPreStopHook, and the \
              app is stopped at once. (pkg/kubelet/lifecycle/handlers.go, runHTTPHandler)",
        remedy: "lifecycle:\n  preStop:\n    httpGet: { path: /prestop/app, port: 9903 } # the port of the container that answers\n",
        find: Find::Pod(port_of_no_container),
    },
    Rule {
        id: "GK010",
        severity: Severity::Error,
        summary: "A pod with hostNetwork has an httpGet hook without a host",
        why: "Without `host` the kubelet asks the container runtime for the pod's address, and a pod of the node's network has none \
              there: the hook fails with \"failed to find networking container\", and the app is stopped at once. \
              (pkg/kubelet/lifecycle/handlers.go, runHTTPHandler)",
        remedy: "lifecycle:\n  preStop:\n    httpGet: { host: 127.0.0.1, path: /prestop/app, port: 9903 }\n",
        find: Find::Pod(host_network_without_host),
    },
    Rule {
        id: "GK011",
        severity: Severity::Error,
        summary: "An exec hook needs a program that the image does not have",
        why: "An exec hook runs inside its container. Distroless and scratch images have no shell and no sleep: the hook fails, and the \
              app is stopped at once. (pkg/kubelet/lifecycle/handlers.go, Run)",
        remedy: "lifecycle:\n  preStop:\n    sleep: { seconds: 10 } # done by the kubelet, Kubernetes 1.30 and later; or an httpGet hook\n",
        find: Find::Pod(no_shell_in_image),
    },
    Rule {
        id: "GK012",
        severity: Severity::Error,
        summary: "A hook calls a gracekeeper sidecar that is not in the pod",
        why: "Nothing answers the hook: it fails, and the app is stopped at once, with the requests it has.",
        remedy: "metadata:\n  labels: { gracekeeper.dev/inject: \"true\" } # or add the sidecar to initContainers\n",
        find: Find::Pod(no_sidecar_for_hook),
    },
    Rule {
        id: "GK013",
        severity: Severity::Error,
        summary: "A sleep takes the place of the hook that waits for the requests, or stands beside it",
        why: "A preStop hook does one thing: with two the API server refuses the pod (pkg/apis/core/validation, \
              validateHandler). And where the sidecar is there but the app's hook only sleeps, SIGTERM comes when the sleep ends, \
              whatever the sidecar still waits for.",
        remedy: "lifecycle:\n  preStop:\n    httpGet: { path: /prestop/app, port: 9903 } # instead of the sleep; --min-wait is its least length\n",
        find: Find::Pod(sleep_beside_hook),
    },
    Rule {
        id: "GK014",
        severity: Severity::Error,
        summary: "The hook runs a gracekeeper binary that is not mounted into the container",
        why: "An exec hook runs inside its container, so its binary has to be there: from a volume that `gracekeeper install` filled, or \
              from an image volume. (pkg/kubelet/lifecycle/handlers.go, Run)",
        remedy: "volumeMounts:\n  - { name: hook, mountPath: /hook, readOnly: true } # the volume that has the binary\n",
        find: Find::Pod(hook_binary_not_mounted),
    },
    Rule {
        id: "GK015",
        severity: Severity::Warning,
        summary: "A shell as the first process keeps SIGTERM from the app",
        why: "SIGTERM goes to the first process of a container. A shell that waits for a command ignores it and passes nothing on: the app \
              never hears of the stop and is killed when the grace period is over. bash and busybox replace themselves with a last plain \
              command; Debian's and Ubuntu's sh (dash) does not. Seen on \
              Kubernetes 1.36: with exec the pod was gone after 2 seconds, without it after the whole grace period.",
        remedy: "command: [sh, -c, \"exec my-server --port 8000\"]\n",
        find: Find::Pod(shell_as_first_process),
    },
];

/// Hooks of containers that go on running.
fn hooks<'a, 'b>(
    facts: &'b PodFacts<'a>,
) -> impl Iterator<Item = (&'b Container<'a>, Handler<'a>)> {
    facts
        .running()
        .filter_map(|container| Some((container, container.pre_stop()?)))
}

/// Those of them that call a port over HTTP.
fn http_hooks<'a, 'b>(
    facts: &'b PodFacts<'a>,
) -> impl Iterator<Item = (&'b Container<'a>, Handler<'a>, Port<'a>)> {
    hooks(facts).filter_map(|(container, hook)| match hook.action() {
        Action::HttpGet {
            port: Some(port), ..
        } => Some((container, hook, port)),
        _ => None,
    })
}

fn port_name_of_another(facts: &PodFacts<'_>, findings: &mut Findings) {
    for (container, _, port) in http_hooks(facts) {
        let Some(name) = port
            .name()
            .filter(|name| container.port_named(name).is_none())
        else {
            continue;
        };
        let other = (facts.containers.iter())
            .find_map(|other| Some((other.name(), other.port_named(name)?)));
        let whose = match other {
            Some((other, number)) => format!("; it is port {number} of container {other}"),
            None => "; no container has a port of that name".to_owned(),
        };
        let finding = findings.add(
            &facts.source,
            &port.node.span,
            format!("the hook of container {} names the port {name:?}, which is not among its own ports{whose}", container.name()),
        );
        if let Some((_, number)) = other {
            finding.remedy(format!("port: {number}\n")).fix(
                facts
                    .can_be_edited()
                    .then(|| edit::replace(port.node, number.to_string())),
            );
        }
    }
}

fn port_of_no_container(facts: &PodFacts<'_>, findings: &mut Findings) {
    // Containers need not say what they open: only where all of them do is a port that is missing suspicious.
    let all_say = facts
        .running()
        .all(|container| container.ports().next().is_some());
    for (container, hook, port) in http_hooks(facts) {
        let Some(number) = port.number() else {
            continue;
        };
        let is_ours = matches!(hook_kind(&hook), HookKind::App | HookKind::Own);
        let listens = facts.sidecar.as_ref().map(|sidecar| sidecar.port());
        let is_open = facts
            .running()
            .any(|other| other.ports().any(|(open, _)| open == number));
        if is_open || listens == Some(number) {
            continue;
        }
        match listens.filter(|_| is_ours) {
            Some(listens) => findings
                .add(
                    &facts.source,
                    &port.node.span,
                    format!("the hook of container {} calls port {number}, but the sidecar listens on {listens}", container.name()),
                )
                .remedy(format!("port: {listens}\n"))
                .fix(facts.can_be_edited().then(|| edit::replace(port.node, listens.to_string()))),
            None if all_say && !is_ours => findings.add(
                &facts.source,
                &port.node.span,
                format!("the hook of container {} calls port {number}, which no container of the pod names among its ports", container.name()),
            ),
            None => continue,
        };
    }
}

fn host_network_without_host(facts: &PodFacts<'_>, findings: &mut Findings) {
    if !facts.pod.host_network() {
        return;
    }
    for (container, hook) in hooks(facts) {
        let Action::HttpGet {
            node, host: None, ..
        } = hook.action()
        else {
            continue;
        };
        let is_ours = matches!(hook_kind(&hook), HookKind::App | HookKind::Own);
        let edit = || edit::set_entry(facts.source.text, node, "host", "127.0.0.1", None);
        findings
            .add(
                &facts.source,
                &node.span,
                format!("the pod uses the node's network, and the httpGet hook of container {} has no host: the kubelet finds no address to call", container.name()),
            )
            .remedy("httpGet:\n  host: 127.0.0.1\n")
            .fix((is_ours && facts.can_be_edited()).then(edit).flatten());
    }
}

fn no_shell_in_image(facts: &PodFacts<'_>, findings: &mut Findings) {
    for (container, hook) in hooks(facts) {
        let Action::Exec(words) = hook.action() else {
            continue;
        };
        let program = words
            .first()
            .map_or("", |word| word.rsplit('/').next().unwrap_or(word));
        let needs = [
            "sh", "bash", "ash", "sleep", "curl", "wget", "kill", "pkill", "cat", "echo", "env",
        ];
        if !needs.contains(&program) || !has_no_shell(container.image()) {
            continue;
        }
        findings.add(
            &facts.source,
            &hook.node.span,
            format!(
                "the hook of container {} runs {program}, and the image {} has no such program",
                container.name(),
                container.image()
            ),
        );
    }
}

/// Images that are known to have no shell.
fn has_no_shell(image: &str) -> bool {
    let image = image.split('@').next().unwrap_or_default();
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, ""),
    };
    if ["debug", "-dev", "alpine", "debian", "busybox"]
        .iter()
        .any(|mark| tag.contains(mark))
    {
        return false;
    }
    let repositories = [
        "gcr.io/distroless/",
        "cgr.dev/chainguard/static",
        "registry.k8s.io/coredns/",
        "registry.k8s.io/pause",
        "registry.k8s.io/metrics-server/",
        "registry.k8s.io/kube-state-metrics/",
        "registry.k8s.io/kube-apiserver",
        "registry.k8s.io/kube-controller-manager",
        "registry.k8s.io/kube-scheduler",
        "registry.k8s.io/external-dns/",
        "quay.io/jetstack/cert-manager-",
    ];
    name == "scratch"
        || image_name(image).contains("distroless")
        || tag.contains("distroless")
        || repositories
            .iter()
            .any(|repository| name.starts_with(repository))
}

fn no_sidecar_for_hook(facts: &PodFacts<'_>, findings: &mut Findings) {
    if facts.sidecar.is_some() || facts.injected {
        return;
    }
    for (container, hook, port) in http_hooks(facts) {
        let kind = hook_kind(&hook);
        let is_ours = matches!(kind, HookKind::App | HookKind::Own);
        // An app may have such a path itself, on a port of its own.
        let number = port.number().or_else(|| container.port_named(port.name()?));
        let own = container.ports().any(|(open, _)| Some(open) == number);
        if is_ours && !own {
            findings.add(
                &facts.source,
                &hook.node.span,
                format!("the hook of container {} calls gracekeeper's sidecar, but no container of the pod is one", container.name()),
            );
        }
    }
}

fn sleep_beside_hook(facts: &PodFacts<'_>, findings: &mut Findings) {
    for (container, hook) in hooks(facts) {
        if hook.actions() > 1 {
            findings.add(
                &facts.source,
                &hook.node.span,
                format!(
                    "the preStop hook of container {} has {} actions, and the API server takes one",
                    container.name(),
                    hook.actions()
                ),
            );
        } else if let (HookKind::Sleep(seconds), Some(sidecar)) = (hook_kind(&hook), &facts.sidecar)
            && container.role == Role::Ordinary
        {
            findings
                .add(
                    &facts.source,
                    &hook.node.span,
                    format!("the app's hook sleeps {seconds}s and does not ask the gracekeeper sidecar: SIGTERM comes after the sleep, whatever is in flight"),
                )
                .remedy(super::sidecar::hook_yaml(facts, sidecar, "/prestop/app"));
        }
    }
}

fn hook_binary_not_mounted(facts: &PodFacts<'_>, findings: &mut Findings) {
    for (container, hook) in hooks(facts) {
        let Action::Exec(words) = hook.action() else {
            continue;
        };
        let Some(path) = words
            .first()
            .filter(|path| is_client(&words) && path.starts_with('/'))
        else {
            continue;
        };
        let is_mounted = nodes(container.node, "volumeMounts")
            .filter_map(|mount| mount.text_at("mountPath"))
            .any(|mount| {
                path.strip_prefix(mount.trim_end_matches('/'))
                    .is_some_and(|rest| rest.starts_with('/'))
            });
        if !is_mounted && !facts.injected && image_name(container.image()) != "gracekeeper" {
            findings.add(
                &facts.source,
                &hook.node.span,
                format!(
                    "the hook of container {} runs {path}, and no volume is mounted there",
                    container.name()
                ),
            );
        }
    }
}

/// What a hook runs that stops the app, where it does so without a wait before it.
pub fn stops_the_app(hook: &Handler<'_>) -> Option<String> {
    static STOP: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"nginx\b[^;&|]*\s-s\s+(quit|stop)|\bkill\s[^;&|]*\b1\b|\b(pkill|killall)\s|apachectl\b[^;&|]*stop|caddy\s+stop").ok()
    });
    let Action::Exec(words) = hook.action() else {
        return None;
    };
    let script = words.join(" ");
    let found = STOP.as_ref()?.find(&script)?;
    let before = &script[..found.start()];
    let waits = ["sleep", "while ", "until ", "wait", "curl", "wget"];
    let harmless = script.contains("kill -0") || waits.iter().any(|word| before.contains(word));
    (!harmless).then(|| format!("\"{}\"", found.as_str().trim()))
}

fn shell_as_first_process(facts: &PodFacts<'_>, findings: &mut Findings) {
    let shares = facts
        .pod
        .spec
        .get("shareProcessNamespace")
        .is_some_and(crate::podspec::Node::is_true);
    if shares || matches!(facts.source.object.kind, "Job" | "CronJob") {
        return;
    }
    for container in facts.apps() {
        let words: Vec<_> = nodes(container.node, "command")
            .chain(nodes(container.node, "args"))
            .collect();
        // Without a command the image's own entrypoint is first, and it is not known.
        let shell = words
            .first()
            .and_then(|word| word.text())
            .unwrap_or_default();
        if container.command().is_empty() || !is_shell(shell) {
            continue;
        }
        let flag = words.iter().position(|word| {
            word.text()
                .is_some_and(|text| text.starts_with('-') && text.ends_with('c'))
        });
        let Some(script) = flag.and_then(|at| words.get(at + 1)) else {
            continue;
        };
        let Some(stays) = shell_stays(shell, script.text().unwrap_or_default()) else {
            continue;
        };
        let name = container.name();
        let finding = match stays {
            Stays::Always => findings.add(
                &facts.source,
                &script.span,
                format!("the shell of container {name} stays the first process and passes no SIGTERM on: write exec before the last command"),
            ),
            Stays::InDash => findings
                .add(
                    &facts.source,
                    &script.span,
                    format!("if sh of container {name} is dash (Debian, Ubuntu), it stays the first process and passes no SIGTERM on: write exec before the last command"),
                )
                .severity(Severity::Hint),
        };
        // Without traffic nothing is lost but time.
        if facts.services.is_empty() {
            finding.severity(Severity::Hint);
        }
    }
}

/// Whether a shell stays while its last command runs.
#[derive(Debug, PartialEq, Eq)]
enum Stays {
    Always,
    InDash,
}

fn is_shell(word: &str) -> bool {
    ["sh", "bash", "ash", "dash"].contains(&word.rsplit('/').next().unwrap_or_default())
}

fn shell_stays(shell: &str, script: &str) -> Option<Stays> {
    static KNOWS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"(^|[\s;&|(])(exec|trap|tini|dumb-init|catatonit|s6-svscan|supervisord)\b").ok()
    });
    if KNOWS.as_ref()?.is_match(script) {
        return None;
    }
    let lines: Vec<&str> = (script.lines())
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let last = lines.last()?;
    let compound = ["done", "fi", "esac", "}", ")", "wait"];
    let ends_compound = compound.iter().any(|word| last.ends_with(word));
    // A script that only waits has nothing to lose.
    if script.contains("sleep inf") || script.contains("tail -f /dev/null") {
        return None;
    }
    match ends_compound || last.contains(" | ") || last.ends_with('&') {
        true => Some(Stays::Always),
        false if shell.ends_with("bash") => None,
        false => Some(Stays::InDash),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_that_gives_way_is_no_finding() {
        for script in [
            "exec app",
            "set -e\nmigrate\nexec app --x",
            "trap 'kill $!' TERM; app & wait",
            "tini -- app",
        ] {
            assert_eq!(shell_stays("sh", script), None, "{script}");
        }
        // As seen with bash, busybox and Debian's dash.
        assert_eq!(shell_stays("sh", "app | tee log"), Some(Stays::Always));
        assert_eq!(
            shell_stays("sh", "while true; do app; done"),
            Some(Stays::Always)
        );
        assert_eq!(shell_stays("sh", "app"), Some(Stays::InDash));
        assert_eq!(shell_stays("sh", "migrate && app"), Some(Stays::InDash));
        assert_eq!(shell_stays("/bin/bash", "migrate && app"), None);
    }

    #[test]
    fn images_without_a_shell_are_known_by_name() {
        for image in [
            "gcr.io/distroless/java17",
            "x/envoy:distroless-v1.30.1",
            "scratch",
            "x/app-distroless:1",
        ] {
            assert!(has_no_shell(image), "{image}");
        }
        for image in [
            "nginx:1.27",
            "gcr.io/distroless/java17:debug",
            "localhost:5000/app",
        ] {
            assert!(!has_no_shell(image), "{image}");
        }
    }
}

//! gracekeeper's own sidecar: its hooks, its probe, its token.

use crate::check::manifests::PodFacts;
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::{HookKind, Sidecar, Token, hook_kind};
use crate::podspec::edit::{self, Edit};
use crate::podspec::{Action, Container, Handler, Role};

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK016",
        severity: Severity::Error,
        summary: "The sidecar has no preStop hook of its own",
        why: "The app's hook comes on a restart of the app too. Only the sidecar's own hook, which comes within 50 ms of the app's when the \
              pod is deleted, says that the pod is going. Without it the drain of a pod that is deleted counts as a restart, and a \
              pod whose app is down is not drained at all. (pkg/kubelet/kuberuntime/kuberuntime_container.go, killContainersWithSyncResult)",
        remedy: "initContainers:\n  - name: gracekeeper\n    lifecycle:\n      preStop:\n        httpGet: { path: /prestop/self, port: 9903 }\n",
        find: Find::Pod(no_own_hook),
    },
    Rule {
        id: "GK017",
        severity: Severity::Error,
        summary: "The sidecar is there, and no container has a hook that asks it",
        why: "Only an open hook keeps SIGTERM from a container. Without one the app is stopped at once, and the sidecar can do no more than \
              watch. (pkg/kubelet/kuberuntime/kuberuntime_container.go, killContainer)",
        remedy: "containers:\n  - name: app\n    lifecycle:\n      preStop:\n        httpGet: { path: /prestop/app, port: 9903 }\n",
        find: Find::Pod(no_app_hook),
    },
    Rule {
        id: "GK018",
        severity: Severity::Hint,
        summary: "The sidecar is an ordinary container, where a native one would do",
        why: "Ordinary containers get SIGTERM in no order, so the sidecar may go before the app and has to outlast it. A native sidecar (an init \
              container with restartPolicy: Always, Kubernetes 1.29 and later) gets its SIGTERM when the others have ended, and holds up \
              no Job. (pkg/kubelet/kuberuntime/kuberuntime_termination_order.go)",
        remedy: "initContainers:\n  - name: gracekeeper\n    restartPolicy: Always\n",
        find: Find::Pod(ordinary_sidecar),
    },
    Rule {
        id: "GK019",
        severity: Severity::Warning,
        summary: "The sidecar has no readiness probe at /readyz",
        why: "Failing readiness takes the pod out of its Services when a drain begins that is no deletion: a restart of the app, a drain by \
              hand. Without the probe such a pod goes on getting requests.",
        remedy: "readinessProbe:\n  httpGet: { path: /readyz, port: 9903 }\n  periodSeconds: 2\n",
        find: Find::Pod(no_readiness_probe),
    },
    Rule {
        id: "GK020",
        severity: Severity::Error,
        summary: "A hook's token is missing, or not the sidecar's",
        why: "The sidecar answers 401 at once. The kubelet never looks at a hook's status code: for it the hook is done, and the app is stopped \
              with its requests. (pkg/kubelet/lifecycle/handlers.go, runHTTPHandler)",
        remedy: "httpGet:\n  path: /prestop/app\n  port: 9903\n  httpHeaders: [{ name: X-Gracekeeper-Token, value: the-sidecars-token }]\n",
        find: Find::Pod(other_token),
    },
    Rule {
        id: "GK021",
        severity: Severity::Hint,
        summary: "The sidecar has no token: any pod that reaches its port can start a drain",
        why: "Without a token /prestop/* is open to all who can connect. With one only the kubelet, which sends the header that is in the pod's \
              spec, can start a drain.",
        remedy: "env: [{ name: GRACEKEEPER_TOKEN, value: a-secret }] # and the same as X-Gracekeeper-Token in the hooks\n",
        find: Find::Pod(no_token),
    },
];

fn no_own_hook(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let hook = sidecar.container.pre_stop();
    if hook.is_some_and(|hook| hook_kind(&hook) == HookKind::Own) {
        return;
    }
    let hook_node = hook.map_or(sidecar.container.head(), |hook| hook.node);
    let other = match hook {
        None => "no preStop hook of its own",
        Some(_) => "a preStop hook that does not call /prestop/self",
    };
    let yaml = hook_yaml(facts, sidecar, "/prestop/self");
    let fix = hook
        .is_none()
        .then(|| add_hook(facts, &sidecar.container, &yaml));
    findings
        .add(
            &facts.source,
            &hook_node.span,
            format!("the sidecar has {other}: it cannot tell a deletion from a restart of the app"),
        )
        .remedy(format!("lifecycle:\n{}", indent(&yaml)))
        .fix(fix.flatten());
}

fn no_app_hook(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let asks = |container: &Container<'_>| {
        container.pre_stop().is_some_and(|hook| {
            matches!(
                hook_kind(&hook),
                HookKind::App | HookKind::Client | HookKind::Sleep(_)
            )
        })
    };
    let any_asks = facts.apps().any(asks);
    // The app's ports: those that the sidecar watches.
    let watched: Vec<i64> = sidecar
        .flags
        .all("app-port")
        .iter()
        .filter_map(|(port, _)| port.parse().ok())
        .collect();
    for app in facts.apps() {
        let serves = app.ports().any(|(port, _)| watched.contains(&port));
        let is_alone = !any_asks && facts.apps().count() == 1;
        if asks(app) || app.pre_stop().is_some() || !(serves || is_alone || !any_asks) {
            continue;
        }
        let yaml = hook_yaml(facts, sidecar, "/prestop/app");
        let fix = (serves || is_alone).then(|| add_hook(facts, app, &yaml));
        findings
            .add(
                &facts.source,
                &app.head().span,
                format!("container {} has no hook that asks the sidecar: it gets SIGTERM at once, whatever is in flight", app.name()),
            )
            .remedy(format!("lifecycle:\n{}", indent(&yaml)))
            .fix(fix.flatten());
    }
}

fn ordinary_sidecar(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let is_job = matches!(facts.source.object.kind, "Job" | "CronJob");
    if sidecar.container.role == Role::Ordinary && !is_job {
        findings.add(
            &facts.source,
            &sidecar.container.head().span,
            "the sidecar is one of containers and may get SIGTERM before the app; as an init container with restartPolicy: Always it comes last",
        );
    }
}

fn no_readiness_probe(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    if sidecar.container.probe("readinessProbe").is_some()
        || sidecar.flags.value("readiness") == Some("never")
        || matches!(facts.source.object.kind, "Job" | "CronJob")
    {
        return;
    }
    let host = match facts.pod.host_network() {
        true => "\n  host: 127.0.0.1",
        false => "",
    };
    let probe = format!(
        "httpGet:\n  path: /readyz\n  port: {}{host}\nperiodSeconds: 2\n",
        sidecar.port()
    );
    let fix = facts.can_be_edited().then(|| {
        edit::set_entry(
            facts.source.text,
            sidecar.container.node,
            "readinessProbe",
            &probe,
            Some("ports"),
        )
    });
    findings
        .add(
            &facts.source,
            &sidecar.container.head().span,
            "the sidecar has no readiness probe: a drain that is no deletion does not take the pod out of its Services",
        )
        .remedy(format!("readinessProbe:\n{}", indent(&probe)))
        .fix(fix.flatten());
}

fn other_token(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let token = sidecar.token();
    for container in facts.running() {
        let Some(hook) = container.pre_stop() else {
            continue;
        };
        if !matches!(hook_kind(&hook), HookKind::App | HookKind::Own) {
            continue;
        }
        let sent = sent_token(&hook);
        let wrong = match (&token, sent) {
            (Token::None, _) => continue,
            (_, None) => "sends no token, and the sidecar asks for one".to_owned(),
            (Token::Literal(token), Some(sent)) if token.trim() != sent => {
                "sends another token than the sidecar has".to_owned()
            }
            _ => continue,
        };
        let yaml = hook_yaml(facts, sidecar, path_of(&hook));
        findings
            .add(
                &facts.source,
                &hook.node.span,
                format!(
                    "the hook of container {} {wrong}: it is refused, and the app stopped at once",
                    container.name()
                ),
            )
            .remedy(yaml.clone())
            .fix(replace_hook(facts, container, &token, &yaml));
    }
}

fn no_token(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let on_loopback = sidecar
        .flags
        .value("listen")
        .is_some_and(|listen| listen.starts_with("127.") || listen.starts_with("[::1]"));
    if sidecar.token() == Token::None && !sidecar.flags.has_unknown && !on_loopback {
        findings.add(
            &facts.source,
            &sidecar.container.head().span,
            "the sidecar has no token, so any pod that reaches its port can start a drain",
        );
    }
}

/// The token that a hook sends.
fn sent_token<'a>(hook: &Handler<'a>) -> Option<&'a str> {
    let bearer = || hook.header("Authorization")?.strip_prefix("Bearer ");
    hook.header("X-Gracekeeper-Token").or_else(bearer)
}

fn path_of<'a>(hook: &Handler<'a>) -> &'a str {
    match hook.action() {
        Action::HttpGet { path, .. } => path,
        _ => "/prestop/app",
    }
}

/// A hook that calls the sidecar, as `preStop` and below.
pub fn hook_yaml(facts: &PodFacts<'_>, sidecar: &Sidecar<'_>, path: &str) -> String {
    let host = match facts.pod.host_network() {
        true => "    host: 127.0.0.1\n",
        false => "",
    };
    let header = match sidecar.token() {
        Token::None => String::new(),
        Token::Literal(token) => format!(
            "    httpHeaders:\n      - name: X-Gracekeeper-Token\n        value: {}\n",
            serde_json::Value::from(token)
        ),
        Token::Elsewhere => "    httpHeaders:\n      - name: X-Gracekeeper-Token\n        value: the-sidecars-token\n".to_owned(),
    };
    format!(
        "preStop:\n  httpGet:\n{host}    path: {path}\n    port: {}\n{header}",
        sidecar.port()
    )
}

/// Adds a hook to a container. None where it needs a token that is not known here.
fn add_hook(facts: &PodFacts<'_>, container: &Container<'_>, yaml: &str) -> Option<Edit> {
    let token_is_known = facts.sidecar.as_ref()?.token() != Token::Elsewhere;
    (token_is_known && facts.can_be_edited()).then_some(())?;
    match container
        .node
        .get("lifecycle")
        .filter(|node| node.is_mapping())
    {
        None => edit::set_entry(
            facts.source.text,
            container.node,
            "lifecycle",
            yaml,
            Some("ports"),
        ),
        Some(lifecycle) => {
            let value = yaml
                .lines()
                .skip(1)
                .map(|line| line.get(2..).unwrap_or_default());
            let value: Vec<_> = value.collect();
            edit::set_entry(
                facts.source.text,
                lifecycle,
                "preStop",
                &value.join("\n"),
                None,
            )
        }
    }
}

/// Puts the hook with the right token in the place of what is there.
fn replace_hook(
    facts: &PodFacts<'_>,
    container: &Container<'_>,
    token: &Token,
    yaml: &str,
) -> Option<Edit> {
    let only_path_and_port = container
        .pre_stop()?
        .node
        .get("httpGet")?
        .entries()
        .all(|entry| {
            matches!(
                entry.key.text(),
                Some("path" | "port" | "host" | "httpHeaders" | "scheme")
            )
        });
    let headers = container.pre_stop()?.node.at(&["httpGet", "httpHeaders"]);
    let only_ours = headers.is_none_or(|headers| headers.items().count() <= 1);
    (matches!(token, Token::Literal(_)) && only_path_and_port && only_ours).then_some(())?;
    add_hook(facts, container, yaml)
}

/// Two blanks before each line.
fn indent(yaml: &str) -> String {
    yaml.lines().map(|line| format!("  {line}\n")).collect()
}

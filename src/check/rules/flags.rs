//! Flags of our sidecar and our hook that our own command line refuses, and sources that lead nowhere.

use std::collections::BTreeMap;

use crate::check::manifests::PodFacts;
use crate::check::rule::{Find, Findings, Rule, Severity};
use crate::check::sidecar::{Flags, is_client, nodes};
use crate::cli;
use crate::inflight::Source;
use crate::podspec::{Action, Container, Node};

/// The rules of this file.
pub const RULES: &[Rule] = &[
    Rule {
        id: "GK022",
        severity: Severity::Error,
        summary: "gracekeeper's command line refuses these flags",
        why: "The sidecar ends with exit status 64 and the pod does not start; a hook with such flags ends at once, and the app is stopped. The \
              flags are read here by the same code.",
        remedy: "args: [run, --app-port=8000, --grace-period=60s] # gracekeeper run --help lists the flags\n",
        find: Find::Pod(refused_flags),
    },
    Rule {
        id: "GK023",
        severity: Severity::Error,
        summary: "An in-flight source cannot be parsed",
        why: "The sidecar ends with exit status 64, and the pod does not start. The source is read here by the same code.",
        remedy: "args: [run, \"--inflight=prometheus+http://127.0.0.1:8000/metrics#http_requests_inprogress\"]\n",
        find: Find::Pod(source_that_does_not_parse),
    },
    Rule {
        id: "GK024",
        severity: Severity::Warning,
        summary: "The sidecar watches a port that no container of the pod names",
        why: "A source that does not answer cannot be read: unknown is not zero, so the drain waits until its deadline, or ends at once as if the \
              app were gone. A container need not name its ports, so this is only said where every other container names some; and of a page, \
              which may be at a port for the pod alone, only where the port is a Service's and the container's is another.",
        remedy: "containers:\n  - name: app\n    ports: [{ containerPort: 8000 }] # the port of --app-port or of the source\n",
        find: Find::Pod(port_that_nobody_opens),
    },
];

fn refused_flags(facts: &PodFacts<'_>, findings: &mut Findings) {
    for (container, flags, command) in invocations(facts) {
        for message in refused(&flags, command) {
            // An in-flight source has a rule of its own.
            if message.starts_with("--inflight") {
                continue;
            }
            let at = place(&flags, &message).unwrap_or(container.head());
            findings.add(
                &facts.source,
                &at.span,
                format!("gracekeeper {command} refuses this: {message}"),
            );
        }
    }
}

/// Each of our commands in the pod, with its flags.
fn invocations<'a, 'b>(
    facts: &'b PodFacts<'a>,
) -> Vec<(&'b Container<'a>, Flags<'a>, &'static str)> {
    let mut found = Vec::new();
    for container in &facts.containers {
        if let Some(sidecar) = crate::check::sidecar::Sidecar::of(*container) {
            found.push((container, sidecar.flags, "run"));
        }
        let Some(hook) = container.pre_stop() else {
            continue;
        };
        if let Action::Exec(words) = hook.action()
            && is_client(&words)
            && let Some(exec) = hook.node.get("exec")
        {
            let words: Vec<&Node> = nodes(exec, "command").skip(2).collect();
            // A hook's words are not expanded, and its environment is the app's.
            found.push((container, Flags::new(container, &words), "hook"));
        }
    }
    found
}

/// What our command line says of the flags.
fn refused(flags: &Flags<'_>, command: &str) -> Vec<String> {
    let mut words = vec!["gracekeeper".to_owned(), command.to_owned()];
    words.extend(flags.words().iter().map(|(word, _)| word.clone()));
    let environment: BTreeMap<String, String> = (flags.environment())
        .map(|(name, (value, _))| (name.clone(), value.clone()))
        .collect();
    match cli::check(&words, &environment) {
        Err(cli::NoInvocation::Usage(text)) => text
            .lines()
            // What is not written here may come from a Secret, a ConfigMap or a field.
            .filter(|line| !(flags.has_unknown && line.starts_with("there is nothing to watch")))
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// Where the flag stands that a message is about.
fn place<'a>(flags: &Flags<'a>, message: &str) -> Option<&'a Node> {
    let flag = message.split([' ', ':', '=']).next()?;
    let name = flag.strip_prefix("--").unwrap_or(flag);
    let word = flags
        .words()
        .iter()
        .find(|(word, _)| word.split('=').next() == Some(flag))
        .map(|(_, node)| *node);
    word.or_else(|| {
        flags
            .environment()
            .find(|(variable, _)| {
                message.contains(variable.as_str())
                    || **variable == format!("GRACEKEEPER_{}", name.to_uppercase())
            })
            .map(|(_, (_, node))| *node)
    })
}

fn source_that_does_not_parse(facts: &PodFacts<'_>, findings: &mut Findings) {
    for (_, flags, _) in invocations(facts) {
        for (text, node) in flags.all("inflight") {
            if let Err(message) = Source::parse(text) {
                findings.add(
                    &facts.source,
                    &node.span,
                    format!("this source cannot be parsed: {message}"),
                );
            }
        }
    }
}

fn port_that_nobody_opens(facts: &PodFacts<'_>, findings: &mut Findings) {
    let Some(sidecar) = &facts.sidecar else {
        return;
    };
    let all_say = facts.apps().all(|app| app.ports().next().is_some());
    if !all_say || facts.apps().next().is_none() {
        return;
    }
    let mut open: Vec<i64> = facts
        .running()
        .flat_map(Container::ports)
        .map(|(port, _)| port)
        .collect();
    open.retain(|&port| port != sidecar.port());
    let mut check = |what: &str, port: i64, node: &Node, is_of_connections: bool| {
        let meant = container_port(facts, port);
        // A page for the pod alone is at a port on loopback, which no container names.
        if open.contains(&port) || port == sidecar.port() || !(is_of_connections || meant.is_some())
        {
            return;
        }
        let names: Vec<_> = open.iter().map(ToString::to_string).collect();
        let hint = match &meant {
            Some((service, meant)) => format!(
                "; {port} is the port of Service {service}, which leads to {meant} of the pod"
            ),
            None => format!(", and the containers name {}", names.join(", ")),
        };
        let finding = findings.add(
            &facts.source,
            &node.span,
            format!("{what} is at port {port}, which no container of the pod names{hint}"),
        );
        if let (Some((_, meant)), Some(word)) = (meant, node.text()) {
            let right = with_port(word, port, meant);
            finding.remedy(format!("{}\n", serde_json::Value::from(right)));
        }
    };
    for (text, node) in sidecar.flags.all("app-port") {
        if let Ok(port) = text.parse() {
            check("--app-port", port, node, true);
        }
    }
    for (text, node) in sidecar.flags.all("inflight") {
        if let Some(port) = local_port(text) {
            let is_of_connections = text.starts_with("tcp://") || text.starts_with("tcp-busy://");
            check("this source", port, node, is_of_connections);
        }
    }
}

/// A flag, or its value, with another port.
fn with_port(word: &str, port: i64, meant: i64) -> String {
    let right = [":", "="].into_iter().fold(word.to_owned(), |word, sign| {
        word.replacen(&format!("{sign}{port}"), &format!("{sign}{meant}"), 1)
    });
    match right == word {
        // It stands in a word of its own.
        true => meant.to_string(),
        false => right,
    }
}

/// The Service that has this port and leads to another one of the pod, and that other one: clients write the one, the
/// sidecar needs the other.
fn container_port<'a>(facts: &PodFacts<'a>, port: i64) -> Option<(&'a str, i64)> {
    facts.services.iter().find_map(|service| {
        let mut ports = service.spec.get("ports")?.items();
        let entry = ports.find(|entry| entry.number_at("port") == Some(port))?;
        let target = entry.get("targetPort")?;
        let named = |name| {
            facts
                .running()
                .find_map(|container| container.port_named(name))
        };
        let target = target.number().or_else(|| named(target.text()?))?;
        (target != port).then(|| (service.source.object.name().unwrap_or_default(), target))
    })
}

/// The port of a source in the pod itself.
fn local_port(source: &str) -> Option<i64> {
    let (_, rest) = source.split_once("://")?;
    let authority = rest.split(['/', '#', '?']).next()?;
    let (host, port) = authority.rsplit('@').next()?.rsplit_once(':')?;
    ["", "127.0.0.1", "localhost", "[::1]"]
        .contains(&host)
        .then(|| port.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_remedy_of_a_flag_has_the_right_port_in_its_place() {
        for (word, right) in [
            ("--app-port=80", "--app-port=8000"),
            ("80", "8000"),
            (
                "--inflight=fastapi://127.0.0.1:80",
                "--inflight=fastapi://127.0.0.1:8000",
            ),
        ] {
            assert_eq!(with_port(word, 80, 8000), right);
        }
    }

    #[test]
    fn a_source_in_the_pod_has_a_port() {
        assert_eq!(local_port("fastapi://127.0.0.1:8000"), Some(8000));
        assert_eq!(local_port("tcp://:8000"), Some(8000));
        assert_eq!(local_port("json+http://me:pw@localhost:9/x#/a:b"), Some(9));
        assert_eq!(local_port("text+https://shop.example:8443/x"), None);
        assert_eq!(local_port("json+unix:///run/app.sock:/stats#/x"), None);
    }
}

//! What is injected, read by our own command line: no flag that it does not know, no value that it refuses.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use gracekeeper::cli;
use serde_json::Value;

use crate::{TOKEN, injected};

const SHAPES: &str = include_str!("shapes.yaml");
const TABLE: &str = include_str!("../../charts/gracekeeper/files/injection.json");

/// Flags that injection sets by itself, or that an injected container has no use for.
const NOT_FOR_ANNOTATIONS: [&str; 10] = [
    "listen", // set by the annotation `port`
    "token-file",
    "on-mistake",
    "exit-with-app", // a native sidecar holds up no Job
    "termination-log",
    "service-account",
    "app-port", // set in its own way, as are the next
    "grace-period",
    "kube",
    "help",
];

fn names(list: &str) -> BTreeSet<String> {
    let table: Value = serde_json::from_str(TABLE).expect("JSON");
    (table[list].as_array().expect("a list").iter())
        .map(|entry| entry["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[test]
fn every_flag_of_the_sidecar_can_be_set_by_an_annotation_or_has_no_use_there() {
    let output = Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
        .args(["run", "--help"])
        .output();
    let help = String::from_utf8(output.expect("help").stdout).expect("text");
    let of_run: BTreeSet<String> = (help.split_whitespace())
        .filter_map(|word| word.strip_prefix("--"))
        .map(|word| {
            word.split(['=', ',', ';', '.', ')', '['])
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .filter(|name| {
            help.contains(&format!("      --{name}"))
                && !NOT_FOR_ANNOTATIONS.contains(&name.as_str())
        })
        .collect();
    assert_eq!(names("flags"), of_run);
}

/// The pods that come out, as JSON. The shapes are YAML, and kubectl's JSON is read by the API server alone; so each is
/// written as JSON first.
fn pods() -> Vec<Value> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/inject/recorded.jsonl");
    let recorded = std::fs::read_to_string(path).expect("record the pods: see truth.rs");
    (recorded.lines())
        .map(|line| {
            let recorded: Value = serde_json::from_str(line).expect("JSON");
            let text = injected(&["--token", TOKEN], &recorded["plain"].to_string());
            serde_json::from_str(&text).expect("JSON")
        })
        .collect()
}

fn check(name: &str, words: &[String], environment: &BTreeMap<String, String>) {
    match cli::check(words, environment) {
        Ok(invocation) => assert!(
            invocation
                .warnings
                .iter()
                .all(|it| !it.contains("sets nothing")),
            "{name}"
        ),
        Err(e) => panic!("{name}: {e:?}"),
    }
}

#[test]
fn our_own_command_line_takes_what_is_injected() {
    let (mut sidecars, mut hooks) = (0, 0);
    for pod in pods() {
        let name = pod["metadata"]["name"].to_string();
        for container in pod["spec"]["initContainers"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if container["name"] != "gracekeeper" || container["startupProbe"].is_null() {
                continue;
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().replace("$$(", "$(");
            let variables = container["env"].as_array().expect("a list").iter();
            let mut environment: BTreeMap<String, String> = variables
                .map(|it| (text(&it["name"]), text(&it["value"])))
                .collect();
            // With a default taken, nothing would be wrong.
            environment.remove("GRACEKEEPER_ON_MISTAKE");
            // These two are told of where the manifest is applied: half of 5 s is kept back, and a Service needs the API.
            let known = ["short-grace", "service-without-the-api", "every-flag"];
            if !known.iter().any(|it| name.contains(it)) {
                let words = ["gracekeeper", "run"].map(str::to_owned);
                check(&name, &words, &environment);
            }
            sidecars += 1;
        }
        for container in pod["spec"]["containers"].as_array().expect("a list") {
            let command = container
                .pointer("/lifecycle/preStop/exec/command")
                .and_then(Value::as_array);
            let words: Vec<String> = (command.into_iter().flatten())
                .filter_map(|word| word.as_str().map(str::to_owned))
                .filter(|word| word != "--on-mistake=defaults")
                .collect();
            if words
                .first()
                .is_some_and(|word| word.ends_with("/gracekeeper"))
            {
                check(&name, &words, &BTreeMap::new());
                hooks += 1;
            }
        }
    }
    assert!(
        sidecars >= 25 && hooks >= 5,
        "{sidecars} sidecars, {hooks} hooks"
    );
    assert!(SHAPES.len() > 1000);
}

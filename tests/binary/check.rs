//! `gracekeeper check`: what it prints in each format, its exit statuses, and what it writes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::support::has_all;

const WRONG: &str = "apiVersion: v1\nkind: Pod\nmetadata: { name: web, namespace: shop }\nspec:\n  # two minutes of work\n  \
    terminationGracePeriodSeconds: 10\n  containers:\n    - name: app\n      image: x\n      lifecycle:\n        \
    preStop: { exec: { command: [sleep, \"20\"] } }\n";
const RIGHT: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: web }\n";

fn check(words: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
        .arg("check")
        .args(words)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have ended already: a wrong command line reads nothing.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_exit_status_is_0_1_or_64() {
    for (words, stdin, status) in [
        (&["-"][..], RIGHT, 0),
        (&["-"], WRONG, 1),
        (&["-", "--ignore=GK003"], WRONG, 0),
        (&["-"], "a: [1\n", 1),
        (&["/nowhere/x.yaml"], "", 1),
        (&[], "", 64),
        (&["-", "--format=xml"], RIGHT, 64),
        (&["-", "--fix"], WRONG, 64),
        (&["-", "--ignore=GK999"], RIGHT, 64),
        (&["--namespace=shop"], RIGHT, 64),
        (&["--explain=gk003"], "", 0),
    ] {
        let output = check(words, stdin);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {output:?}");
    }
}

#[test]
fn fail_on_says_which_severities_count() {
    let hint = "apiVersion: v1\nkind: Pod\nmetadata: { name: a }\nspec: { terminationGracePeriodSeconds: 900, containers: [{ name: a }] }\n";
    for (fail_on, status) in [("error", 0), ("warning", 0), ("hint", 1)] {
        let output = check(&["-", "--fail-on", fail_on], hint);
        assert_eq!(output.status.code(), Some(status), "{}", out(&output));
        assert!(out(&output).contains("hint[GK038]"));
    }
}

#[test]
fn people_see_the_line_the_rule_and_what_to_write() {
    let output = check(&["-"], WRONG);
    has_all(
        out(&output),
        &[
            "error[GK003]: the preStop hook of container app sleeps 20s",
            "--> -:11:18",
            "preStop: { exec: { command: [sleep, \"20\"] } }",
            "Pod shop/web",
            "terminationGracePeriodSeconds: 60",
            "1 error, 0 warnings, 0 hints in 1 file",
        ],
    );
    let colored = check(&["-", "--color=always"], WRONG);
    assert!(out(&colored).contains("\u{1b}["));
    assert!(!out(&output).contains("\u{1b}["));
}

#[test]
fn json_has_the_keys_of_the_design() {
    let output = check(&["-", "--format=json"], WRONG);
    let report: Value = serde_json::from_str(out(&output)).unwrap();
    let finding = &report["findings"][0];
    for (key, value) in [
        ("id", "GK003"),
        ("severity", "error"),
        ("file", "-"),
        ("object", "Pod shop/web"),
        ("remedy", "terminationGracePeriodSeconds: 60\n"),
    ] {
        assert_eq!(finding[key], value);
    }
    assert_eq!(
        (finding["line"].as_u64(), finding["column"].as_u64()),
        (Some(11), Some(18))
    );
    assert!(finding["message"].as_str().unwrap().contains("20s"));
}

#[test]
fn sarif_names_every_rule_and_each_place() {
    let output = check(&["-", "--format=sarif"], &format!("{WRONG}---\na: [1\n"));
    let report: Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(report["version"], "2.1.0");
    let run = &report["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!(place["artifactLocation"]["uri"], "stdin");
        assert!(place["region"]["startLine"].as_u64().unwrap() >= 1);
    }
}

#[test]
fn github_gets_one_command_a_line() {
    let output = check(&["-", "--format=github"], WRONG);
    let lines: Vec<_> = out(&output).lines().collect();
    assert_eq!(lines.len(), 1);
    assert!(
        lines[0]
            .starts_with("::error file=-,line=11,endLine=11,col=18,title=GK003::Pod shop/web: ")
    );
    assert!(lines[0].contains("%0AWrite:%0A"));
}

#[test]
fn a_broken_file_does_not_hide_the_others() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.yaml", "apiVersion: v1\nkind: [\n");
    write(folder.path(), "b.yaml", WRONG);
    write(folder.path(), "not-ours.json", "{ // a comment\n}");
    write(folder.path(), "readme.md", "# x");
    let output = check(&[folder.path().to_str().unwrap(), "--format=json"], "");
    let report: Value = serde_json::from_str(out(&output)).unwrap();
    assert_eq!(report["findings"].as_array().unwrap().len(), 1);
    let errors = report["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0]["file"].as_str().unwrap().ends_with("a.yaml"));
    assert!(errors[0]["line"].as_u64().unwrap() >= 2);
}

#[test]
fn a_chart_in_a_folder_is_a_note_and_its_templates_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let chart = folder.path().join("chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    write(&chart, "Chart.yaml", "apiVersion: v2\nname: x\n");
    write(
        &chart,
        "templates/pod.yaml",
        "apiVersion: v1\n{{- if x }}\n",
    );
    let output = check(&[folder.path().to_str().unwrap()], "");
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    assert!(out(&output).contains("helm template"));
}

#[test]
fn what_is_fixed_is_written_and_the_comments_stay() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "pod.yaml", WRONG);
    let output = check(&[&path, "--fix"], "");
    assert_eq!(output.status.code(), Some(0), "{}", out(&output));
    assert!(out(&output).contains("fixed GK003"));
    let fixed = std::fs::read_to_string(&path).unwrap();
    assert_eq!(fixed, WRONG.replace("Seconds: 10", "Seconds: 60"));
}

#[test]
fn without_a_cluster_it_is_said_where_one_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
        .args(["check", "--cluster"])
        .env("KUBECONFIG", folder.path().join("none"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("KUBECONFIG"));
}

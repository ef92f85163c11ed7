//! Each rule beside manifests that are right and wrong for it: `tests/check/GK007/ok.yaml` and `not-ok.yaml`.

use std::path::{Path, PathBuf};

use super::*;
use crate::podspec::Stream;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check")
}

fn ids(text: &str) -> Vec<&'static str> {
    let (files, problems) = input::from_text("test", text.to_owned());
    assert!(problems.is_empty(), "{problems:?}");
    find(&files, &[])
        .iter()
        .map(|finding| finding.rule.id)
        .collect()
}

fn manifest(rule: &str, name: &str) -> String {
    let path = folder().join(rule).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn each_rule_finds_what_is_wrong_and_not_what_is_right() {
    for rule in rules::all() {
        let wrong = manifest(rule.id, "not-ok.yaml");
        // Each document by itself is a way to be wrong, unless it says that they belong together.
        for document in documents(&wrong) {
            let found = ids(document);
            assert!(
                found.contains(&rule.id),
                "{} is not found in\n{document}\nbut {found:?}",
                rule.id
            );
        }
        let right = manifest(rule.id, "ok.yaml");
        for document in documents(&right) {
            let found = ids(document);
            assert!(
                !found.contains(&rule.id),
                "{} is found in\n{document}",
                rule.id
            );
        }
    }
}

/// The cases of a file, each after a line `### and ...`.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    text.split("### ")
        .filter(|part| part.contains("apiVersion"))
}

#[test]
fn the_page_of_rules_is_what_the_rules_say() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/rules.md"));
    assert!(
        page.is_ok_and(|page| page == explain::page()),
        "write it again: cargo run -- check --explain all > docs/rules.md"
    );
}

#[test]
fn what_is_fixed_is_found_no_more_and_comments_stay() {
    let folder = tempfile::tempdir().unwrap();
    for rule in [
        "GK002", "GK003", "GK007", "GK008", "GK010", "GK016", "GK017", "GK019", "GK020", "GK025",
        "GK026", "GK027",
    ] {
        for (number, text) in documents(&manifest(rule, "not-ok.yaml")).enumerate() {
            let text = format!(
                "# kept: first\n{}# kept: last\n",
                &text[text.find('\n').unwrap() + 1..]
            );
            let path = folder.path().join(format!("{rule}-{number}.yaml"));
            std::fs::write(&path, &text).unwrap();
            let (mut files, _) = input::read(&[path]);
            let findings = find(&files, &[]);
            let fixable = findings
                .iter()
                .any(|finding| finding.rule.id == rule && !finding.fix.is_empty());
            let (fixed, left) = fix::apply(&mut files, findings, &[]).unwrap();
            let after = &files[0].stream.text;
            if fixable {
                assert!(fixed.iter().any(|fixed| fixed.id == rule), "{rule}");
                assert!(
                    left.iter().all(|finding| finding.rule.id != rule),
                    "{rule} is still in\n{after}"
                );
            }
            assert!(
                number > 0 || fixable,
                "{rule} has nothing to fix in\n{text}"
            );
            assert!(
                after.contains("# kept: first\n") && after.ends_with("# kept: last\n"),
                "{after}"
            );
        }
    }
}

#[test]
fn json_is_checked_and_fixed_like_yaml() {
    let text = documents(&manifest("GK016", "not-ok.yaml"))
        .next()
        .map(|text| text[text.find('\n').unwrap() + 1..].to_owned());
    let stream = Stream::parse(text.unwrap());
    let json =
        serde_json::from_str::<serde_json::Value>(&stream.documents[0].root.to_json()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pod.json");
    std::fs::write(&path, format!("{json:#}\n")).unwrap();
    let (mut files, _) = input::read(std::slice::from_ref(&path));
    let findings = find(&files, &[]);
    assert!(findings.iter().any(|finding| finding.rule.id == "GK016"));
    fix::apply(&mut files, findings, &[]).unwrap();
    let fixed: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(
        fixed.pointer("/spec/initContainers/0/lifecycle/preStop/httpGet/path"),
        Some(&serde_json::json!("/prestop/self"))
    );
}

const GRACE: &str = "apiVersion: v1\nkind: Pod\nmetadata: { name: a }\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{ name: a }]\n";

#[test]
fn comments_and_annotations_leave_findings_out() {
    assert_eq!(ids(GRACE), ["GK005"]);
    for (from, to) in [
        ("Seconds: 0\n", "Seconds: 0 # gracekeeper:ignore GK005\n"),
        ("Seconds: 0\n", "Seconds: 0 # gracekeeper:ignore gk005\n"),
        ("  term", "  # gracekeeper:ignore GK001, GK005\n  term"),
        ("spec:", "# gracekeeper:ignore GK005\nspec:"),
        (
            "apiVersion",
            "# gracekeeper:ignore GK005: batch work\napiVersion",
        ),
        ("apiVersion", "# gracekeeper:ignore\napiVersion"),
        (
            "{ name: a }\nspec",
            "{ name: a, annotations: { gracekeeper.dev/ignore: GK005 } }\nspec",
        ),
    ] {
        let text = GRACE.replacen(from, to, 1);
        assert!(ids(&text).is_empty(), "{text}");
    }
    for (from, to) in [
        ("Seconds: 0\n", "Seconds: 0 # gracekeeper:ignore GK001\n"),
        ("kind", "# gracekeeper:ignore GK005\nkind"),
        ("  containers", "  # gracekeeper:ignore GK005\n  containers"),
    ] {
        let text = GRACE.replacen(from, to, 1);
        assert_eq!(ids(&text), ["GK005"], "{text}");
    }
}

#[test]
fn the_budget_to_write_selects_the_pods_that_have_none() {
    let text = documents(&manifest("GK030", "not-ok.yaml"))
        .next()
        .map(str::to_owned);
    let (files, _) = input::from_text("x", text.unwrap().replacen("two replicas\n", "", 1));
    let findings = find(&files, &[]);
    let finding = findings
        .iter()
        .find(|finding| finding.rule.id == "GK030")
        .unwrap();
    let with_it = format!("{}---\n{}", files[0].stream.text, finding.remedy);
    assert!(!ids(&with_it).contains(&"GK030"), "{with_it}");
}

#[test]
fn unknown_kinds_are_passed_over_and_broken_files_are_not() {
    let (files, problems) = input::from_text(
        "x",
        format!("{{a: b}}\n---\n- 1\n---\nkind: [\n---\n{GRACE}"),
    );
    assert_eq!(find(&files, &[]).len(), 1);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].help.is_none() && problems[0].fails());
}

#[test]
fn a_template_is_told_to_be_rendered_first() {
    for text in [
        "{{- if .Values.x }}\nkind: Pod\n{{- end }}\n",
        "apiVersion: v1\nkind: Pod\nspec:\n  x: {{ .Values.x }}\n",
        "kind: Pod\nmetadata:\n  labels:\n    {{- include \"x\" . | nindent 4 }}\n",
        // Two documents that cannot be read, for one reason.
        "{{- if .Values.x }}\nkind: Pod\n{{- end }}\n---\nmetadata: {{ .Values.y }}\n{{- end }}\n",
    ] {
        let (_, problems) = input::from_text("x", text.to_owned());
        assert_eq!(problems.len(), 1, "{text}: {problems:?}");
        assert!(
            problems[0]
                .help
                .as_deref()
                .unwrap_or_default()
                .contains("helm template"),
            "{text}"
        );
    }
    let (_, problems) = input::from_text(
        "x",
        "kind: ConfigMap\ndata:\n  a: |\n    {{ define \"x\" }}\n  b: \"{{ x }}\"\n".to_owned(),
    );
    assert!(problems.is_empty());
}

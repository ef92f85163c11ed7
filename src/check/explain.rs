//! `--explain`, and the page `docs/rules.md`: both are the rules' own texts.

use std::fmt::Write as _;

use super::rule::Rule;
use super::rules;

const HEAD: &str = "# Rules of gracekeeper check\n\n\
    **Who needs this page:** you have a finding of `gracekeeper check` and want to know why it matters and what to write. \
    How to run it, and how to leave a rule out, is in [check.md](check.md).\n\n\
    The texts are the rules' own: `gracekeeper check --explain all` prints this page, and a test compares.\n\n";

/// One rule, or all of them as a page.
pub fn text(id: &str) -> String {
    match rules::by_id(id) {
        Some(rule) => section(rule),
        None => page(),
    }
}

/// The page.
pub fn page() -> String {
    let all = rules::all();
    let mut page = HEAD.to_owned();
    page += "| rule | severity | finds |\n| --- | --- | --- |\n";
    for rule in &all {
        let anchor = rule.id.to_lowercase();
        let _ = writeln!(
            page,
            "| [{}](#{anchor}) | {} | {} |",
            rule.id, rule.severity, rule.summary
        );
    }
    for rule in all {
        page.push('\n');
        page += &section(rule);
    }
    page
}

fn section(rule: &Rule) -> String {
    format!(
        "## {}\n\n{} ({}).\n\n{}\n\nWrite:\n\n```yaml\n{}```\n",
        rule.id, rule.summary, rule.severity, rule.why, rule.remedy
    )
}

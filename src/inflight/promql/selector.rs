//! An instant selector: which series of a page it wants.

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::VectorSelector;
use regex::Regex;
use regex_syntax::hir::literal::Extractor;

use super::vector::NAME;
use crate::inflight::exposition::Sample;

/// A selector.
#[derive(Debug, Clone)]
pub struct Selector {
    /// The names that its series can have; none where any name may match.
    pub names: Option<Vec<String>>,
    conditions: Vec<Condition>,
}

/// What must hold of one label.
#[derive(Debug, Clone)]
struct Condition {
    label: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Equal(String),
    NotEqual(String),
    Match(Regex),
    NoMatch(Regex),
}

impl Selector {
    /// Takes over what was parsed.
    ///
    /// # Errors
    /// Says which regular expression is wrong.
    pub fn new(parsed: VectorSelector) -> Result<Self, String> {
        let mut conditions: Vec<Condition> = (parsed.name.into_iter())
            .map(|name| Condition {
                label: NAME.to_owned(),
                test: Test::Equal(name),
            })
            .collect();
        for matcher in parsed.matchers.matchers {
            conditions.push(Condition::new(matcher)?);
        }
        let mut names = None;
        for condition in conditions.iter().filter(|c| c.label == NAME) {
            match &condition.test {
                Test::Equal(name) => names = Some(vec![name.clone()]),
                Test::Match(regex) if names.is_none() => names = alternatives(regex),
                _ => {}
            }
        }
        Ok(Self { names, conditions })
    }

    /// Whether it wants this series.
    pub fn matches(&self, sample: &Sample<'_>) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(sample))
    }
}

impl Condition {
    fn new(matcher: Matcher) -> Result<Self, String> {
        let test = match matcher.op {
            MatchOp::Equal => Test::Equal(matcher.value),
            MatchOp::NotEqual => Test::NotEqual(matcher.value),
            MatchOp::Re(regex) => Test::Match(anchored(&matcher.value, &regex)?),
            MatchOp::NotRe(regex) => Test::NoMatch(anchored(&matcher.value, &regex)?),
        };
        Ok(Self {
            label: matcher.name,
            test,
        })
    }

    fn holds(&self, sample: &Sample<'_>) -> bool {
        // A label that is not there is the same as an empty one.
        let value = if self.label == NAME {
            sample.name
        } else {
            (sample.labels.iter())
                .find(|(label, _)| *label == self.label)
                .map_or("", |(_, value)| value)
        };
        match &self.test {
            Test::Equal(wanted) => value == wanted,
            Test::NotEqual(unwanted) => value != unwanted,
            Test::Match(regex) => regex.is_match(value),
            Test::NoMatch(regex) => !regex.is_match(value),
        }
    }
}

/// What the parser puts around a regular expression.
const AROUND: (&str, &str) = ("^(?:", ")$");

/// Prometheus anchors at both ends and lets a dot match a line end; the parser's own regex does only the former.
fn anchored(written: &str, parsed: &Regex) -> Result<Regex, String> {
    // The parser has escaped the braces that Go takes as they are and Rust does not.
    let inner = parsed.as_str().strip_prefix(AROUND.0);
    let inner = inner.and_then(|inner| inner.strip_suffix(AROUND.1));
    let inner = inner.unwrap_or(written);
    // By itself first: a parenthesis too many must not close ours.
    Regex::new(inner)
        .and_then(|_| Regex::new(&format!("^(?s:{inner})$")))
        .map_err(|_| format!("{written:?} is not a regular expression"))
}

/// The texts that a regular expression matches, where it is a plain choice of a few.
fn alternatives(regex: &Regex) -> Option<Vec<String>> {
    let parsed = regex_syntax::parse(regex.as_str()).ok()?;
    let found = Extractor::new().extract(&parsed);
    if !found.is_exact() {
        return None;
    }
    let texts = found.literals()?.iter();
    texts
        .map(|text| String::from_utf8(text.as_bytes().to_vec()).ok())
        .collect()
}

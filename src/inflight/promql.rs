//! The expression after a Prometheus source's `#`: an instant selector and the sum of what it matches.
//!
//! Parsed by a real PromQL parser, evaluated here over one scrape. What is not supported is refused by name when the
//! configuration is read, never at the hour of a drain.

use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, VectorSelector};
use regex::Regex;

use super::exposition::{Names, Sample};

/// The label that holds a series' name.
const NAME: &str = "__name__";

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Query {
    names: Names,
    matchers: Vec<Match>,
}

/// One matcher of a selector.
#[derive(Debug, Clone)]
struct Match {
    label: String,
    op: Op,
}

#[derive(Debug, Clone)]
enum Op {
    Equal(String),
    NotEqual(String),
    Matches(Regex),
    MatchesNot(Regex),
}

impl Query {
    /// Parses an expression.
    ///
    /// # Errors
    /// Says what of it is no PromQL, or is PromQL that is not supported here.
    pub fn parse(text: &str) -> Result<Self, String> {
        match parser::parse(text)? {
            Expr::VectorSelector(selector) => Self::select(selector),
            other => Err(format!(
                "{} is not supported here; write a selector such as name{{label=\"value\"}}, whose series are summed",
                construct(&other)
            )),
        }
    }

    fn select(selector: VectorSelector) -> Result<Self, String> {
        if selector.offset.is_some() || selector.at.is_some() {
            return Err(
                "offset and @ ask for another time than now, and one scrape knows no other"
                    .to_owned(),
            );
        }
        if !selector.matchers.or_matchers.is_empty() {
            return Err("\"or\" between matchers is not PromQL".to_owned());
        }
        let mut matchers = Vec::new();
        let mut name = selector.name;
        for matcher in selector.matchers.matchers {
            match matcher.op {
                MatchOp::Equal if matcher.name == NAME && name.is_none() => {
                    name = Some(matcher.value)
                }
                _ => matchers.push(Match::try_from(matcher)?),
            }
        }
        Ok(Self {
            names: name.map_or(Names::Any, |name| Names::one(&name)),
            matchers,
        })
    }

    /// Which lines of a page the expression needs.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Begins an evaluation over one scrape.
    pub fn begin(&self) -> Evaluation<'_> {
        Evaluation {
            query: self,
            sum: None,
        }
    }
}

impl TryFrom<Matcher> for Match {
    type Error = String;

    fn try_from(matcher: Matcher) -> Result<Self, String> {
        let op = match matcher.op {
            MatchOp::Equal => Op::Equal(matcher.value),
            MatchOp::NotEqual => Op::NotEqual(matcher.value),
            MatchOp::Re(regex) => Op::Matches(anchored(&matcher.value, regex)),
            MatchOp::NotRe(regex) => Op::MatchesNot(anchored(&matcher.value, regex)),
        };
        Ok(Self {
            label: matcher.name,
            op,
        })
    }
}

/// Prometheus anchors at both ends and lets a dot match a line end; the parser's own regex does only the former.
fn anchored(written: &str, parsed: Regex) -> Regex {
    Regex::new(&format!("^(?s:{written})$")).unwrap_or(parsed)
}

impl Match {
    fn holds(&self, sample: &Sample<'_>) -> bool {
        // A label that is not there is the same as an empty one.
        let value = if self.label == NAME {
            sample.name
        } else {
            sample
                .labels
                .iter()
                .find(|(label, _)| *label == self.label)
                .map_or("", |(_, value)| value)
        };
        match &self.op {
            Op::Equal(wanted) => value == wanted,
            Op::NotEqual(unwanted) => value != unwanted,
            Op::Matches(regex) => regex.is_match(value),
            Op::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

/// An expression's value, in the making.
#[derive(Debug)]
pub struct Evaluation<'q> {
    query: &'q Query,
    sum: Option<f64>,
}

impl Evaluation<'_> {
    /// Takes one sample of the scrape.
    pub fn take(&mut self, sample: &Sample<'_>) {
        if self
            .query
            .matchers
            .iter()
            .all(|matcher| matcher.holds(sample))
        {
            *self.sum.get_or_insert(0.0) += sample.value;
        }
    }

    /// The value once the scrape is whole; none where no series matched.
    pub fn finish(self) -> Option<f64> {
        self.sum
    }
}

/// What PromQL's own documentation calls a kind of expression.
fn construct(expr: &Expr) -> &'static str {
    match expr {
        Expr::Aggregate(_) => "an aggregation",
        Expr::Unary(_) => "a unary minus",
        Expr::Binary(_) => "a binary operator",
        Expr::Paren(_) => "a parenthesis",
        Expr::Subquery(_) => "a subquery",
        Expr::NumberLiteral(_) => "a number",
        Expr::StringLiteral(_) => "a string",
        Expr::VectorSelector(_) => "a selector",
        Expr::MatrixSelector(_) => "a range selector",
        Expr::Call(_) => "a function",
        Expr::Extension(_) => "an extension",
    }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Scanner;
    use super::*;

    const PAGE: &str = "\
# TYPE http_requests_inprogress gauge
http_requests_inprogress{handler=\"/metrics\",method=\"GET\"} 1
http_requests_inprogress{handler=\"/work\",method=\"GET\"} 3
http_requests_inprogress{handler=\"/work\",method=\"POST\"} 4
http_requests_inprogress{method=\"PUT\"} 10
http_requests_total 99
vllm:num_requests_running{model_name=\"a\\nb\"} 2
";

    fn value(query: &str) -> Option<f64> {
        let query = Query::parse(query).unwrap();
        let mut evaluation = query.begin();
        let mut scanner = Scanner::new(query.names(), false);
        scanner
            .feed(PAGE.as_bytes(), &mut |sample| evaluation.take(&sample))
            .unwrap();
        scanner.finish().unwrap();
        evaluation.finish()
    }

    #[test]
    fn a_bare_name_sums_its_series() {
        assert_eq!(value("http_requests_inprogress"), Some(18.0));
        assert_eq!(value("vllm:num_requests_running"), Some(2.0));
    }

    #[test]
    fn all_four_matchers_choose() {
        assert_eq!(
            value("http_requests_inprogress{handler=\"/work\"}"),
            Some(7.0)
        );
        assert_eq!(
            value("http_requests_inprogress{handler!=\"/metrics\"}"),
            Some(17.0)
        );
        assert_eq!(
            value("http_requests_inprogress{method=~\"P.*\"}"),
            Some(14.0)
        );
        assert_eq!(
            value("http_requests_inprogress{method!~\"P.*|GE\"}"),
            Some(4.0)
        );
        assert_eq!(value("http_requests_inprogress{handler=\"\"}"), Some(10.0));
        assert_eq!(value("{__name__=\"http_requests_total\"}"), Some(99.0));
        assert_eq!(
            value("{__name__=~\"http_requests_.*\",method=~\"P.*|\"}"),
            Some(113.0)
        );
        assert_eq!(
            value("vllm:num_requests_running{model_name=~\"a.b\"}"),
            Some(2.0)
        );
    }

    #[test]
    fn no_series_is_no_value() {
        assert_eq!(value("http_requests"), None);
        assert_eq!(
            value("http_requests_inprogress{handler=\"/nowhere\"}"),
            None
        );
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        for (query, named) in [
            ("rate(m[5m])", "a function"),
            ("m[5m]", "a range selector"),
            ("sum(m)", "an aggregation"),
            ("m offset 5m", "offset"),
            ("m @ 5", "@"),
            ("a - b", "a binary operator"),
        ] {
            let refusal = Query::parse(query).unwrap_err();
            assert!(refusal.contains(named), "{query}: {refusal}");
        }
        assert!(Query::parse("m{").is_err());
        assert!(Query::parse("m{a=~\"(\"}").is_err());
        assert!(Query::parse("").is_err());
    }
}

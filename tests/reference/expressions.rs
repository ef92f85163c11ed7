//! What expressions come to, beside a real Prometheus that has scraped the same page.

use gracekeeper::inflight::exposition::Scanner;
use gracekeeper::inflight::promql::{Error, Query};
use serde_json::Value as Json;

use super::generated::Random;
use super::prometheus::Prometheus;
use super::scan::{Page, folder};

/// What both have to agree on.
const EXPRESSIONS: &[&str] = &[
    // Selectors.
    "http_requests_in_flight",
    "workers_limit",
    "nothing",
    "http_requests_in_flight{handler=\"/work\"}",
    "http_requests_in_flight{handler!=\"/metrics\"}",
    "http_requests_in_flight{method=~\"P.*\"}",
    "http_requests_in_flight{method!~\"P.*|GE\"}",
    "http_requests_in_flight{handler=\"\"}",
    "http_requests_in_flight{handler!=\"\"}",
    "http_requests_in_flight{nowhere=\"\"}",
    "http_requests_in_flight{nowhere!=\"\"}",
    "http_requests_in_flight{handler=~\"\"}",
    "http_requests_in_flight{handler=~\".*\"}",
    "http_requests_in_flight{handler=~\".+\"}",
    "http_requests_in_flight{handler!~\".+\"}",
    "http_requests_in_flight{handler=~\"|/metrics\"}",
    "http_requests_in_flight{handler=~\"/items/{id}\"}",
    "http_requests_in_flight{handler=\"/work\",handler=\"/metrics\"}",
    "http_requests_in_flight{handler=~\"/.*\",handler!=\"/metrics\",method=\"GET\",}",
    "http_requests_in_flight{method=~\"(?i)get\"}",
    "http_requests_in_flight{method=~\"^GET$\"}",
    "http_requests_in_flight{method=~\"G[A-F]T\"}",
    "http_requests_in_flight{method='GET'}",
    "http_requests_in_flight{method=`GET`}",
    "http_requests_in_flight{method=\"\\x47ET\"}",
    "http_requests_in_flight{}",
    "{__name__=\"workers_limit\"}",
    "{__name__=~\"twin_.\"}",
    "{__name__=~\"twin_a|twin_b\",x=\"1\"}",
    "{__name__=~\"twin_(a|c)|workers_limit\"}",
    "{__name__!=\"twin_a\",x=\"1\"}",
    "{__name__!~\"twin_a|vllm.*\",x=~\".+\"}",
    "{x=\"1\"}",
    "{method=\"GET\",code=\"\"}",
    "{__name__=\"\",x=\"1\"}",
    "{__name__=~\"start.*\"}",
    "vllm:num_requests_running",
    "vllm:num_requests_running{model_name=\"large\"}",
    "text{value=\"a\\nb\"}",
    "text{value=\"quote\\\"d\"}",
    "text{value='quote\"d'}",
    "text{value=\"back\\\\slash\"}",
    "text{value=\"ünï☃\"}",
    "text{value=~\"ünï.\"}",
    "text{value=~\"a\\\\.c\"}",
    "text{value=~\"[abc]{3}\"}",
    "sum",
    // Aggregations.
    "sum(http_requests_in_flight)",
    "min(http_requests_in_flight)",
    "max(http_requests_in_flight)",
    "avg(http_requests_in_flight)",
    "count(http_requests_in_flight)",
    "Sum(workers)",
    "sum(sum)",
    "sum by (by) (sum)",
    "sum(nothing)",
    "count(nothing)",
    "avg by (x) (nothing)",
    "max by (handler) (http_requests_in_flight)",
    "max(http_requests_in_flight) by (handler)",
    "min without (method) (http_requests_in_flight)",
    "min(http_requests_in_flight) without (method)",
    "avg by (method) (http_requests_in_flight)",
    "count by (method, handler) (http_requests_in_flight)",
    "count by () (http_requests_in_flight)",
    "max without () (http_requests_in_flight)",
    "max without (nowhere) (http_requests_in_flight)",
    "max by (nowhere) (http_requests_in_flight)",
    "max by (__name__) ({__name__=~\"twin_.\"})",
    "max without (__name__) ({__name__=~\"twin_.\"})",
    "max without (x, y) ({__name__=~\"twin_.\"})",
    "count(sum by (handler) (http_requests_in_flight))",
    "max(sum by (method) (http_requests_in_flight))",
    "sum(max by (x) (twin_a))",
    "count(count(count(workers)))",
    "sum(sick)",
    "min(sick)",
    "max(sick)",
    "avg(sick)",
    "count(sick)",
    "max(sick{kind!=\"well\"})",
    "min by (kind) (sick)",
    "sum(endless)",
    "max(endless)",
    "min(endless)",
    "avg(endless{sign=\"+\"})",
    "sum(big)",
    // Arithmetic.
    "started_total - finished_total",
    "sum(started_total) - sum(finished_total)",
    "started_total + finished_total",
    "started_total * finished_total",
    "started_total / finished_total",
    "started_total - on(method, code) finished_total",
    "started_total - ignoring(nowhere) finished_total",
    "started_total - on(method) finished_total",
    "finished_total{code=\"200\"} - ignoring(code) started_total{code=\"200\"}",
    "started_total - ignoring(code) finished_total",
    "sum by (method) (started_total) - on(method) sum by (method) (finished_total)",
    "sum by (method) (started_total) - sum by (method) (finished_total)",
    "vllm:num_requests_running + vllm:num_requests_waiting",
    "sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)",
    "sum({__name__=~\"vllm:num_requests_(running|waiting)\"})",
    "workers{state=\"busy\"} - ignoring(state) workers{state=\"idle\"}",
    "workers{state=\"busy\"} - workers{state=\"idle\"}",
    "workers_limit - count(workers{state=\"idle\"})",
    "workers_limit - on() sum(workers)",
    "twin_a + twin_b",
    "twin_a + on(x) twin_b",
    "twin_a{y=\"1\"} + on(x) twin_b{y=\"1\"}",
    "twin_a{y=\"1\"} + on(x) twin_b",
    "twin_a + on(x) twin_b{y=\"1\"}",
    "twin_a + on(y) nothing",
    "nothing + on(y) twin_a",
    "twin_a{x=\"2\"} + on(x) twin_b{x=\"1\"}",
    "twin_b{x=\"1\"} - on(x) twin_a{x=\"2\"}",
    "twin_a + on(__name__) twin_a",
    "twin_a{x=\"2\"} + on(__name__) twin_a{x=\"2\"}",
    "{__name__=~\"twin_.\",y=\"2\"} + on(__name__) {__name__=~\"twin_.\",y=\"2\"}",
    "{__name__=~\"twin_.\"} + twin_a",
    "{__name__=~\"twin_.\"} * 2",
    "{__name__=~\"twin_.\",x=~\"2|3\"} * 2",
    "-{__name__=~\"twin_.\"}",
    "+{__name__=~\"twin_.\"}",
    "abs({__name__=~\"twin_.\"})",
    "queue_length + 1",
    "1 + queue_length",
    "10 - queue_length",
    "queue_length - 10",
    "queue_length / 4",
    "4 / queue_length{queue=\"mail\"}",
    "4 / queue_length{queue=\"print\"}",
    "queue_length{queue=\"print\"} / 0",
    "queue_length * -1.5",
    "-queue_length",
    "- - queue_length",
    "+queue_length",
    "-(queue_length)",
    "-queue_length * 2 + 3",
    "2 - -queue_length",
    "2 * queue_length + 3 * queue_length",
    "(queue_length + 1) * (queue_length - 1)",
    "queue_length - queue_length * 2",
    "sick * 0",
    "endless - endless",
    "nothing + 1",
    "1 - nothing",
    "sum(http_requests_in_flight) - http_requests_in_flight{handler=\"/metrics\"}",
    "sum(http_requests_in_flight) - on() http_requests_in_flight{handler=\"/metrics\"}",
    // Numbers.
    "1",
    "-1",
    "1 + 2 * 3 - 4 / 8",
    "(1 + 2) * 3",
    "2 * -3",
    "-2 * 3",
    "1 / 0",
    "0 / 0",
    "-1 / 0",
    "0x1F",
    "017",
    "1e3",
    "1.5E-3",
    ".5",
    "5.",
    "Inf",
    "-inf",
    "NaN",
    "vector(1)",
    "vector(1) + vector(2)",
    "vector(1 + 2 * 3)",
    "-vector(1)",
    "sum(vector(4))",
    "queue_length + vector(1)",
    "sum(queue_length) + vector(1)",
    "queue_length + on() vector(1)",
    "queue_length{queue=\"mail\"} + on() vector(1)",
    // Functions.
    "clamp_min(queue_length, 0)",
    "clamp_max(queue_length, 1)",
    "clamp(queue_length, -1, 5)",
    "clamp(queue_length, 1, 1)",
    "clamp_min(sick, 0)",
    "clamp_max(sick, 0)",
    "clamp(queue_length, 0, NaN)",
    "clamp_min(queue_length, 1 + 1)",
    "clamp_min(nothing, 3)",
    "clamp_min(sum(started_total) - sum(finished_total), 0)",
    "clamp_max(endless, 7)",
    "abs(queue_length)",
    "ceil(queue_length / 3)",
    "floor(queue_length / 3)",
    "round(queue_length)",
    "round(-queue_length)",
    "round(queue_length, 5)",
    "round(queue_length, 0.25)",
    "round(queue_length / 3, 0.1)",
    "round(queue_length, 0)",
    "floor(sick)",
    "ceil(endless)",
    "abs(clamp_min(round(queue_length + 0.4), 1) - 2)",
    // Sets.
    "sum(nothing) or vector(0)",
    "nothing or vector(0)",
    "queue_length or vector(0)",
    "sum(queue_length) or vector(0)",
    "workers_limit or vector(3)",
    "started_total or finished_total",
    "finished_total or started_total",
    "started_total or on(method) finished_total",
    "started_total or ignoring(method) finished_total",
    "started_total or on() finished_total",
    "twin_a or twin_b",
    "twin_a or on(__name__) twin_b",
    "{__name__=~\"twin_.\"} or workers",
    "workers or {__name__=~\"twin_.\"}",
    "started_total and finished_total",
    "started_total and on(method) finished_total",
    "started_total and nothing",
    "nothing and started_total",
    "started_total and on() nothing",
    "started_total and on() workers_limit",
    "started_total unless finished_total",
    "started_total unless on(method) finished_total",
    "started_total unless nothing",
    "nothing unless started_total",
    "started_total unless started_total",
    "nothing or nothing",
    "nothing or nothing or workers_limit",
    "twin_a or twin_b and twin_b",
    "twin_a + 1 or twin_b",
    "(twin_a or twin_b) * 2",
    "sum(twin_a or twin_b)",
    "max by (x) (twin_a or twin_b)",
    "twin_a unless twin_b or workers_limit",
    // Whatever stands between.
    " \t\nsum (\n  workers # those that work\n)\n",
    "workers_limit # - 8",
    "text{value=\"#\"} or workers_limit",
    "((((workers_limit))))",
];

/// What is no PromQL to either of us.
const REFUSED: &[&str] = &[
    "",
    "#",
    "sum(",
    "sum)",
    "sum()",
    "sum(1)",
    "sum(twin_a, twin_b)",
    "twin_a twin_b",
    "twin_a +",
    "+",
    "* twin_a",
    "twin_a + * twin_b",
    "twin_a = 1",
    "{}",
    "{x=\"\"}",
    "{x=~\".*\"}",
    "{x!=\"1\"}",
    "{x!~\"1\"}",
    "twin_a{x}",
    "twin_a{x=}",
    "twin_a{x=1}",
    "twin_a{x=\"1\"",
    "twin_a{x=\"1}",
    "twin_a{x=\"1\" y=\"1\"}",
    "twin_a{,}",
    "twin_a{x=~\"(\"}",
    "twin_a{x=~\"a)|(b\"}",
    "twin_a{x=\"\\d\"}",
    "twin_a{__name__=\"twin_b\"}",
    "twin_a + on(x) 1",
    "1 or 2",
    "twin_a or 1",
    "1 and twin_a",
    "clamp_min(twin_a)",
    "clamp_min(1, 1)",
    "clamp_min(twin_a, twin_b)",
    "clamp_min(twin_a, 1,)",
    "vector(twin_a)",
    "vector()",
    "abs(twin_a, 1)",
    "nofunction(twin_a)",
    "twin_a by (x)",
    "sum by x (twin_a)",
    "sum by (\"x y\"(twin_a)",
    "(twin_a",
    "twin_a)",
    "()",
    "twin_a, twin_b",
    "1x",
    "tw!n",
    "twin$a",
    "twin_a or on(x) group_left twin_b",
    "1 > 2",
    "twin_a[",
    "twin_a[5]m",
];

/// What is PromQL, and refused because one scrape is not enough for it, or because it is not needed here.
const NOT_SUPPORTED: &[&str] = &[
    "rate(started_total[5m])",
    "increase(started_total[5m])",
    "sum(irate(started_total[5m]))",
    "max_over_time(queue_length[5m])",
    "max_over_time(sum(queue_length)[5m:1m])",
    "queue_length offset 5m",
    "queue_length offset -5m",
    "queue_length @ 1600000000",
    "queue_length @ end()",
    "time()",
    "time() - big",
    "timestamp(big)",
    "hour()",
    "predict_linear(queue_length[5m], 60)",
    "absent(nothing)",
    "scalar(big)",
    "sort(queue_length)",
    "sgn(queue_length)",
    "sqrt(queue_length)",
    "label_replace(queue_length, \"a\", \"b\", \"c\", \"d\")",
    "histogram_quantile(0.9, queue_length)",
    "pi()",
    "queue_length > 1",
    "queue_length == bool 1",
    "1 < bool 2",
    "queue_length % 2",
    "2 ^ 3",
    "queue_length atan2 queue_length",
    "topk(1, queue_length)",
    "bottomk(1, queue_length)",
    "quantile(0.5, queue_length)",
    "stddev(queue_length)",
    "group(queue_length)",
    "count_values(\"v\", queue_length)",
    "twin_a + on(x) group_left twin_b",
    "twin_a{y=\"1\"} + on(x) group_right(y) twin_b",
    "\"text\"",
];

/// Where we differ from this version of Prometheus, what we say, and why.
const DIFFERENT: &[(&str, Answer, &str)] = &[
    (
        "text{value=~\"a.b\"}",
        Answer::Value(1.0),
        "since version 3, a dot is a line end too",
    ),
    (
        "{\"workers_limit\"}",
        Answer::Value(8.0),
        "names in quotes came with version 3",
    ),
    ("twin_a{\"x\"=\"2\"}", Answer::Value(4.0), "likewise"),
    (
        "clamp(queue_length, 2, 1)",
        Answer::Refused,
        "always empty, which cannot be meant",
    ),
    (
        "text{value=`back\\slash`}",
        Answer::Refused,
        "the parser takes a backslash between backticks for the beginning of an escape",
    ),
];

/// What one of us says.
#[derive(Debug, Clone, Copy)]
enum Answer {
    Value(f64),
    Nothing,
    Ambiguous,
    Refused,
}

impl PartialEq for Answer {
    fn eq(&self, other: &Self) -> bool {
        match (*self, *other) {
            (Answer::Value(one), Answer::Value(other)) => {
                one == other
                    || (one.is_nan() && other.is_nan())
                    || (one - other).abs() <= 1e-9 * one.abs().max(other.abs()).max(1.0)
            }
            (one, other) => std::mem::discriminant(&one) == std::mem::discriminant(&other),
        }
    }
}

fn page() -> Page {
    Page {
        name: "expressions.text".to_owned(),
        content: std::fs::read(folder("tests/reference/expressions.text")).unwrap(),
        open_metrics: false,
    }
}

fn ours(page: &Page, expression: &str) -> Answer {
    let Ok(query) = Query::parse(expression) else {
        return Answer::Refused;
    };
    let mut evaluation = query.begin();
    let mut scanner = Scanner::new(query.names(), page.open_metrics);
    for piece in page.content.chunks(100) {
        scanner
            .feed(piece, &mut |sample| evaluation.take(&sample))
            .unwrap();
    }
    scanner
        .finish(true, &mut |sample| evaluation.take(&sample))
        .unwrap();
    match evaluation.finish() {
        Ok(Some(value)) => Answer::Value(value),
        Ok(None) => Answer::Nothing,
        Err(Error::Ambiguous(_)) => Answer::Ambiguous,
        Err(e) => panic!("{expression}: {e}"),
    }
}

/// A real Prometheus with the page, and the moment at which it has it.
struct Reference {
    prometheus: Prometheus,
    time: String,
}

impl Reference {
    fn start(page: &Page) -> Option<Self> {
        let mut prometheus = Prometheus::scraping(std::slice::from_ref(page))?;
        // Whatever becomes of later scrapes, at this moment the page was there.
        let time = prometheus.wait_for("a scrape", |prometheus| {
            let answer = prometheus.query("timestamp(up == 1)", None);
            Some(answer["data"]["result"][0]["value"][1].as_str()?.to_owned())
        });
        Some(Self { prometheus, time })
    }

    fn answer(&self, expression: &str) -> Answer {
        let answer = self.prometheus.query(expression, Some(&self.time));
        let number = |value: &Json| value[1].as_str().unwrap().parse::<f64>().unwrap();
        match (answer["status"].as_str(), answer["errorType"].as_str()) {
            (Some("error"), Some("bad_data")) => Answer::Refused,
            (Some("error"), Some("execution")) => Answer::Ambiguous,
            (Some("success"), _) => {
                let result = &answer["data"]["result"];
                match answer["data"]["resultType"].as_str() {
                    Some("vector") => {
                        // What it adds to each scrape, and the label that tells the page, are not of the page.
                        let series = result.as_array().unwrap().iter().filter(|series| {
                            let name = series["metric"]["__name__"].as_str().unwrap_or_default();
                            name != "up" && !name.starts_with("scrape_")
                        });
                        let values: Vec<f64> =
                            series.map(|series| number(&series["value"])).collect();
                        match values.is_empty() {
                            true => Answer::Nothing,
                            false => Answer::Value(values.iter().sum()),
                        }
                    }
                    Some("scalar") => Answer::Value(number(result)),
                    _ => Answer::Nothing,
                }
            }
            _ => panic!("{expression}: {answer}"),
        }
    }
}

#[test]
fn expressions_come_to_what_prometheus_says() {
    let page = page();
    let Some(reference) = Reference::start(&page) else {
        return;
    };
    let mut wrong = Vec::new();
    for expression in EXPRESSIONS {
        let (ours, theirs) = (ours(&page, expression), reference.answer(expression));
        if ours != theirs || ours == Answer::Refused {
            wrong.push(format!("{expression}: {ours:?} and not {theirs:?}"));
        }
    }
    for expression in REFUSED {
        let both = (ours(&page, expression), reference.answer(expression));
        if both != (Answer::Refused, Answer::Refused) {
            wrong.push(format!("{expression}: is not refused by both but {both:?}"));
        }
    }
    for expression in NOT_SUPPORTED {
        let (ours, theirs) = (ours(&page, expression), reference.answer(expression));
        if ours != Answer::Refused || theirs == Answer::Refused {
            wrong.push(format!("{expression}: {ours:?}, but {theirs:?}"));
        }
    }
    for (expression, expected, _) in DIFFERENT {
        let (ours, theirs) = (ours(&page, expression), reference.answer(expression));
        if ours != *expected || theirs == *expected {
            wrong.push(format!("{expression}: {ours:?} beside {theirs:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn generated_expressions_come_to_what_prometheus_says() {
    let page = page();
    let Some(reference) = Reference::start(&page) else {
        return;
    };
    let mut random = Random::new(5);
    let (mut values, mut nothing, mut ambiguous) = (0, 0, 0);
    for _ in 0..1000 {
        let expression = vector(&mut random, 3);
        let (ours, theirs) = (ours(&page, &expression), reference.answer(&expression));
        assert_eq!(ours, theirs, "{expression}");
        match ours {
            Answer::Value(_) => values += 1,
            Answer::Nothing => nothing += 1,
            Answer::Ambiguous => ambiguous += 1,
            Answer::Refused => panic!("{expression}"),
        }
    }
    assert!(
        values > 300 && nothing > 100 && ambiguous > 50,
        "{values} {nothing} {ambiguous}"
    );
}

const SELECTORS: &[&str] = &[
    "http_requests_in_flight",
    "http_requests_in_flight{handler=~\"/.*\"}",
    "http_requests_in_flight{method=\"GET\"}",
    "started_total",
    "started_total{code=\"200\"}",
    "finished_total",
    "workers",
    "workers{state=\"busy\"}",
    "workers_limit",
    "queue_length",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "sick",
    "twin_a",
    "twin_b",
    "twin_a{x=\"1\"}",
    "{__name__=~\"twin_.\"}",
    "{__name__=~\"started_total|finished_total\"}",
    "{method=\"GET\"}",
    "nothing",
];
const GROUPS: &[&str] = &[
    "",
    "x",
    "y",
    "x, y",
    "method",
    "code",
    "method, code",
    "state",
    "worker",
    "__name__",
    "nowhere",
];
const NUMBERS: &[&str] = &["0", "1", "2", "0.5", "-1", "(1 + 2)", "10"];

/// An expression that comes to a vector. What it divides by is never a sum of fractions, and it rounds nothing but what
/// the page says: the last bit of a number must not decide.
fn vector(random: &mut Random, depth: usize) -> String {
    if depth == 0 || random.percent(10) {
        return random.pick(SELECTORS).to_owned();
    }
    let inner = vector(random, depth - 1);
    let group = random.pick(GROUPS);
    match random.below(10) {
        0 | 1 => {
            let aggregation = random.pick(&["sum", "min", "max", "avg", "count"]);
            match random.below(4) {
                0 => format!("{aggregation}({inner})"),
                1 => format!("{aggregation}({inner}) without ({group})"),
                _ => format!("{aggregation} by ({group}) ({inner})"),
            }
        }
        2..=4 => {
            let other = vector(random, depth - 1);
            let matching = match random.below(3) {
                0 => format!("on({group}) "),
                1 => format!("ignoring({group}) "),
                _ => String::new(),
            };
            let operator = random.pick(&["+", "-", "*", "or", "and", "unless"]);
            format!("({inner}) {operator} {matching}({other})")
        }
        5 => format!(
            "({inner}) {} {}",
            random.pick(&["+", "-", "*", "/"]),
            random.pick(NUMBERS)
        ),
        6 => format!(
            "{} {} ({inner})",
            random.pick(NUMBERS),
            random.pick(&["+", "-", "*"])
        ),
        7 => format!("({inner}) / {}", random.pick(SELECTORS)),
        8 => {
            let bound = random.pick(NUMBERS);
            match random.below(4) {
                0 => format!("clamp_min({inner}, {bound})"),
                1 => format!("clamp_max({inner}, {bound})"),
                2 => format!("abs({inner})"),
                _ => format!("-({inner})"),
            }
        }
        _ => {
            let selector = random.pick(SELECTORS);
            format!(
                "{}({selector})",
                random.pick(&["ceil", "floor", "round", "abs"])
            )
        }
    }
}

use proptest::prelude::*;

use super::super::exposition::Scanner;
use super::*;

const PAGE: &str = "\
# TYPE http_requests_inprogress gauge
http_requests_inprogress{handler=\"/metrics\",method=\"GET\"} 1
http_requests_inprogress{handler=\"/work\",method=\"GET\"} 3
http_requests_inprogress{handler=\"/work\",method=\"POST\"} 4
http_requests_inprogress{method=\"PUT\"} 10
http_requests_total 99
started{method=\"GET\"} 20
started{method=\"POST\"} 30
started{method=\"PATCH\"} 40
ended{method=\"GET\",code=\"\"} 15
ended{method=\"POST\"} 28
vllm:num_requests_running{model_name=\"a\\nb\"} 2
sick NaN
sick{x=\"1\"} 5
{\"my.metric\",\"my.label\"=\"7\"} 7
";

fn on(page: &str, query: &str) -> Result<Option<f64>, Error> {
    let query = Query::parse(query).unwrap_or_else(|e| panic!("{query}: {e}"));
    let mut evaluation = query.begin();
    let mut scanner = Scanner::new(query.names(), false);
    scanner
        .feed(page.as_bytes(), &mut |sample| evaluation.take(&sample))
        .unwrap();
    scanner.finish(false, &mut |_| ()).unwrap();
    evaluation.finish()
}

fn value(query: &str) -> Option<f64> {
    on(PAGE, query).unwrap_or_else(|e| panic!("{query}: {e}"))
}

fn ambiguity(page: &str, query: &str) -> String {
    match on(page, query) {
        Err(Error::Ambiguous(what)) => what,
        other => panic!("{query}: {other:?}"),
    }
}

fn refusal(query: &str) -> String {
    match Query::parse(query) {
        Err(refusal) => refusal,
        Ok(parsed) => panic!("{query}: {parsed:?}"),
    }
}

#[test]
fn a_bare_name_sums_its_series() {
    assert_eq!(value("http_requests_inprogress"), Some(18.0));
    assert_eq!(value("vllm:num_requests_running"), Some(2.0));
    assert_eq!(value("(http_requests_inprogress)"), Some(18.0));
}

#[test]
fn all_four_matchers_choose() {
    for (matchers, sum) in [
        ("handler=\"/work\"", 7.0),
        ("handler!=\"/metrics\"", 17.0),
        ("method=~\"P.*\"", 14.0),
        ("method!~\"P.*|GE\"", 4.0),
        ("handler=\"\"", 10.0),
        ("handler=~\"|/metrics\"", 11.0),
        ("handler=~'/work', method='POST',", 4.0),
    ] {
        let query = format!("http_requests_inprogress{{{matchers}}}");
        assert_eq!(value(&query), Some(sum), "{query}");
    }
}

#[test]
fn names_are_labels_too() {
    assert_eq!(value("{__name__=\"http_requests_total\"}"), Some(99.0));
    assert_eq!(
        value("{__name__=~\"http_requests_.*\",method=~\"P.*|\"}"),
        Some(113.0)
    );
    assert_eq!(value("{__name__=~\"started|ended\"}"), Some(133.0));
    assert_eq!(
        value("{__name__!~\"started|sick\",method=\"POST\"}"),
        Some(32.0)
    );
    assert_eq!(value("{\"my.metric\"}"), Some(7.0));
    assert_eq!(value("{\"my.metric\",\"my.label\"=\"8\"}"), None);
    assert_eq!(value("{__name__=\"\",method=\"GET\"}"), None);
}

#[test]
fn patterns_are_those_of_prometheus() {
    let page = "m{path=\"/items/{id}\"} 1\nm{path=\"a\\nb\"} 2\nm{path=\"abc\"} 4\n";
    assert_eq!(on(page, "m{path=~\"/items/{id}\"}"), Ok(Some(1.0)));
    assert_eq!(on(page, "m{path=~\"a.b\"}"), Ok(Some(2.0)));
    assert_eq!(on(page, "m{path=~\"b\"}"), Ok(None));
    assert_eq!(on(page, "m{path=~\"b|a.*\"}"), Ok(Some(6.0)));
    assert!(refusal("m{path=~\"a)|(b\"}").contains("regular expression"));
    assert!(Query::parse("m{a=~\"(\"}").is_err());
}

#[test]
fn no_series_is_no_value() {
    for query in [
        "http_requests",
        "http_requests_inprogress{handler=\"/nowhere\"}",
        "sum(nothing)",
        "count(nothing)",
        "max by (a) (nothing)",
        "nothing - 1",
        "started - nothing",
        "nothing or nothing",
        "clamp_min(nothing, 0)",
        "started and nothing",
        "started unless started",
    ] {
        assert_eq!(value(query), None, "{query}");
    }
}

#[test]
fn aggregations_are_done_and_what_is_left_is_summed() {
    let m = "http_requests_inprogress";
    for (query, wanted) in [
        (format!("sum({m})"), 18.0),
        (format!("min({m})"), 1.0),
        (format!("max({m})"), 10.0),
        (format!("avg({m})"), 4.5),
        (format!("count({m})"), 4.0),
        (format!("SUM({m})"), 18.0),
        (format!("max by (handler) ({m})"), 1.0 + 4.0 + 10.0),
        (format!("max({m}) by (handler)"), 1.0 + 4.0 + 10.0),
        (format!("min without (method) ({m})"), 1.0 + 3.0 + 10.0),
        (format!("count by () ({m})"), 4.0),
        (format!("count(sum by (handler) ({m}))"), 3.0),
        (format!("max(sum by (method) ({m}))"), 10.0),
        (format!("avg by (method) ({m})"), 2.0 + 4.0 + 10.0),
        (
            "max by (__name__) ({__name__=~\"started|ended\"})".into(),
            40.0 + 28.0,
        ),
        ("max({__name__=~\"started|ended\"})".into(), 40.0),
        ("sum(sum(started))".into(), 90.0),
        ("count(sum(started))".into(), 1.0),
    ] {
        assert_eq!(value(&query), Some(wanted), "{query}");
    }
}

#[test]
fn series_are_combined_by_their_labels() {
    for (query, wanted) in [
        // PATCH has started and never ended: it has no partner and is left out.
        ("started - ended", 5.0 + 2.0),
        ("sum(started) - sum(ended)", 90.0 - 43.0),
        ("started - on(method) ended", 7.0),
        ("started + ignoring(code) ended", 35.0 + 58.0),
        ("started / ended", 20.0 / 15.0 + 30.0 / 28.0),
        (
            "started * on(method) sum by (method) (http_requests_inprogress)",
            80.0 + 120.0,
        ),
        ("max(started) - on() max(ended)", 12.0),
    ] {
        assert_eq!(value(query), Some(wanted), "{query}");
    }
}

/// The count of an expression over a page, every part of it checked.
fn counted(expression: &str, page: &str) -> Result<Option<f64>, Error> {
    let query = Query::parse(expression).unwrap();
    let mut evaluation = query.begin();
    let mut scanner = crate::inflight::exposition::Scanner::new(query.names(), false);
    let mut take = |sample: Sample<'_>| evaluation.take(&sample);
    scanner.feed(page.as_bytes(), &mut take).unwrap();
    scanner.finish(true, &mut take).unwrap();
    evaluation.count()
}

#[test]
fn parts_of_a_sum_that_are_no_count_make_the_whole_none() {
    let page = "m{w=\"1\"} 5\nm{w=\"2\"} -5\nn{w=\"1\"} NaN\nn{w=\"2\"} 0\na{w=\"1\"} 7\na{w=\"2\"} 3\nb{w=\"1\"} 3\n\
                b{w=\"2\"} 7\n";
    for (expression, part) in [
        ("m", "m{w=\"2\"} with -5"),
        ("sum(m)", "m{w=\"2\"} with -5"),
        ("sum by (w) (m)", "with -5"),
        ("max(m)", "with -5"),
        ("max(n)", "n{w=\"1\"} with NaN"),
        ("sum(m) or vector(0)", "with -5"),
        ("clamp_min(sum(m), 0)", "with -5"),
        ("a - b", "{w=\"2\"} with -4"),
        ("sum(a - b)", "{w=\"2\"} with -4"),
        ("sum(m + m)", "with -5"),
        ("sum(m - 1)", "with -6"),
    ] {
        let Err(Error::Impossible(told)) = counted(expression, page) else {
            panic!("{expression}: {:?}", counted(expression, page));
        };
        assert!(told.contains(part), "{expression}: {told}");
    }
    for (expression, count) in [
        ("count(m)", 2.0),
        ("sum(clamp_min(m, 0))", 5.0),
        ("sum(a) - sum(b)", 0.0),
        ("sum(a) + sum(-b)", 0.0),
        ("sum(20 - a)", 30.0),
        ("m{w=\"1\"}", 5.0),
    ] {
        assert_eq!(counted(expression, page), Ok(Some(count)), "{expression}");
    }
}

#[test]
fn an_expression_can_take_series_that_are_not_there_as_zero() {
    for (expression, written) in [
        ("inprogress", Some("sum(inprogress or vector(0))")),
        (
            "sum(grpc_server_started_total) - sum(grpc_server_handled_total)",
            Some(
                "sum(grpc_server_started_total or vector(0)) - sum(grpc_server_handled_total or vector(0))",
            ),
        ),
        (
            "a_total{x=~\"b|c\"} - 1",
            Some("sum(a_total{x=~\"b|c\"} or vector(0)) - 1"),
        ),
        (
            "{__name__=~\"a|b\"}",
            Some("sum({__name__=~\"a|b\"} or vector(0))"),
        ),
        ("sum(a) or vector(0)", None),
        ("avg(a)", None),
    ] {
        let query = Query::parse(expression).unwrap();
        assert_eq!(query.with_zeros().as_deref(), written, "{expression}");
        if let Some(written) = written {
            assert_eq!(
                counted(written, "x 1\n").map(|value| value.is_some()),
                Ok(true),
                "{written}"
            );
        }
    }
}

#[test]
fn arithmetic_with_numbers() {
    for (query, wanted) in [
        ("7", 7.0),
        ("-7", -7.0),
        ("1 + 2 * 3", 7.0),
        ("(1 + 2) * 3", 9.0),
        ("-1 - -2", 1.0),
        ("10 / 4", 2.5),
        ("0x10", 16.0),
        ("1e2", 100.0),
        ("vector(3)", 3.0),
        ("started - 1", 87.0),
        ("1 - started", -87.0),
        ("-started", -90.0),
        ("+started", 90.0),
        ("-(started - ended)", -7.0),
        ("vector(1) + vector(2)", 3.0),
        ("sum(started) / 2 + 1", 46.0),
        ("sum(started) - vector(5)", 85.0),
        ("2 * sum(started)", 180.0),
        ("100 / max(ended)", 100.0 / 28.0),
    ] {
        assert_eq!(value(query), Some(wanted), "{query}");
    }
    assert_eq!(value("1 / 0"), Some(f64::INFINITY));
    assert!(value("0 / 0").unwrap().is_nan());
    assert_eq!(value("started - vector(1)"), None);
}

#[test]
fn functions_work_on_each_value() {
    for (query, wanted) in [
        ("clamp_min(started - 35, 0)", 5.0),
        ("clamp_max(started, 25)", 20.0 + 25.0 + 25.0),
        ("clamp(started, 25, 35)", 25.0 + 30.0 + 35.0),
        ("abs(started - 30)", 20.0),
        ("ceil(started / 7)", 3.0 + 5.0 + 6.0),
        ("floor(started / 7)", 2.0 + 4.0 + 5.0),
        ("round(started / 8)", 3.0 + 4.0 + 5.0),
        ("round(started, 30)", 30.0 + 30.0 + 30.0),
        ("round(-started / 8)", -2.0 - 4.0 - 5.0),
    ] {
        assert_eq!(value(query), Some(wanted), "{query}");
    }
}

#[test]
fn sets_are_chosen_by_labels_without_names() {
    for (query, wanted) in [
        ("sum(nothing) or vector(0)", 0.0),
        ("sum(started) or vector(0)", 90.0),
        ("started or ended", 90.0),
        ("ended or started", 15.0 + 28.0 + 40.0),
        ("nothing or ended", 43.0),
        ("started or on() ended", 90.0),
        ("started and ended", 50.0),
        ("started unless ended", 40.0),
        ("started and on(method) http_requests_inprogress", 50.0),
        ("started unless on() nothing", 90.0),
        ("started or vector(1)", 91.0),
        ("nothing or nothing or started", 90.0),
    ] {
        assert_eq!(value(query), Some(wanted), "{query}");
    }
}

#[test]
fn no_number_makes_no_number() {
    for query in [
        "sick",
        "sum(sick)",
        "sick + 1",
        "avg(sick)",
        "clamp_min(sick, 0)",
        "round(sick)",
    ] {
        assert!(value(query).unwrap().is_nan(), "{query}");
    }
    // As Prometheus has it.
    assert_eq!(value("max(sick)"), Some(5.0));
    assert_eq!(value("min(sick)"), Some(5.0));
    assert_eq!(value("count(sick)"), Some(2.0));
    assert!(value("max(sick{x=\"\"})").unwrap().is_nan());
}

#[test]
fn a_series_twice_on_the_page_is_ambiguous() {
    let page = "m{a=\"1\",b=\"2\"} 5\nm{b=\"2\",a=\"1\",c=\"\"} 5\nn 1\nn 1\n";
    for query in ["m", "sum(m)", "max(m)", "m * 2", "m{a=\"1\"} or vector(0)"] {
        assert_eq!(
            ambiguity(page, query),
            "the page has m{a=\"1\",b=\"2\"} twice",
            "{query}"
        );
    }
    assert_eq!(on(page, "m{a=\"2\"}"), Ok(None));
    assert_eq!(ambiguity(page, "count(n)"), "the page has n{} twice");
}

#[test]
fn matching_that_is_not_one_to_one_is_ambiguous() {
    let page = "a{x=\"1\",y=\"1\"} 1\na{x=\"1\",y=\"2\"} 2\nb{x=\"1\"} 3\nc{x=\"2\"} 4\n";
    assert!(ambiguity(page, "a - on(x) b").contains("on the left of - matches {x=\"1\"}"));
    assert!(ambiguity(page, "b - on(x) a").contains("on the right of - matches {x=\"1\"}"));
    // Without partners nothing is ambiguous on the left, but it is on the right, and where there is nothing at all.
    assert_eq!(on(page, "a - on(x) c"), Ok(None));
    assert!(on(page, "c - on(x) a").is_err());
    assert_eq!(on(page, "nothing - on(x) a"), Ok(None));
}

#[test]
fn series_that_only_their_names_tell_apart_stay_apart() {
    let page = "a 1\nb 2\n";
    let both = "{__name__=~\"a|b\"}";
    assert_eq!(on(page, both), Ok(Some(3.0)));
    assert_eq!(on(page, &format!("sum({both})")), Ok(Some(3.0)));
    for query in [
        format!("{both} * 1"),
        format!("-{both}"),
        format!("abs({both})"),
        format!("{both} + on(__name__) {both}"),
    ] {
        assert!(
            ambiguity(page, &query).contains("without its metric's name"),
            "{query}"
        );
    }
}

#[test]
fn what_is_not_supported_is_refused_with_its_name_and_column() {
    for (query, refused) in [
        (
            "rate(m[5m])",
            "rate(...) at column 1: a function of time; one scrape",
        ),
        (
            "sum(rate(m[5m]))",
            "rate(...) at column 5: a function of time",
        ),
        ("m + time()", "time(...) at column 5: a function of time"),
        (
            "sum_over_time(m[1h:1m])",
            "sum_over_time(...) at column 1: a function of time",
        ),
        (
            "absent(m)",
            "absent(...) at column 1: not a function that is supported; there are abs,",
        ),
        (
            "frobnicate(m)",
            "frobnicate(...) at column 1: not a function",
        ),
        ("scalar(m)", "scalar(...) at column 1"),
        ("m[5m]", "[ at column 2: a range of time"),
        ("m[5m:1m]", "[ at column 2: a range of time"),
        ("m[1e300]", "[ at column 2: a range of time"),
        ("m offset 5m", "offset at column 3: another time than now"),
        (
            "m offset -1e300",
            "offset at column 3: another time than now",
        ),
        (
            "offset{a=\"offset\"} OFFSET 5m",
            "OFFSET at column 20: another time than now",
        ),
        ("m @ 5", "@ at column 3: another time than now"),
        ("m{a=\"@\"} @ end()", "@ at column 10"),
        ("5m", "5m at column 1: a duration"),
        ("\"a\"", "\"a\" at column 1: a text"),
        ("a > 1", "> at column 3: comparisons"),
        ("a{b!=\"1\"} != 1", "!= at column 11: comparisons"),
        ("a == bool 1", "== at column 3: comparisons"),
        ("a % 2", "% at column 3: an operator"),
        ("a ^ 2", "^ at column 3: an operator"),
        ("a atan2 b", "atan2 at column 3: an operator"),
        ("topk(1, m)", "topk at column 1: an aggregation"),
        (
            "a + stddev by (topk) (m)",
            "stddev at column 5: an aggregation",
        ),
        ("quantile(0.9, m)", "quantile at column 1: an aggregation"),
        (
            "a * on(x) group_left(y) b",
            "group_left at column 11: matching several",
        ),
        (
            "a / ignoring(x) group_right b",
            "group_right at column 17: matching several",
        ),
        ("a + fill(0) b", "fill at column 5: filling in"),
        (
            "m{a=\"1\" or b=\"2\"}",
            "or at column 9: a choice between matchers",
        ),
        ("m{a=\"é\"} # rate(x)\n + rate(m)", "rate(...) at column 23"),
    ] {
        let refusal = refusal(query);
        assert!(refusal.starts_with(refused), "{query}: {refusal}");
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_column() {
    for (query, refused) in [
        (
            "",
            "no expression found in input: it ends too early, at column 1",
        ),
        ("m{", "unexpected end of input inside braces at column 2"),
        ("sum(m", "unclosed left parenthesis at column 4"),
        ("(a) + (b", "unclosed left parenthesis at column 7"),
        ("sum(m))", "unexpected right parenthesis ')' at column 7"),
        ("m{a=\"b}", "unterminated quoted string \" at column 5"),
        ("a.b", "unexpected character after '.': 'b' at column 3"),
        ("a + 5x3", "bad number or duration syntax: 5x at column 6"),
        ("a b", "unexpected b at column 3"),
        ("a +", "it ends too early, at column 4"),
        ("a + * b", "unexpected * at column 5"),
        ("a = 5", "unexpected = at column 3"),
        ("(a, b)", "unexpected , at column 3"),
        ("()", "unexpected ) at column 2"),
        (
            "clamp_min(a,)",
            "trailing commas not allowed in function call args: unexpected ) at column 13",
        ),
        ("m{a=b}", "unexpected identifier 'b' in label matching"),
        ("m{a}", "invalid label matcher"),
        (
            "{}",
            "vector selector must contain at least one non-empty matcher",
        ),
        (
            "{a=~\".*\"}",
            "vector selector must contain at least one non-empty matcher",
        ),
        (
            "{a!=\"b\"}",
            "vector selector must contain at least one non-empty matcher",
        ),
        ("m{__name__=\"n\"}", "metric name must not be set twice"),
        (
            "sum(1)",
            "expected type vector in aggregation expression, got scalar",
        ),
        (
            "clamp_min(a, b)",
            "expected type scalar in call to function 'clamp_min', got vector",
        ),
        (
            "clamp_min(a)",
            "expected 2 argument(s) in call to 'clamp_min', got 1",
        ),
        ("clamp(a, 2, 1)", "clamp(...) has nothing between 2 and 1"),
        ("1 or 2", "set operator 'or' not allowed"),
        (
            "a + on(x) 1",
            "vector matching only allowed between vectors",
        ),
    ] {
        let refusal = refusal(query);
        assert!(refusal.starts_with(refused), "{query}: {refusal}");
    }
    assert!(refusal(&"a+".repeat(600)).contains("more than 1000 parts"));
    assert!(refusal(&" ".repeat(5000)).contains("longer than"));
}

#[test]
fn words_of_the_language_are_names_where_the_language_allows_it() {
    let page = "sum 1\noffset 2\nby{on=\"1\"} 4\nand{by=\"x\",sum=\"y\"} 8\nfill 16\n";
    for (query, wanted) in [
        ("sum", 1.0),
        ("sum(sum)", 1.0),
        ("offset", 2.0),
        ("by", 4.0),
        ("and and and", 8.0),
        ("and or by", 12.0),
        ("sum by (by, sum) (and)", 8.0),
        ("sum + on() offset", 3.0),
        ("fill", 16.0),
    ] {
        assert_eq!(on(page, query), Ok(Some(wanted)), "{query}");
    }
}

#[test]
fn deep_nesting_is_parsed_or_refused_but_never_fatal() {
    for query in [
        format!("{}m{}", "(".repeat(490), ")".repeat(490)),
        format!("{}m", "-".repeat(900)),
        format!("m{}", "+m".repeat(450)),
        format!("{}m{}", "abs(".repeat(300), ")".repeat(300)),
    ] {
        assert!(on("m 1\n", &query).is_ok(), "{query}");
    }
}

#[test]
fn names_are_known_where_they_can_be() {
    for (query, wanted) in [
        ("b - a", vec!["a", "b"]),
        ("a + sum(a)", vec!["a"]),
        ("{__name__=~\"a|b\"}", vec!["a", "b"]),
        (
            "{__name__=~\"(x|y)_total\",a=\"b\"}",
            vec!["x_total", "y_total"],
        ),
        ("{a=\"b\"} + c", vec!["c"]),
        ("{__name__=~\"a.*\"}", vec![]),
        ("1", vec![]),
    ] {
        let query = Query::parse(query).unwrap();
        let mut found = query.wanted();
        found.sort_unstable();
        assert_eq!(found, wanted, "{query:?}");
    }
    let every = |query: &str| matches!(Query::parse(query).unwrap().names(), Names::Any);
    assert!(
        every("{a=\"b\"} + c")
            && every("{__name__=~\"a.*\"}")
            && every("{b=\"c\",__name__!=\"a\"}")
    );
    assert!(!every("b - a") && !every("{__name__=~\"a|b\"}") && !every("1"));
}

#[test]
fn memory_is_bounded_by_what_matches_and_that_is_bounded() {
    let query = |text: &str| Query::parse(text).unwrap();
    let fill = |query: &Query, count: usize, label: &str| -> Result<Option<f64>, Error> {
        let mut evaluation = query.begin();
        for i in 0..count {
            let labels = [
                ("i".to_owned(), i.to_string()),
                ("x".to_owned(), label.to_owned()),
            ];
            evaluation.take(&Sample {
                name: "m",
                labels: &labels,
                value: 1.0,
            });
            let kept: usize = evaluation
                .matches
                .iter()
                .map(|found| found.series.len())
                .sum();
            assert!(
                kept <= MOST_SERIES && evaluation.memory <= MOST_MEMORY + 2 * label.len() + 256
            );
            assert!(kept == 0 || query.selections[0].total.is_none());
        }
        evaluation.finish()
    };
    assert_eq!(fill(&query("m"), MOST_SERIES, ""), Ok(Some(1e5)));
    assert_eq!(fill(&query("m"), MOST_SERIES + 1, ""), Err(Error::TooMany));
    assert_eq!(fill(&query("m * 2"), 50_000, ""), Ok(Some(1e5)));
    let long = "x".repeat(10_000);
    assert_eq!(fill(&query("sum(m)"), 5000, &long), Ok(Some(5000.0)));
    assert_eq!(fill(&query("m * 2"), 5000, &long), Err(Error::TooMany));
}

/// Text made of the language's own pieces, most of which is nearly an expression.
fn nearly() -> impl Strategy<Value = String> {
    let pieces = proptest::sample::select(vec![
        "a",
        "b{c=\"d\"}",
        "sum",
        "by",
        "without",
        "(",
        ")",
        "{",
        "}",
        "[5m]",
        "[",
        "]",
        "offset",
        "1",
        "1e300",
        "5m",
        "+",
        "-",
        "*",
        "/",
        "%",
        "^",
        "==",
        "!=",
        ">",
        "bool",
        "on",
        "ignoring",
        "group_left",
        "fill",
        "(a)",
        "(m)",
        "and",
        "or",
        "unless",
        "atan2",
        "@",
        ",",
        "\"s\"",
        "'",
        "`",
        "\\",
        "#",
        "\n",
        "clamp_min(",
        "rate(",
        "time()",
        "vector(1)",
        "start",
        "=~",
        "=",
        ":",
        ".",
        "0x",
        "inf",
        "NaN",
        "topk(",
        "é",
        "x:y",
        "{__name__=~\"a|b\"}",
    ]);
    proptest::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.join(" "))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_survived(text in ".{0,60}") {
        let _ = Query::parse(&text);
    }

    #[test]
    fn anything_like_an_expression_is_survived(text in nearly()) {
        let _ = Query::parse(&text);
    }

    #[test]
    fn what_the_parser_takes_the_tokens_take(text in nearly()) {
        let reviewed = Tokens::of(&text).map(Tokens::review);
        // What is refused never gets to the parser, and had better not: "a offset inf" makes it panic.
        if !matches!(reviewed, Ok(Err(SyntaxError::Unsupported(_)))) && parser::parse(&text).is_ok() {
            prop_assert!(matches!(reviewed, Ok(Ok(_))), "{reviewed:?}");
        }
        if let Err(refusal) = Query::parse(&text) {
            prop_assert_ne!(refusal, node::unsupported());
        }
    }
}

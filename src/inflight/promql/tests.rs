mod any_text;
mod refused;

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

//! What is refused, and with which words.

use super::*;

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

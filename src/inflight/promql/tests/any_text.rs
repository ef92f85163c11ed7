//! Whatever is written and whatever matches: nothing is fatal, and memory is bounded.

use proptest::prelude::*;

use super::*;

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

//! An expression comes to the same whether the page is scanned for the names that it says it needs or for all.
//!
//! The input is an expression, a zero byte, and a page; without a page there is a small one.

#![no_main]

use gracekeeper::inflight::exposition::{Error, Names, Scanner};
use gracekeeper::inflight::promql::Query;
use libfuzzer_sys::fuzz_target;

const PAGE: &str = "a 1\nb{c=\"d\"} 2\nb{c=\"e\",x=\"1\"} 3\nx:y{le=\"+Inf\"} NaN\nm{a=\"\"} -4\nm{a=\"b\"} 5e300\n";

fuzz_target!(|input: &str| {
    let (text, page) = input.split_once('\0').unwrap_or((input, PAGE));
    let Ok(query) = Query::parse(text) else {
        return;
    };
    // Who asks for every line asks for a good page.
    if let Ok(every) = value(&query, &Names::Any, page) {
        assert_eq!(value(&query, query.names(), page), Ok(every), "{text}");
    }
});

/// What it comes to, in words, since NaN is not equal to itself.
fn value(query: &Query, names: &Names, page: &str) -> Result<String, Error> {
    let mut evaluation = query.begin();
    let mut scanner = Scanner::new(names, false);
    scanner.feed(page.as_bytes(), &mut |sample| evaluation.take(&sample))?;
    scanner.finish(true, &mut |sample| evaluation.take(&sample))?;
    Ok(format!("{:?}", evaluation.finish()))
}

//! Metrics pages of 1, 10 and 100 MB of which four lines matter, beside the crate prometheus-parse on the same bytes.
//!
//! Target: 1 GB/s or more on one core and five times prometheus-parse, in the same memory whatever the page's size.

use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput};
use gracekeeper::inflight::exposition::Scanner;
use gracekeeper::inflight::promql::Query;
use prometheus_parse::{Scrape, Value};

use super::{group, measure};

/// As much as comes over a connection at once.
const PIECE: usize = 16 * 1024;
const WANTED: f64 = 11.0;

const ONE: &str = r#"sum(http_requests_inprogress{handler!="/metrics"})"#;
const TWO: &str = "sum(jobs_started_total) - sum(jobs_finished_total)";

pub fn bench(criterion: &mut Criterion) {
    let (one, two) = (Query::parse(ONE).unwrap(), Query::parse(TWO).unwrap());
    for megabytes in [1, 10, 100] {
        let (text, open) = (page(megabytes, false), page(megabytes, true));
        let mut group = group(criterion, &format!("a metrics page of {megabytes} MB"));
        group.throughput(Throughput::BytesDecimal(text.len() as u64));
        let ours = [
            ("one name", &one, &text, false),
            ("one name, OpenMetrics", &one, &open, true),
            ("two names", &two, &text, false),
        ];
        for (what, query, page, open_metrics) in ours {
            measure(&mut group, what, || {
                assert_eq!(read(query, black_box(page), open_metrics), WANTED);
            });
        }
        measure(&mut group, "prometheus-parse", || {
            assert_eq!(theirs(black_box(&text)), WANTED);
        });
        group.finish();
    }
}

/// Reads a page as a source does.
fn read(query: &Query, page: &str, open_metrics: bool) -> f64 {
    let mut evaluation = query.begin();
    let mut scanner = Scanner::new(query.names(), open_metrics);
    for piece in page.as_bytes().chunks(PIECE) {
        let fed = scanner.feed(piece, &mut |sample| evaluation.take(&sample));
        fed.unwrap();
    }
    let finished = scanner.finish(true, &mut |sample| evaluation.take(&sample));
    finished.unwrap();
    evaluation.finish().unwrap().unwrap()
}

/// The same sum, from all that prometheus-parse makes of the page.
fn theirs(page: &str) -> f64 {
    let scrape = Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).unwrap();
    let wanted = scrape.samples.iter().filter(|sample| {
        sample.metric == "http_requests_inprogress"
            && sample.labels.get("handler") != Some("/metrics")
    });
    wanted
        .map(|sample| match sample.value {
            Value::Gauge(value) => value,
            ref other => panic!("{other:?} is no gauge"),
        })
        .sum()
}

/// A page of histograms, as long as asked for, with a few series of what matters in its middle.
fn page(megabytes: usize, open_metrics: bool) -> String {
    let length = megabytes * 1_000_000;
    let mut page = String::with_capacity(length + 10_000);
    let mut histograms = (0..).map(histogram);
    let mut fill = |page: &mut String, length: usize| {
        while page.len() < length {
            page.extend(histograms.next());
        }
    };
    fill(&mut page, length / 2);
    page.push_str(
        "# HELP http_requests_inprogress Number of HTTP requests in progress.\n\
         # TYPE http_requests_inprogress gauge\n\
         http_requests_inprogress{handler=\"/api/orders\",method=\"GET\"} 8.0\n\
         http_requests_inprogress{handler=\"/api/orders\",method=\"POST\"} 3.0\n\
         http_requests_inprogress{handler=\"/metrics\",method=\"GET\"} 1.0\n\
         # HELP jobs_started Jobs that began.\n\
         # TYPE jobs_started counter\n\
         jobs_started_total{queue=\"mail\"} 1011.0\n\
         # HELP jobs_finished Jobs that ended.\n\
         # TYPE jobs_finished counter\n\
         jobs_finished_total{queue=\"mail\"} 1000.0\n",
    );
    fill(&mut page, length);
    if open_metrics {
        page.push_str("# EOF\n");
    }
    page
}

/// How long the requests of one handler took.
fn histogram(family: usize) -> String {
    let mut page = String::new();
    let name = format!("http_request_duration_{family}_seconds");
    let _ = writeln!(page, "# HELP {name} How long requests took.");
    let _ = writeln!(page, "# TYPE {name} histogram");
    for method in ["GET", "POST"] {
        let labels = format!("handler=\"/api/v1/orders/:id/items\",method=\"{method}\"");
        for (n, bound) in ["0.01", "0.1", "0.5", "1.0", "5.0", "+Inf"]
            .iter()
            .enumerate()
        {
            let count = n * 100 + family % 100;
            let _ = writeln!(page, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}.0");
        }
        let _ = writeln!(page, "{name}_count{{{labels}}} {}.0", 500 + family % 100);
        let _ = writeln!(page, "{name}_sum{{{labels}}} 1234.56789");
    }
    page
}

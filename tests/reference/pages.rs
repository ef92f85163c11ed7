//! The pages kept as files, of real software and of malice, read by three.

use std::collections::BTreeMap;

use super::prometheus::{PAGE, Prometheus};
use super::python::Python;
use super::scan::{Page, Read, Sample, ours, pages};

/// How two readers of a page can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    WeRefuse,
    TheyRefuse,
    Values,
}
use Difference::{TheyRefuse, Values, WeRefuse};

/// The pages on which prometheus_client differs from us, and why that is so.
const PYTHON: &[(&str, Difference, &str)] = &[
    (
        "nasty-blank-line.openmetrics",
        TheyRefuse,
        "blank lines are not OpenMetrics, but do no harm",
    ),
    ("nasty-comment.openmetrics", TheyRefuse, "nor are comments"),
    (
        "nasty-comments-like-samples.text",
        TheyRefuse,
        "it reads a TYPE without its name as more than a comment",
    ),
    (
        "nasty-crlf.openmetrics",
        TheyRefuse,
        "Windows line ends are not OpenMetrics, but do no harm",
    ),
    (
        "nasty-double-blanks.openmetrics",
        TheyRefuse,
        "nor are two blanks",
    ),
    (
        "nasty-interleaved.openmetrics",
        TheyRefuse,
        "nor is one family in two places",
    ),
    (
        "nasty-label-name-with-colon.text",
        WeRefuse,
        "it takes for a label what could be a metric; Prometheus does not",
    ),
    (
        "nasty-label-names.text",
        TheyRefuse,
        "two underscores are reserved, but not forbidden",
    ),
    (
        "nasty-leading-comma.text",
        WeRefuse,
        "it is laxer than the format",
    ),
    ("nasty-something-after-timestamp.text", WeRefuse, "likewise"),
    (
        "nasty-tabs.openmetrics",
        TheyRefuse,
        "tabs are not OpenMetrics, but do no harm",
    ),
    (
        "nasty-trailing-comma.openmetrics",
        TheyRefuse,
        "nor are trailing commas",
    ),
    (
        "nasty-types-unknown.text",
        TheyRefuse,
        "the types are nothing to us",
    ),
    (
        "php-fpm.openmetrics",
        TheyRefuse,
        "the names of two families clash; Prometheus does not mind either",
    ),
    (
        "prom-client.openmetrics",
        TheyRefuse,
        "it stumbles over a quote in an exemplar",
    ),
];

/// The pages on which Prometheus differs from us, and why that is so.
const PROMETHEUS: &[(&str, Difference, &str)] = &[
    (
        "nasty-blank-line.openmetrics",
        TheyRefuse,
        "blank lines are not OpenMetrics, but do no harm",
    ),
    ("nasty-comment.openmetrics", TheyRefuse, "nor are comments"),
    (
        "nasty-crlf.openmetrics",
        TheyRefuse,
        "Windows line ends are not OpenMetrics, but do no harm",
    ),
    ("nasty-crlf.text", TheyRefuse, "nor the text format"),
    (
        "nasty-double-blanks.openmetrics",
        TheyRefuse,
        "two blanks are not OpenMetrics, but do no harm",
    ),
    (
        "nasty-duplicate-series-reordered.text",
        Values,
        "of two it keeps the first; to our expressions the page is ambiguous",
    ),
    ("nasty-duplicate-series.text", Values, "likewise"),
    (
        "nasty-exemplar-in-text-format.text",
        TheyRefuse,
        "exemplars are OpenMetrics only, but do no harm",
    ),
    (
        "nasty-float-timestamp.text",
        TheyRefuse,
        "so are fractions in timestamps",
    ),
    (
        "nasty-formfeed.text",
        TheyRefuse,
        "a form feed is no blank in the format, but does no harm",
    ),
    (
        "nasty-labels-without-comma.text",
        WeRefuse,
        "it is laxer than the format",
    ),
    (
        "nasty-leading-blanks.text",
        TheyRefuse,
        "it takes them for a part of the name",
    ),
    (
        "nasty-quoted-labels.text",
        TheyRefuse,
        "names in quotes came with version 3",
    ),
    ("nasty-quoted-names.openmetrics", TheyRefuse, "likewise"),
    ("nasty-quoted-names.text", TheyRefuse, "likewise"),
    (
        "nasty-raw-newline-in-label.text",
        WeRefuse,
        "the format wants line ends escaped; taking one raw would mean to look for quotes in every line",
    ),
    (
        "nasty-several-points.openmetrics",
        Values,
        "of two it keeps the first; to our expressions the page is ambiguous",
    ),
    (
        "nasty-tabs.openmetrics",
        TheyRefuse,
        "tabs are not OpenMetrics, but do no harm",
    ),
    (
        "nasty-timestamps.text",
        TheyRefuse,
        "it knows no time before 1970",
    ),
    (
        "nasty-trailing-comma.openmetrics",
        TheyRefuse,
        "trailing commas are not OpenMetrics, but do no harm",
    ),
    (
        "nasty-types-unknown.text",
        TheyRefuse,
        "the types are nothing to us",
    ),
];

fn difference(ours: &Read, theirs: &Read) -> Option<Difference> {
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) if ours == theirs => None,
        (Ok(_), Ok(_)) => Some(Values),
        (Ok(_), Err(_)) => Some(TheyRefuse),
        (Err(_), Ok(_)) => Some(WeRefuse),
        (Err(_), Err(_)) => None,
    }
}

fn compare(
    them: &str,
    listed: &[(&str, Difference, &str)],
    read: impl FnMut(&Page) -> (Read, Read),
) {
    let mut read = read;
    let mut wrong = Vec::new();
    for page in pages() {
        let (ours, theirs) = read(&page);
        let expected = listed.iter().find(|(name, ..)| *name == page.name);
        let expected = expected.map(|&(_, difference, _)| difference);
        let found = difference(&ours, &theirs);
        if found != expected {
            wrong.push(format!(
                "{}: {found:?} and not {expected:?}\n  ours: {}\n  {them}: {}",
                page.name,
                shown(&ours),
                shown(&theirs)
            ));
        }
    }
    for (name, ..) in listed {
        if pages().iter().all(|page| page.name != *name) {
            wrong.push(format!("{name} is listed, but there is no such page"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn shown(read: &Read) -> String {
    let text = match read {
        Ok(samples) => format!("{samples:?}"),
        Err(why) => format!("refused, {why}"),
    };
    text.chars().take(400).collect()
}

#[test]
fn there_are_pages() {
    let pages = pages();
    let nasty = pages
        .iter()
        .filter(|page| page.name.starts_with("nasty-"))
        .count();
    assert!(
        nasty >= 60 && pages.len() - nasty >= 30,
        "{} and {nasty}",
        pages.len()
    );
}

#[test]
fn pages_read_as_prometheus_client_reads_them() {
    let mut python = Python::start();
    compare("prometheus_client", PYTHON, |page| {
        (ours(page), python.read(page))
    });
}

#[test]
fn pages_read_as_prometheus_reads_them() {
    let pages = pages();
    let Some(mut prometheus) = Prometheus::scraping(&pages) else {
        return;
    };
    let theirs = prometheus.wait_for("a moment when all pages are there", |prometheus| {
        prometheus.targets()?;
        let answer = prometheus.query(&format!("{{{PAGE}!=\"\"}}"), None);
        // Each target's latest scrape was in time, and so none has made the series of the one before stale.
        let targets = prometheus.targets()?;
        let mut read: BTreeMap<String, Read> = (targets.into_iter())
            .map(|(page, refused)| (page, refused.map_or(Ok(Vec::new()), Err)))
            .collect();
        for series in answer["data"]["result"].as_array()? {
            let mut labels: BTreeMap<String, String> =
                serde_json::from_value(series["metric"].clone()).ok()?;
            let page = labels.remove(PAGE)?;
            let name = labels.remove("__name__")?;
            let value: f64 = series["value"][1].as_str()?.parse().ok()?;
            if let Ok(samples) = read.get_mut(&page)? {
                samples.push((name, labels.into_iter().collect(), value.into()));
            }
        }
        read.values_mut()
            .flatten()
            .for_each(|samples| samples.sort());
        Some(read)
    });
    compare("Prometheus", PROMETHEUS, |page| {
        let (ours, theirs) = (ours(page), theirs[&page.name].clone());
        (ours.map(as_series), theirs.map(as_series))
    });
}

/// What Prometheus adds to each scrape.
const OF_ITS_OWN: [&str; 5] = [
    "up",
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
];

/// As far as Prometheus can tell: an empty label is none, and what it calls like series of its own is lost.
fn as_series(samples: Vec<Sample>) -> Vec<Sample> {
    let mut series: Vec<Sample> = (samples.into_iter())
        .filter(|(name, ..)| !OF_ITS_OWN.contains(&name.as_str()))
        .map(|(name, mut labels, value)| {
            labels.retain(|(_, value)| !value.is_empty());
            (name, labels, value)
        })
        .collect();
    series.sort();
    series
}

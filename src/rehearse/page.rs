//! The app's metrics page: which preset reads it, and which of its gauges counts requests in flight.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use tokio::time::{sleep, timeout};

use super::clients::Seen;
use crate::fetch::{Client, Url};
use crate::inflight::presets::{self, Preset};
use crate::inflight::{Meter, ReadContext, Source};

/// How long one read may take.
const LIMIT: Duration = Duration::from_secs(1);

/// The most that is read of a page, in bytes.
const LONGEST: usize = 4 * 1024 * 1024;

/// How often the gauges are compared with what the clients have in flight.
const SAMPLES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(60);

/// What a name of such a gauge has in it.
const WORDS: [&str; 6] = [
    "in_flight",
    "inflight",
    "in_progress",
    "inprogress",
    "active_requests",
    "requests_active",
];

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Such as `/metrics`.
    pub path: String,
    /// The name of a preset that reads it.
    pub preset: Option<&'static str>,
    /// The series of a gauge that counts requests in flight, by its name or by its value under load.
    pub gauge: Option<String>,
}

/// Looks at the pages that presets name.
pub async fn look(app: SocketAddr, seen: &Seen) -> Option<Page> {
    let mut paths: Vec<&str> = vec!["/metrics"];
    let of_prometheus = presets::ALL
        .iter()
        .filter(|preset| preset.kind == "prometheus+http");
    paths.extend(of_prometheus.map(|preset| preset.path));
    let mut asked = Vec::new();
    for path in paths {
        if asked.contains(&path) {
            continue;
        }
        asked.push(path);
        if let Some(page) = read(app, path)
            .await
            .filter(|page| page.contains("# TYPE "))
        {
            let preset = preset(app, path).await;
            let gauge = gauge(app, path, &page, seen).await;
            return Some(Page {
                path: path.to_owned(),
                preset,
                gauge,
            });
        }
    }
    None
}

/// The first preset whose expression has a value on that page.
async fn preset(app: SocketAddr, path: &str) -> Option<&'static str> {
    let fits = |preset: &&Preset| preset.path == path && preset.kind == "prometheus+http";
    let context = ReadContext {
        client: Client::default(),
        read_timeout: LIMIT,
        quiet_period: LIMIT,
        max_quiet: LIMIT,
        max_inflight: 0.0,
        app_ports: BTreeSet::new(),
        auto: None,
    };
    for preset in presets::ALL.iter().filter(fits) {
        let source = Source::parse(&preset.expand(&app.to_string()).ok()?).ok()?;
        let meter = Meter::new(source, context.clone());
        if meter.check().await.is_ok() {
            return Some(preset.name);
        }
    }
    None
}

async fn gauge(app: SocketAddr, path: &str, page: &str, seen: &Seen) -> Option<String> {
    let named =
        (gauges(page).into_keys()).find(|name| WORDS.iter().any(|word| name.contains(word)));
    if named.is_some() {
        return named;
    }
    let mut close: BTreeMap<String, u32> = BTreeMap::new();
    let mut busy = 0;
    for _ in 0..SAMPLES {
        let before = seen.counts().2;
        let page = read(app, path).await?;
        let in_flight = before.midpoint(seen.counts().2);
        // With few requests in flight any gauge may have the same value.
        if in_flight >= 3 {
            busy += 1;
            for (name, value) in gauges(&page) {
                let near = (value - in_flight as f64).abs() <= (in_flight as f64 * 0.3).max(1.5);
                *close.entry(name).or_default() += u32::from(near);
            }
        }
        sleep(PAUSE).await;
    }
    let always = close
        .into_iter()
        .filter(|(_, times)| *times == busy && busy >= SAMPLES - 1);
    always.map(|(name, _)| name).next()
}

/// The gauges of a page, each with the sum of its series.
fn gauges(page: &str) -> BTreeMap<String, f64> {
    let types = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"));
    let mut sums: BTreeMap<String, f64> = types.map(|name| (name.to_owned(), 0.0)).collect();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let end = line.find(['{', ' ']).unwrap_or(line.len());
        let value = line
            .rsplit(' ')
            .next()
            .and_then(|value| value.parse::<f64>().ok());
        if let (Some(sum), Some(value)) = (sums.get_mut(&line[..end]), value) {
            *sum += value;
        }
    }
    sums
}

async fn read(app: SocketAddr, path: &str) -> Option<String> {
    let url = Url::parse(&format!("http://{app}{path}")).ok()?;
    let read = async {
        let client = Client::default();
        let exchange = client
            .send(http::Method::GET, &url, "text/plain")
            .await
            .ok()?;
        if !exchange.answer.status().is_success() {
            return None;
        }
        let body = Limited::new(exchange.answer.into_body(), LONGEST)
            .collect()
            .await
            .ok()?;
        String::from_utf8(body.to_bytes().to_vec()).ok()
    };
    timeout(LIMIT, read).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_a_gauge_are_summed_and_counters_are_left_out() {
        let page =
            "# HELP a A\n# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3\n# TYPE b counter\nb 7\n";
        assert_eq!(gauges(page), BTreeMap::from([("a".to_owned(), 5.0)]));
    }
}

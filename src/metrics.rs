//! Our own metrics, as Prometheus text.

use std::time::Duration;

use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};

use crate::drain::{AppEnd, Outcome, Phase, Verdict};
use crate::inflight::ReadResult;
use crate::traffic::TrafficCounts;

/// Upper bounds of the buckets of a drain's length, in seconds: about the default grace period and well beyond.
const DRAIN_SECONDS: [f64; 12] = [
    1.0, 2.0, 5.0, 7.5, 10.0, 15.0, 20.0, 25.0, 30.0, 60.0, 300.0, 1800.0,
];

/// The registry and what is in it.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    phase: GaugeVec,
    phase_seconds: Gauge,
    inflight: GaugeVec,
    source_up: GaugeVec,
    reads: IntCounterVec,
    hooks: IntCounterVec,
    drains: IntCounterVec,
    drain_seconds: Histogram,
    app_stop_seconds: Histogram,
    apps_killed: IntCounter,
    arrivals: IntCounter,
    cut: IntCounter,
    monitors: IntGauge,
    deadline_seconds: Gauge,
    mistakes: Gauge,
}

impl Metrics {
    /// A fresh registry; `budget` is the longest a drain may take, in seconds.
    ///
    /// # Errors
    /// Never with the names below.
    pub fn new(budget: f64) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let gauge =
            |name: &str, help: &str, label: &str| GaugeVec::new(Opts::new(name, help), &[label]);
        let counter = |name: &str, help: &str, labels: &[&str]| {
            IntCounterVec::new(Opts::new(name, help), labels)
        };
        let metrics = Self {
            phase: gauge(
                "gracekeeper_phase",
                "1 for the phase the pod is in.",
                "phase",
            )?,
            phase_seconds: Gauge::new(
                "gracekeeper_phase_seconds",
                "How long the pod has been in its phase.",
            )?,
            inflight: gauge(
                "gracekeeper_inflight",
                "Requests in flight at the last read; absent if unknown.",
                "source",
            )?,
            source_up: gauge(
                "gracekeeper_source_up",
                "Whether the last read of the source gave a count.",
                "source",
            )?,
            reads: counter(
                "gracekeeper_reads_total",
                "Reads of a source, by result.",
                &["source", "result"],
            )?,
            hooks: counter(
                "gracekeeper_hooks_total",
                "preStop hooks called.",
                &["hook"],
            )?,
            drains: counter(
                "gracekeeper_drains_total",
                "Drains that ended, by outcome.",
                &["outcome"],
            )?,
            drain_seconds: Histogram::with_opts(
                HistogramOpts::new("gracekeeper_drain_seconds", "How long drains took.")
                    .buckets(DRAIN_SECONDS.into()),
            )?,
            app_stop_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "gracekeeper_app_stop_seconds",
                    "How long apps took to end after a handover.",
                )
                .buckets(DRAIN_SECONDS.into()),
            )?,
            apps_killed: IntCounter::new(
                "gracekeeper_apps_killed_total",
                "Apps that had not ended after a handover by the end of the grace period.",
            )?,
            arrivals: IntCounter::new(
                "gracekeeper_arrivals_total",
                "Requests that arrived while a drain ran, those of monitors left out.",
            )?,
            cut: IntCounter::new(
                "gracekeeper_requests_cut_total",
                "Requests whose connection ended without an answer after the hook was answered.",
            )?,
            monitors: IntGauge::new(
                "gracekeeper_monitors",
                "Callers with a steady beat, such as scrapes and health checks, in the drain that runs or the last one.",
            )?,
            deadline_seconds: Gauge::new(
                "gracekeeper_drain_deadline_seconds",
                "The longest a drain may take.",
            )?,
            mistakes: Gauge::new(
                "gracekeeper_config_mistakes",
                "Mistakes in the flags or the environment, for which defaults were taken.",
            )?,
            registry,
        };
        let build = gauge(
            "gracekeeper_build_info",
            "1, with the version as a label.",
            "version",
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1.0);
        metrics.deadline_seconds.set(budget);
        for outcome in Outcome::ALL {
            metrics.drains.with_label_values(&[outcome.name()]);
        }
        for hook in ["app", "self"] {
            metrics.hooks.with_label_values(&[hook]);
        }
        let registry = &metrics.registry;
        registry.register(Box::new(metrics.phase.clone()))?;
        registry.register(Box::new(metrics.phase_seconds.clone()))?;
        registry.register(Box::new(metrics.inflight.clone()))?;
        registry.register(Box::new(metrics.source_up.clone()))?;
        registry.register(Box::new(metrics.reads.clone()))?;
        registry.register(Box::new(metrics.hooks.clone()))?;
        registry.register(Box::new(metrics.drains.clone()))?;
        registry.register(Box::new(metrics.drain_seconds.clone()))?;
        registry.register(Box::new(metrics.app_stop_seconds.clone()))?;
        registry.register(Box::new(metrics.apps_killed.clone()))?;
        registry.register(Box::new(metrics.arrivals.clone()))?;
        registry.register(Box::new(metrics.cut.clone()))?;
        registry.register(Box::new(metrics.monitors.clone()))?;
        registry.register(Box::new(metrics.deadline_seconds.clone()))?;
        registry.register(Box::new(metrics.mistakes.clone()))?;
        registry.register(Box::new(build))?;
        Ok(metrics)
    }

    /// So many mistakes were made, and defaults taken.
    pub fn mistakes(&self, number: usize) {
        self.mistakes.set(number as f64);
    }

    /// A preStop hook was called: `app` or `self`.
    pub fn hook(&self, hook: &str) {
        self.hooks.with_label_values(&[hook]).inc();
    }

    /// A source was read.
    pub fn read(&self, source: &str, reading: ReadResult) {
        let (result, up) = match reading {
            Ok(inflight) => {
                self.inflight.with_label_values(&[source]).set(inflight);
                ("ok", 1.0)
            }
            Err(kind) => {
                // A gauge that stood at its last value would pass the unknown off as known.
                let _ = self.inflight.remove_label_values(&[source]);
                (kind, 0.0)
            }
        };
        self.source_up.with_label_values(&[source]).set(up);
        self.reads.with_label_values(&[source, result]).inc();
    }

    /// The drain that runs may take this long.
    pub fn deadline_changed(&self, budget: Duration) {
        self.deadline_seconds.set(budget.as_secs_f64());
    }

    /// A drain ended.
    pub fn drained(&self, verdict: &Verdict) {
        self.drains
            .with_label_values(&[verdict.outcome.name()])
            .inc();
        self.drain_seconds.observe(verdict.took.as_secs_f64());
    }

    /// The app has ended after a handover, or had not by the end of the grace period.
    pub fn app_ended(&self, end: AppEnd) {
        self.app_stop_seconds.observe(end.took.as_secs_f64());
        if end.killed {
            self.apps_killed.inc();
        }
    }

    /// A counter of requests was read: whether that gave a value, or why not.
    pub fn counter_read(&self, source: &str, reading: ReadResult) {
        let (result, up) = match reading {
            Ok(_) => ("ok", 1.0),
            Err(kind) => (kind, 0.0),
        };
        self.source_up.with_label_values(&[source]).set(up);
        self.reads.with_label_values(&[source, result]).inc();
    }

    /// The page; the pod has been in its phase for so long. A pod is often gone before a drain's end is scraped, so an
    /// alert on a drain that takes too long needs to see it run.
    ///
    /// # Errors
    /// When it cannot be encoded.
    pub fn page(
        &self,
        phase: Phase,
        lasted: Duration,
        seen: TrafficCounts,
        monitors: usize,
    ) -> prometheus::Result<String> {
        self.phase_seconds.set(lasted.as_secs_f64());
        for (counter, total) in [
            (&self.arrivals, seen.arrivals_total),
            (&self.cut, seen.cut_total),
        ] {
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.monitors
            .set(i64::try_from(monitors).unwrap_or(i64::MAX));
        for each in Phase::ALL {
            self.phase
                .with_label_values(&[each.name()])
                .set(if each == phase { 1.0 } else { 0.0 });
        }
        let mut page = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut page)?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_happened() {
        let metrics = Metrics::new(25.0).unwrap();
        metrics.hook("app");
        metrics.drained(&crate::drain::testing::verdict());
        metrics.read("a", Ok(3.0));
        metrics.counter_read("b", Ok(70.0));
        metrics.app_ended(AppEnd {
            took: Duration::from_secs(4),
            killed: true,
        });
        let page = metrics
            .page(
                Phase::Draining,
                Duration::from_millis(1500),
                TrafficCounts {
                    arrivals_total: 7,
                    ..TrafficCounts::default()
                },
                2,
            )
            .unwrap();
        for line in [
            "gracekeeper_phase{phase=\"draining\"} 1",
            "gracekeeper_phase{phase=\"serving\"} 0",
            "gracekeeper_phase_seconds 1.5",
            "gracekeeper_hooks_total{hook=\"app\"} 1",
            "gracekeeper_inflight{source=\"a\"} 3",
            "gracekeeper_source_up{source=\"a\"} 1",
            "gracekeeper_reads_total{result=\"ok\",source=\"a\"} 1",
            "gracekeeper_drains_total{outcome=\"app-gone\"} 0",
            "gracekeeper_drains_total{outcome=\"drained\"} 1",
            "gracekeeper_drain_seconds_bucket{le=\"2\"} 0",
            "gracekeeper_drain_seconds_bucket{le=\"5\"} 1",
            "gracekeeper_drain_deadline_seconds 25",
            "gracekeeper_source_up{source=\"b\"} 1",
            "gracekeeper_drains_total{outcome=\"handed-over\"} 0",
            "gracekeeper_app_stop_seconds_sum 4",
            "gracekeeper_apps_killed_total 1",
            "gracekeeper_arrivals_total 7",
            "gracekeeper_requests_cut_total 0",
            "gracekeeper_monitors 2",
            concat!(
                "gracekeeper_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(page.lines().any(|l| l == line), "{line} in\n{page}");
        }
        assert!(!page.contains("gracekeeper_inflight{source=\"b\"}"));
    }

    #[test]
    fn an_unknown_count_is_absent_and_not_the_last_one() {
        let metrics = Metrics::new(25.0).unwrap();
        metrics.read("a", Ok(3.0));
        metrics.read("a", Err("timeout"));
        let page = metrics
            .page(Phase::Serving, Duration::ZERO, TrafficCounts::default(), 0)
            .unwrap();
        assert!(!page.contains("gracekeeper_inflight{"));
        assert!(page.contains("gracekeeper_source_up{source=\"a\"} 0"));
        assert!(page.contains("gracekeeper_reads_total{result=\"timeout\",source=\"a\"} 1"));
    }
}

//! Verdict and status as JSON, and the verdict as one line.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use serde::Serialize;
use tokio::time::Instant;

use crate::drain::{AppEnd, Phase, Readiness, State, Verdict, Visitors};
use crate::inflight::{Meter, Record};
use crate::traffic::{KubeletAddresses, Traffic};

/// The kubelet reads 10 KiB of a hook's answer at most; this leaves room for the head.
const LARGEST: usize = 9 * 1024;

/// What to do where an app that was handed its work cut requests off.
pub const NOT_GRACEFUL: &str = "this app does not finish its work on SIGTERM after all: write --app-shutdown=abrupt, or \
    let it finish: nginx with STOPSIGNAL QUIT (or lifecycle.stopSignal), Node and others with a handler of SIGTERM, \
    gunicorn with a longer graceful_timeout, a shell as PID 1 with exec";

/// A verdict's JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VerdictView<'a> {
    outcome: &'a str,
    took_seconds: Number,
    inflight: Option<Number>,
    trigger: &'a str,
    going: bool,
    /// None where the traffic is not watched, and so with `cut`.
    arrivals: Option<u64>,
    /// From the beginning of the drain to the last arrival; none where there was none, or no watch.
    last_arrival_seconds: Option<Number>,
    cut: Option<u64>,
    /// Requests that the counters counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
    /// For how long no connection had been open, where the count seems stuck.
    #[serde(skip_serializing_if = "Option::is_none")]
    stuck_seconds: Option<Number>,
    #[serde(skip_serializing_if = "Option::is_none")]
    persistent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// What the drain still waited for, where it did not end by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<&'a str>,
    #[serde(flatten)]
    visitors: VisitorsView,
    deadline_seconds: Number,
    /// The app's ports, where they were found when the drain began.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_ports: Option<&'a BTreeSet<u16>>,
    sources: Vec<SourceView<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    sources_left_out: usize,
}

/// A source in a verdict.
#[derive(Debug, Serialize)]
struct SourceView<'a> {
    source: &'a str,
    inflight: Option<Number>,
}

/// Who called while a drain ran.
#[derive(Debug, Default, Serialize)]
struct VisitorsView {
    /// Addresses that call at a steady beat, and keep no drain waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    monitors: Vec<MonitorView>,
    /// Addresses from which requests still arrive, and keep it waiting.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    arriving: Vec<ArrivingView>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MonitorView {
    address: IpAddr,
    every_seconds: Number,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ArrivingView {
    address: IpAddr,
    arrivals: u64,
    per_second: Number,
}

impl VisitorsView {
    fn new(visitors: &Visitors) -> Self {
        let monitors = visitors.monitors.iter().map(|monitor| MonitorView {
            address: monitor.address,
            every_seconds: tenths(monitor.every.as_secs_f64()),
        });
        let arriving = visitors.arriving.iter().map(|arriving| ArrivingView {
            address: arriving.address,
            arrivals: arriving.arrivals,
            per_second: arriving.per_second.into(),
        });
        Self {
            monitors: monitors.collect(),
            arriving: arriving.collect(),
        }
    }
}

/// A measured time, which is not as exact as a clock shows.
fn tenths(seconds: f64) -> Number {
    ((seconds * 10.0).round() / 10.0).into()
}

/// A status's JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusView<'a> {
    phase: &'a str,
    ready: bool,
    since_seconds: Number,
    deadline_in_seconds: Option<Number>,
    going: bool,
    arrivals: Option<u64>,
    cut: Option<u64>,
    /// What the drain that runs waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<&'a str>,
    #[serde(flatten)]
    visitors: VisitorsView,
    /// Where the kubelet calls from.
    kubelet: Vec<IpAddr>,
    /// The app's ports, where they are found when a drain begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    app_ports: Option<&'a BTreeSet<u16>>,
    /// Mistakes in the configuration, for which defaults were taken.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    mistakes: &'a [String],
    sources: Vec<MeterView<'a>>,
    /// What tells whether requests still come.
    routes_by: &'static str,
    /// Counters of requests, which are read during a drain alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    requests: Vec<CounterView<'a>>,
    verdict: Option<VerdictView<'a>>,
}

/// A source in a status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct MeterView<'a> {
    source: &'a str,
    inflight: Option<Number>,
    /// `ok`, or why there is no count; none before the first read.
    result: Option<&'a str>,
    /// The same in a sentence, with what can be done about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    age_seconds: Option<Number>,
}

/// A counter of requests in a status.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CounterView<'a> {
    source: &'a str,
    requests: Option<Number>,
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a str>,
    age_seconds: Option<Number>,
}

impl<'a> From<MeterView<'a>> for CounterView<'a> {
    fn from(meter: MeterView<'a>) -> Self {
        Self {
            source: meter.source,
            requests: meter.inflight,
            result: meter.result,
            problem: meter.problem,
            age_seconds: meter.age_seconds,
        }
    }
}

/// A number as it is usually written: 3 and not 3.0, at most three places.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Broken(f64),
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        let rounded = (value * 1000.0).round() / 1000.0;
        if rounded.fract() == 0.0 && (0.0..9e15).contains(&rounded) {
            Number::Whole(rounded as u64)
        } else {
            Number::Broken(rounded)
        }
    }
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

impl<'a> VerdictView<'a> {
    /// `cut` is how many requests have been cut off since, where that is known.
    fn new(verdict: &'a Verdict, cut: Option<u64>, app_ports: Option<&'a BTreeSet<u16>>) -> Self {
        let sources: Vec<_> = (verdict.sources.iter())
            .map(|(source, inflight)| SourceView {
                source,
                inflight: inflight.map(Number::from),
            })
            .collect();
        Self {
            outcome: verdict.outcome.name(),
            took_seconds: verdict.took.as_secs_f64().into(),
            inflight: verdict.inflight.map(Number::from),
            trigger: verdict.trigger.name(),
            going: verdict.going,
            arrivals: verdict.arrivals,
            last_arrival_seconds: (verdict.last_arrival).map(|after| after.as_secs_f64().into()),
            cut,
            requests: verdict.requests,
            stuck_seconds: verdict.stuck.map(|stuck| stuck.as_secs_f64().into()),
            persistent: verdict.persistent,
            reason: verdict.reason.as_deref(),
            waiting_for: verdict.waiting_for.as_deref(),
            visitors: (verdict.visitors.as_deref())
                .map(VisitorsView::new)
                .unwrap_or_default(),
            deadline_seconds: verdict.deadline.as_secs_f64().into(),
            app_ports,
            sources,
            sources_left_out: 0,
        }
    }
}

/// A verdict as JSON, less than 10 KiB of it: sources beyond that are left out and counted.
/// `app_ports` are those that were found when the drain began.
pub fn verdict(verdict: &Verdict, app_ports: Option<&BTreeSet<u16>>) -> String {
    // The kubelet stops the app only after this answer: nothing has been cut off yet.
    let mut view = VerdictView::new(verdict, verdict.arrivals.map(|_| 0), app_ports);
    loop {
        let text = to_json(&view);
        if text.len() <= LARGEST || view.sources.pop().is_none() {
            return text;
        }
        view.sources_left_out += 1;
    }
}

/// Where the kubelet calls from, as a status's JSON says; nothing where it is none.
pub fn kubelet_of(json: &[u8]) -> Option<Vec<IpAddr>> {
    let status: serde_json::Value = serde_json::from_slice(json).ok()?;
    let addresses = status["kubelet"].as_array()?.iter();
    Some(
        addresses
            .filter_map(|address| address.as_str()?.parse().ok())
            .collect(),
    )
}

/// What a status says of the configuration.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The app's ports, where they were found when a drain began.
    pub app_ports: Option<&'a BTreeSet<u16>>,
    /// Mistakes, for which defaults were taken.
    pub mistakes: &'a [String],
    /// When readiness fails.
    pub readiness: Readiness,
}

/// The state and each source's last read as JSON.
pub fn status(
    state: &State,
    meters: &[Meter],
    counters: &[Meter],
    traffic: Option<&Traffic>,
    kubelet: &KubeletAddresses,
    setup: &Setup<'_>,
    now: Instant,
) -> String {
    let (records, counter_records) = (records(meters), records(counters));
    let counts = traffic
        .map(Traffic::counts)
        .filter(|counts| !counts.refused);
    let seconds_since =
        |then: Instant| Number::from(now.saturating_duration_since(then).as_secs_f64());
    let deadline = (state.drain.as_ref())
        .filter(|_| state.phase == Phase::Draining)
        .map(|drain| drain.deadline);
    to_json(&StatusView {
        phase: state.phase.name(),
        ready: state.ready(setup.readiness, now),
        since_seconds: seconds_since(state.since),
        deadline_in_seconds: deadline
            .map(|at| at.saturating_duration_since(now).as_secs_f64().into()),
        going: state.going,
        arrivals: counts.map(|counts| counts.arrivals),
        cut: counts.map(|counts| counts.cut),
        waiting_for: state.waiting_for.as_deref(),
        visitors: (traffic.filter(|_| state.phase == Phase::Draining))
            .map(|traffic| VisitorsView::new(&traffic.visitors()))
            .unwrap_or_default(),
        kubelet: kubelet.addresses(),
        app_ports: setup.app_ports,
        mistakes: setup.mistakes,
        sources: records
            .iter()
            .map(|record| meter_view(record, now))
            .collect(),
        routes_by: routes_by(&counter_records, counts.is_some()),
        requests: (counter_records.iter())
            .map(|record| meter_view(record, now).into())
            .collect(),
        verdict: (state.verdict.as_deref()).map(|verdict| {
            VerdictView::new(verdict, counts.map(|counts| counts.cut), setup.app_ports)
        }),
    })
}

/// What has happened since the hook was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aftermath {
    /// Requests that were cut off.
    pub cut: u64,
    /// How the app ended, where it was handed its work.
    pub app_end: Option<AppEnd>,
}

/// Each source's name, and what is known of it.
fn records(meters: &[Meter]) -> Vec<(&str, Record)> {
    (meters.iter())
        .map(|meter| (meter.name(), meter.record()))
        .collect()
}

fn meter_view<'a>((source, record): &'a (&'a str, Record), now: Instant) -> MeterView<'a> {
    let reading = record.last.map(|(_, reading)| reading);
    MeterView {
        source,
        inflight: reading.and_then(Result::ok).map(Number::from),
        result: reading.map(|reading| reading.err().unwrap_or("ok")),
        problem: record.problem.as_deref(),
        age_seconds: (record.last)
            .map(|(at, _)| now.saturating_duration_since(at).as_secs_f64().into()),
    }
}

/// What tells whether requests still come: counters where there are any and none was unreadable at its last read, else
/// connections where they are watched, else time alone.
fn routes_by(counters: &[(&str, Record)], watched: bool) -> &'static str {
    let unreadable = |(_, record): &(&str, Record)| record.problem.is_some();
    if !counters.is_empty() && !counters.iter().any(unreadable) {
        "requests"
    } else if watched {
        "connections"
    } else {
        "time"
    }
}

/// A verdict as one line for the log, with what has happened since.
pub fn line(verdict: &Verdict, aftermath: Aftermath) -> String {
    Line {
        outcome: verdict.outcome.name(),
        took: verdict.took.as_secs_f64(),
        longest: verdict.deadline.as_secs_f64(),
        inflight: verdict.inflight,
        trigger: verdict.trigger.name(),
        reason: verdict.reason.as_deref(),
        persistent: verdict.persistent,
        waiting_for: verdict.waiting_for.as_deref(),
        stuck: verdict.stuck.map(|stuck| stuck.as_secs_f64()),
        aftermath,
    }
    .to_string()
}

/// The same of a verdict's JSON; nothing where it is none.
pub fn line_of(json: &[u8]) -> Option<String> {
    let verdict: serde_json::Value = serde_json::from_slice(json).ok()?;
    let line = Line {
        outcome: verdict["outcome"].as_str()?,
        took: verdict["tookSeconds"].as_f64()?,
        longest: verdict["deadlineSeconds"].as_f64()?,
        inflight: verdict["inflight"].as_f64(),
        trigger: verdict["trigger"].as_str()?,
        reason: verdict["reason"].as_str(),
        persistent: verdict["persistent"].as_u64(),
        waiting_for: verdict["waitingFor"].as_str(),
        stuck: verdict["stuckSeconds"].as_f64(),
        aftermath: Aftermath {
            cut: verdict["cut"].as_u64().unwrap_or_default(),
            app_end: None,
        },
    };
    Some(line.to_string())
}

/// What a verdict's line says. Times are in seconds.
struct Line<'a> {
    outcome: &'a str,
    took: f64,
    longest: f64,
    inflight: Option<f64>,
    trigger: &'a str,
    reason: Option<&'a str>,
    persistent: Option<u64>,
    waiting_for: Option<&'a str>,
    stuck: Option<f64>,
    aftermath: Aftermath,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = (self.longest * 10.0).round() / 10.0;
        write!(
            f,
            "{} after {:.1}s of at most {longest}s; in flight: ",
            self.outcome, self.took
        )?;
        match self.inflight {
            Some(n) => write!(f, "{n}")?,
            None => f.write_str("unknown")?,
        }
        write!(f, "; started by: {}", self.trigger)?;
        if let Some(reason) = self.reason {
            write!(f, "; because of: {reason}")?;
        }
        if let Some(persistent) = self.persistent {
            write!(f, "; clients that kept their connections: {persistent}")?;
        }
        if let Some(waiting_for) = self.waiting_for {
            write!(f, "; it waited for: {waiting_for}")?;
        }
        if let Some(stuck) = self.stuck {
            write!(
                f,
                "; the count seems stuck: no connection was open for {stuck:.1}s"
            )?;
        }
        if let Some(AppEnd { took, killed }) = self.aftermath.app_end {
            let took = took.as_secs_f64();
            match killed {
                false => write!(f, "; the app finished {took:.1}s later")?,
                true => write!(
                    f,
                    "; the app had not finished {took:.1}s later, when the grace period ended"
                )?,
            }
        }
        if self.aftermath.cut > 0 {
            write!(f, "; requests cut off: {}", self.aftermath.cut)?;
        }
        Ok(())
    }
}

fn to_json(view: &impl Serialize) -> String {
    // These views hold nothing that JSON cannot.
    serde_json::to_string(view).unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::drain::Outcome;

    fn example(sources: Vec<(String, Option<f64>)>) -> Verdict {
        Verdict {
            took: Duration::from_micros(2_310_400),
            inflight: Some(0.0),
            sources,
            arrivals: Some(12),
            last_arrival: Some(Duration::from_millis(1_250)),
            ..crate::drain::testing::verdict()
        }
    }

    #[test]
    fn a_verdict_has_the_agreed_shape() {
        let sources = vec![("a".to_owned(), Some(0.0)), ("b".to_owned(), None)];
        assert_eq!(
            verdict(&example(sources), None),
            "{\"outcome\":\"drained\",\"tookSeconds\":2.31,\"inflight\":0,\"trigger\":\"app hook\",\"going\":true,\
             \"arrivals\":12,\"lastArrivalSeconds\":1.25,\"cut\":0,\"deadlineSeconds\":25,\
             \"sources\":[{\"source\":\"a\",\"inflight\":0},{\"source\":\"b\",\"inflight\":null}]}"
        );
    }

    #[test]
    fn a_verdict_stays_within_what_the_kubelet_reads() {
        let sources = vec![("x".repeat(3000), Some(0.0)); 7];
        let text = verdict(&example(sources), None);
        assert!(text.len() < 10 * 1024);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["sources"].as_array().map(Vec::len), Some(2));
        assert_eq!(json["sourcesLeftOut"], 5);
    }

    #[test]
    fn a_verdict_is_one_line() {
        assert_eq!(
            line(&example(Vec::new()), Aftermath::default()),
            "drained after 2.3s of at most 25s; in flight: 0; started by: app hook"
        );
        let unknown = Verdict {
            inflight: None,
            deadline: Duration::from_millis(24_712),
            ..example(Vec::new())
        };
        assert!(
            line(&unknown, Aftermath::default()).contains(" of at most 24.7s; in flight: unknown;")
        );
        let persistent = Verdict {
            persistent: Some(2),
            reason: Some("EvictionByEvictionAPI".into()),
            ..example(Vec::new())
        };
        let cut = Aftermath {
            cut: 3,
            ..Aftermath::default()
        };
        assert!(
            line(&persistent, cut)
                .ends_with("; because of: EvictionByEvictionAPI; clients that kept their connections: 2; requests cut off: 3")
        );
        let finished = |killed| Aftermath {
            cut: 0,
            app_end: Some(AppEnd {
                took: Duration::from_millis(3_210),
                killed,
            }),
        };
        let handed_over = Verdict {
            outcome: Outcome::HandedOver,
            inflight: Some(4.0),
            ..example(Vec::new())
        };
        assert_eq!(
            line(&handed_over, finished(false)),
            "handed-over after 2.3s of at most 25s; in flight: 4; started by: app hook; the app finished 3.2s later"
        );
        assert!(line(&handed_over, finished(true)).contains("had not finished 3.2s later"));
        let stuck = Verdict {
            outcome: Outcome::Stuck,
            stuck: Some(Duration::from_secs(10)),
            ..example(Vec::new())
        };
        for told in [example(Vec::new()), unknown, persistent, stuck] {
            let json = verdict(&told, None);
            assert_eq!(
                line_of(json.as_bytes()),
                Some(line(&told, Aftermath::default()))
            );
        }
        assert_eq!(line_of(b"{}"), None);
        assert_eq!(line_of(b"ok"), None);
    }
}

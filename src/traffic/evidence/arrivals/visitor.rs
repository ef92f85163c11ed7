//! What one address has asked for, and which of it a monitor's or a probe's visit is.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::monitors::{self, Beat, Likeness, Visit};
use crate::traffic::Probe;

/// How far the time of a visit may move before it is judged again, in seconds: reads take some time themselves.
const MOVED: f64 = 0.05;

/// How many visits of an address are remembered: two monitors at once that call each second, for a minute.
const VISITS: usize = 128;

/// How long a visit is remembered: two intervals of a monitor that calls once a minute, and more.
const REMEMBERED: f64 = 150.0;

/// How many monitors may call from one address, at the kubelet's and at others. The kubelet has three kinds of probes.
const BEATS_OF_KUBELET: usize = 3;
const BEATS: usize = 2;

/// An address that calls one of the app's ports.
#[derive(Debug, Default)]
pub struct Visitor {
    /// In order of time.
    visits: VecDeque<Recorded>,
    /// The kubelet calls from here.
    pub kubelet: bool,
    /// It is in the pod.
    pub in_pod: bool,
    /// Arrivals that are not remembered any more.
    forgotten: u64,
    /// When the last visit of this drain was that is not remembered any more, in seconds since the drain began.
    forgotten_until: f64,
    /// There are visits that were not judged.
    news: bool,
    /// The beats that it keeps.
    pub beats: Vec<Beat>,
    /// It is like a monitor of another address, whose beat this is, and none of its visits is an arrival.
    pub like: Option<(Beat, Likeness)>,
    /// How many of its visits are arrivals.
    pub arrivals: u64,
    /// When the last of these was seen.
    pub last: Option<Instant>,
}

/// A visit that is remembered.
#[derive(Debug, Clone, Copy)]
struct Recorded {
    visit: Visit,
    /// Its connection and when it was seen; none of before the drain.
    seen: Option<(u64, Instant)>,
    is_arrival: bool,
}

impl Visitor {
    /// It is taken for a monitor because of the size of its requests alone.
    pub fn is_of_same_size(&self) -> bool {
        matches!(self.like, Some((_, Likeness::Size)))
    }

    /// Whether there are visits that were not judged.
    pub fn has_news(&self) -> bool {
        self.news
    }

    /// The kernel remembers a visit of before the drain.
    pub fn remember(&mut self, at: f64) {
        let visit = Visit { at, bytes: None };
        let place = self.visits.partition_point(|of| of.visit.at <= at);
        let recorded = Recorded {
            visit,
            seen: None,
            is_arrival: false,
        };
        self.visits.insert(place, recorded);
        if self.visits.len() > VISITS {
            self.visits.pop_front();
        }
        self.news = true;
    }

    /// A request of so many bytes has come.
    pub fn record(&mut self, at: f64, bytes: u64, cookie: u64, now: Instant) {
        if self.visits.len() >= VISITS {
            self.forget_oldest();
        }
        self.visits.push_back(Recorded {
            visit: Visit {
                at,
                bytes: Some(bytes),
            },
            seen: Some((cookie, now)),
            is_arrival: true,
        });
        self.news = true;
    }

    fn forget_oldest(&mut self) {
        if let Some(oldest) = self.visits.pop_front() {
            self.forgotten += u64::from(oldest.is_arrival);
            self.forgotten_until = self.forgotten_until.max(oldest.visit.at);
        }
    }

    /// The visit of this connection goes on, and takes longer than a monitor's if it `takes_long`.
    pub fn goes_on(&mut self, cookie: u64, at: f64, takes_long: bool) {
        let of_it = |of: &&mut Recorded| of.seen.is_some_and(|(seen, _)| seen == cookie);
        if let Some(recorded) = self.visits.iter_mut().rev().find(of_it) {
            if takes_long {
                recorded.visit.bytes = Some(u64::MAX);
                self.news = true;
            } else if (recorded.visit.at - at).abs() > MOVED {
                recorded.visit.at = at;
                self.news = true;
            }
        }
    }

    /// Compares an address that has shown no beat with the monitors of its port.
    pub fn compare<'a>(&mut self, known: impl Iterator<Item = &'a Beat>) {
        self.like = None;
        if !self.kubelet && self.beats.is_empty() && self.forgotten == 0 {
            let visits = self.visits.iter().map(|of| of.visit);
            self.like = known
                .filter_map(|beat| Some((*beat, monitors::likeness(visits.clone(), beat)?)))
                .min_by_key(|(_, likeness)| *likeness == Likeness::Size);
        }
    }

    /// Judges all visits again, in the drain's second `elapsed`. `probes` are the kubelet's, where they are known and it
    /// calls from here; `passed_on` are the intervals of those that a proxy may bring from here.
    pub fn judge(&mut self, probes: Option<Vec<&Probe>>, passed_on: &[f64], elapsed: f64) {
        self.news = false;
        while let Some(oldest) = self.visits.front()
            && oldest.visit.at < elapsed - REMEMBERED
        {
            self.forget_oldest();
        }
        let visits = self.visits.make_contiguous();
        visits.sort_by(|a, b| a.visit.at.total_cmp(&b.visit.at));
        let at_most = match &probes {
            Some(probes) => probes.len() + BEATS,
            None if self.kubelet => BEATS_OF_KUBELET,
            None => BEATS,
        };
        let plain: Vec<Visit> = visits.iter().map(|of| of.visit).collect();
        let findings = monitors::find(&plain, at_most, passed_on);
        let mut allowed = probes.map_or(0, |probes| {
            let seconds = elapsed - self.forgotten_until;
            let of_drain = visits.iter().zip(&findings.beat_of);
            let on_beat = of_drain.filter_map(|(of, beat)| beat.filter(|_| of.seen.is_some()));
            allowed(&probes, &findings.beats, on_beat, seconds)
        });
        (self.arrivals, self.last) = (self.forgotten, None);
        for (recorded, beat) in visits.iter_mut().zip(findings.beat_of) {
            recorded.is_arrival = false;
            let Some((_, seen)) = recorded.seen.filter(|_| beat.is_none()) else {
                continue;
            };
            if allowed > 0 {
                allowed -= 1;
                continue;
            }
            recorded.is_arrival = true;
            self.arrivals += 1;
            self.last = self.last.max(Some(seen));
        }
        self.beats = findings.beats;
    }
}

/// How many visits of so many seconds may be those of probes, beside those that follow a probe's beat: `on_beat` has for
/// each visit that follows one which it is.
///
/// A probe that is late, on a machine that is short of CPU, takes nothing from the others of its beat: what counts
/// is how many there can be in all.
fn allowed(
    probes: &[&Probe],
    beats: &[Beat],
    on_beat: impl Iterator<Item = usize>,
    seconds: f64,
) -> usize {
    let mut unmatched: Vec<f64> = (probes.iter())
        .map(|probe| probe.every.as_secs_f64())
        .collect();
    let mut is_probe = vec![false; beats.len()];
    for (beat, is_probe) in beats.iter().zip(&mut is_probe) {
        let its = (unmatched.iter()).position(|every| (every - beat.every).abs() < 0.5);
        *is_probe = its.map(|place| unmatched.swap_remove(place)).is_some();
    }
    let times = |probe: &&Probe| (seconds / probe.every.as_secs_f64().max(1.0)) as usize + 1;
    let all: usize = probes.iter().map(times).sum();
    all.saturating_sub(on_beat.filter(|&beat| is_probe[beat]).count())
}

//! Monitors: addresses that call at a steady beat, as scrapes and health checks do. Pure: a list of visits in, beats out.
//!
//! A client behind a Service has no beat: each of its connections goes to a pod by chance. What calls one pod at equal
//! intervals has that pod on a list, and goes on calling it whatever routes do.

use std::collections::HashMap;
use std::f64::consts::TAU;

/// The shortest beat: a probe of the kubelet's each second, which may come a little early.
const SHORTEST: f64 = 0.9;

/// How many visits make a beat: two equal intervals. One interval is any two visits, unless it is a [`ROUND`] one.
const FEWEST: usize = 3;

/// Intervals, in seconds, that are set for most monitors: the defaults of Prometheus (15 and 60), the kubelet (10), Envoy,
/// and the load balancers of AWS (10 and 30), Google (5) and Azure (5 and 15), and what else is common.
const ROUND: [f64; 6] = [5.0, 10.0, 15.0, 20.0, 30.0, 60.0];

/// How far from a round interval two visits may be, in seconds. Two visits by chance are as close to one of them with
/// probability 0.01 or less, at whatever rate.
const ROUND_TOLERANCE: f64 = 0.05;

/// How far a visit may be off the beat of another address, in seconds.
const KIND_TOLERANCE: f64 = 0.1;

/// How many visits make a beat where the address calls with other requests too, which follow none.
const FEWEST_AMONG_OTHERS: usize = 4;

/// How many visits make a beat where most intervals have one, wherever in it.
///
/// On a machine that is short of CPU a probe each second is late by half a second, and the next one is not; or one is left
/// out. Of clients that call by chance, at most `1/e` of the intervals have one visit each; a beat is what has four
/// standard deviations more: 13 of 15, 16 of 20, 33 of 50.
const FEWEST_IN_TURN: usize = 15;

/// How many visits show a probe whose interval is known, and that a proxy in the pod passes on.
const FEWEST_PASSED_ON: usize = 10;

/// How soon after another, and how late after it, such a visit may come, in intervals; and between which their mean is.
/// Of the gaps of clients that call by chance at that rate three in five are so, and ten in a row with probability 0.007.
const PASSED_ON_GAPS: std::ops::RangeInclusive<f64> = 0.3..=2.0;
const PASSED_ON_MEAN: std::ops::RangeInclusive<f64> = 0.9..=1.25;

/// Of so many gaps one may be longer or shorter.
const GAPS_FOR_ONE_ODD: usize = 15;

/// How many of so many intervals may have none or several visits.
fn off_turn(intervals: usize) -> usize {
    let n = intervals as f64;
    let by_chance = (-1.0_f64).exp();
    let deviation = (n * by_chance * (1.0 - by_chance)).sqrt();
    (n - n * by_chance - 4.0 * deviation).max(0.0) as usize
}

/// The longest that the answer to a monitor takes, in seconds. Prometheus gives up after 10 s by default, but a page that
/// takes so long is work.
pub const ANSWERED_WITHIN: f64 = 2.0;

/// The most that a monitor asks with: a request, and TLS with a certificate of the client's.
const LONGEST_REQUEST: u64 = 8 * 1024;

/// How far the sizes of a monitor's requests may be apart: the signature of a client's certificate has no fixed length.
const SIZE_TOLERANCE: u64 = 16;

/// How far a visit may be off its beat, in seconds.
///
/// The timers of Prometheus, the kubelet, Envoy, HAProxy and the cloud's load balancers are exact to some milliseconds;
/// what is late is the visit's way through loaded machines, and with `TIME_WAIT`, where only the end of a visit is known,
/// the answer. Neither grows with the interval beyond a point. The wider this is, the more often three visits of a client
/// look like a beat: of visits by chance at rate r, two intervals in a row are as close as this with probability r times
/// it, so one in eight where a client calls every four seconds and never calls otherwise.
fn tolerance(every: f64) -> f64 {
    (0.1 + 0.05 * every).min(0.5)
}

/// How far one visit in five may be off: a machine can be busy for longer.
fn wide_tolerance(every: f64) -> f64 {
    (every / 4.0).min(2.0)
}

/// One request from an address, on a connection of its own or on one that is kept.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Visit {
    /// When the last bytes of it came or went, in seconds since the drain began; less than 0 before.
    pub at: f64,
    /// The bytes of the request; none where the kernel remembers nothing but that it was.
    pub bytes: Option<u64>,
}

/// A beat that an address keeps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beat {
    /// Seconds from one visit to the next.
    pub every: f64,
    /// The bytes of a request; none where the kernel remembers none of its visits better.
    pub bytes: Option<u64>,
}

impl Beat {
    /// Whether it may be that of another monitor with the same settings.
    pub fn is_same(&self, other: &Beat) -> bool {
        self.bytes == other.bytes && (self.every - other.every).abs() <= KIND_TOLERANCE
    }
}

/// How an address is like a monitor that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Likeness {
    /// It calls at the same beat.
    Beat,
    /// Its requests have the same size to the byte, and it has not called often enough to show a beat.
    Size,
}

/// What the visits of one address are.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Findings {
    /// The beats that the address keeps.
    pub beats: Vec<Beat>,
    /// For each visit, which of these it follows; none where it is no monitor's.
    pub beat_of: Vec<Option<usize>>,
}

/// Finds the beats in all visits of an address, which are in order of time; at most so many of them. Of a proxy in the pod
/// the kubelet's probes are `passed_on`, each with its interval in seconds.
///
/// Either every visit follows a beat. Or, where other requests come from the address too, the visits with one size of
/// request do, all of them that have been seen; the others are clients'.
pub fn find(visits: &[Visit], at_most: usize, passed_on: &[f64]) -> Findings {
    if let [one, other] = visits
        && let Some(beat) = round_beat(one, other)
    {
        return Findings {
            beats: vec![beat],
            beat_of: vec![Some(0); 2],
        };
    }
    let all: Vec<usize> = (0..visits.len()).collect();
    let mut findings = Findings {
        beats: Vec::new(),
        beat_of: vec![None; visits.len()],
    };
    if explain(visits, &all, at_most, FEWEST, &mut findings) {
        return findings;
    }
    let mut sizes: HashMap<u64, Vec<usize>> = HashMap::new();
    for (n, visit) in visits.iter().enumerate() {
        if let Some(bytes) = visit.bytes {
            sizes.entry(bytes).or_default().push(n);
        }
    }
    for of_size in sizes.into_values() {
        if !explain(visits, &of_size, 1, FEWEST_AMONG_OTHERS, &mut findings) {
            let probe = |every: &f64| of_probe(visits, &of_size, *every);
            if let Some(beat) = passed_on.iter().find_map(probe) {
                (of_size.iter()).for_each(|&n| findings.beat_of[n] = Some(findings.beats.len()));
                findings.beats.push(beat);
            }
        }
    }
    findings
}

/// The beat of these visits if they can be those of a probe each so many seconds, however late each comes on a machine that
/// is short of CPU: none comes soon after another, and none is left out.
fn of_probe(visits: &[Visit], these: &[usize], every: f64) -> Option<Beat> {
    if these.len() < FEWEST_PASSED_ON || every < SHORTEST {
        return None;
    }
    let of: Vec<&Visit> = these.iter().map(|&n| &visits[n]).collect();
    if !of.iter().all(|visit| is_alike(of[0], visit)) {
        return None;
    }
    let gaps = || (of.windows(2)).map(|two| (two[1].at - two[0].at) / every);
    let mean = gaps().sum::<f64>() / (of.len() - 1) as f64;
    let odd = gaps().filter(|gap| !PASSED_ON_GAPS.contains(gap)).count();
    let steady = PASSED_ON_MEAN.contains(&mean) && odd <= (of.len() - 1) / GAPS_FOR_ONE_ODD;
    steady.then_some(Beat {
        every,
        bytes: of[0].bytes,
    })
}

/// The beat of two visits that are a round interval apart.
fn round_beat(one: &Visit, other: &Visit) -> Option<Beat> {
    let apart = other.at - one.at;
    let is_near = |every: &&f64| (apart - **every).abs() <= ROUND_TOLERANCE;
    let every = *ROUND.iter().find(is_near)?;
    is_alike(one, other).then_some(Beat {
        every,
        bytes: one.bytes.or(other.bytes),
    })
}

/// How an address whose own visits show no beat is like a monitor of another address: one of several that share their
/// settings, as the nodes of a load balancer do, or two servers of Prometheus.
pub fn likeness(visits: impl Iterator<Item = Visit> + Clone, known: &Beat) -> Option<Likeness> {
    let sizes = || visits.clone().filter_map(|visit| visit.bytes);
    if !sizes().all(|bytes| known.bytes.is_none_or(|of_known| bytes == of_known)) {
        return None;
    }
    let times = || visits.clone().map(|visit| visit.at);
    let tolerance = KIND_TOLERANCE.min(known.every / 50.0);
    let on_beat = |(one, next): (f64, f64)| {
        let intervals = ((next - one) / known.every).round();
        intervals >= 1.0 && (next - one - intervals * known.every).abs() <= tolerance
    };
    let count = times().count();
    if count > 1 && times().zip(times().skip(1)).all(on_beat) {
        return Some(Likeness::Beat);
    }
    let same_size = known.bytes.is_some() && sizes().next().is_some();
    (count < FEWEST && same_size).then_some(Likeness::Size)
}

/// Explains all of these visits by at most so many beats of at least `fewest` visits each, if that can be done; else it
/// leaves the findings as they are.
fn explain(
    visits: &[Visit],
    these: &[usize],
    at_most: usize,
    fewest: usize,
    findings: &mut Findings,
) -> bool {
    let known = findings.beats.len();
    if follow_all(visits, these, at_most, fewest, findings) {
        return true;
    }
    findings.beats.truncate(known);
    these.iter().for_each(|&n| findings.beat_of[n] = None);
    if let Some(beat) = one_in_each_interval(visits, these).filter(|_| at_most > 0) {
        findings.beats.push(beat);
        (these.iter()).for_each(|&n| findings.beat_of[n] = Some(known));
        return true;
    }
    false
}

/// Follows one beat after the other until all of these visits follow one.
fn follow_all(
    visits: &[Visit],
    these: &[usize],
    at_most: usize,
    fewest: usize,
    Findings { beats, beat_of }: &mut Findings,
) -> bool {
    let known = beats.len();
    while let Some(first) = these.iter().position(|&n| beat_of[n].is_none()) {
        if beats.len() - known == at_most {
            return false;
        }
        // A second beat could be found by chance in what the first leaves over, so it has to show itself once more.
        let fewest = fewest + usize::from(beats.len() > known);
        let seconds = (first + 1..these.len()).filter(|&second| beat_of[these[second]].is_none());
        // The visit between the first two may be missing.
        let best = seconds
            .flat_map(|second| [(second, 1), (second, 2)])
            .filter_map(|(second, intervals)| {
                let second = (second, intervals);
                follow(visits, these, beat_of, first, second, fewest)
            })
            .max_by_key(|(_, visits)| visits.len());
        let Some((beat, follow)) = best else {
            return false;
        };
        (follow.into_iter()).for_each(|n| beat_of[n] = Some(beats.len()));
        beats.push(beat);
    }
    true
}

/// The beat of these visits if most of its intervals have one of them, wherever in it. Its interval is whole seconds, as
/// those of the kubelet's probes are.
fn one_in_each_interval(visits: &[Visit], these: &[usize]) -> Option<Beat> {
    if these.len() < FEWEST_IN_TURN {
        return None;
    }
    let of: Vec<Visit> = these.iter().map(|&n| visits[n]).collect();
    if !of.iter().all(|visit| is_alike(&of[0], visit)) {
        return None;
    }
    let (start, end) = (of[0].at, of[of.len() - 1].at);
    let every = ((end - start) / (of.len() - 1) as f64).round();
    if every < SHORTEST {
        return None;
    }
    // Where in its interval a visit is, on average: a mean of angles, since an interval's end is the next one's start.
    let angle = |visit: &Visit| (visit.at - start) / every * TAU;
    let (sin, cos) = of.iter().fold((0.0, 0.0), |(sin, cos), visit| {
        (sin + angle(visit).sin(), cos + angle(visit).cos())
    });
    let phase = f64::atan2(sin, cos) / TAU;
    let intervals: Vec<i64> = (of.iter())
        .map(|visit| ((visit.at - start) / every - phase).round() as i64)
        .collect();
    let span = (intervals[intervals.len() - 1] - intervals[0] + 1) as usize;
    let with_one = (intervals.chunk_by(|one, next| one == next)).filter(|visits| visits.len() == 1);
    let bytes = of.iter().find_map(|visit| visit.bytes);
    (span - with_one.count() <= off_turn(span)).then_some(Beat { every, bytes })
}

/// The visits that follow a beat from the first on: the `second` is so many intervals later.
///
/// One visit in five may be late by more than the others. More may be missing, the more there are: the kernel does not
/// remember those whose client was quicker to close.
fn follow(
    visits: &[Visit],
    these: &[usize],
    beat_of: &[Option<usize>],
    first: usize,
    (second, intervals): (usize, u32),
    fewest: usize,
) -> Option<(Beat, Vec<usize>)> {
    let start = visits[these[first]];
    let mut slot = f64::from(intervals);
    let mut every = (visits[these[second]].at - start.at) / slot;
    if every < SHORTEST || !is_alike(&start, &visits[these[second]]) {
        return None;
    }
    let mut found = vec![these[first], these[second]];
    let mut missing = intervals as usize - 1;
    let mut late = 0;
    let mut last = visits[these[second]].at;
    // How many intervals the next visit is after the last one.
    let mut step = 1.0;
    let mut next = second + 1;
    while next < these.len() {
        let visit = visits[these[next]];
        let expected = [last + step * every, start.at + (slot + step) * every];
        let off = (expected.iter()).fold(f64::MAX, |off, at| off.min((visit.at - at).abs()));
        let too_early = visit.at < expected[0].min(expected[1]) - wide_tolerance(every);
        if beat_of[these[next]].is_some() || too_early || !is_alike(&start, &visit) {
            next += 1;
        } else if off <= wide_tolerance(every) {
            found.push(these[next]);
            slot += step;
            step = 1.0;
            next += 1;
            if off <= tolerance(every) {
                last = visit.at;
                every = (last - start.at) / slot;
            } else {
                // What follows comes when it would have come.
                late += 1;
                last = start.at + slot * every;
            }
        } else if step < 3.0 {
            missing += 1;
            step += 1.0;
        } else {
            break;
        }
    }
    let enough = found.len() >= (fewest + missing).max(2 * missing).max(4 * late);
    let bytes = found.iter().find_map(|&n| visits[n].bytes);
    enough.then_some((Beat { every, bytes }, found))
}

/// Whether two visits may be the same monitor's: the same few bytes, as far as that is known.
fn is_alike(one: &Visit, other: &Visit) -> bool {
    let short = |visit: &Visit| visit.bytes.is_none_or(|bytes| bytes <= LONGEST_REQUEST);
    let same = match (one.bytes, other.bytes) {
        (Some(one), Some(other)) => one.abs_diff(other) <= SIZE_TOLERANCE,
        _ => true,
    };
    same && short(one) && short(other)
}

#[cfg(test)]
mod tests;

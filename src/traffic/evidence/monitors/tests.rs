//! What is a beat, what is none, and how seldom clients have one by chance.

use super::*;
use proptest::prelude::*;

/// Visits of so many bytes at these times.
fn visits(bytes: u64, at: &[f64]) -> Vec<Visit> {
    let visit = |&at| Visit {
        at,
        bytes: Some(bytes),
    };
    at.iter().map(visit).collect()
}

fn sorted(visits: impl IntoIterator<Item = Vec<Visit>>) -> Vec<Visit> {
    let mut all: Vec<_> = visits.into_iter().flatten().collect();
    all.sort_by(|a, b| a.at.total_cmp(&b.at));
    all
}

/// How many visits are not a monitor's.
fn clients(visits: &[Visit], at_most: usize) -> usize {
    let findings = find(visits, at_most, &[]);
    findings.beat_of.iter().filter(|of| of.is_none()).count()
}

#[test]
fn two_equal_intervals_are_a_beat_and_one_is_none() {
    assert_eq!(clients(&visits(200, &[1.0, 7.3]), 2), 2);
    let findings = find(&visits(200, &[1.0, 6.0, 11.1]), 2, &[]);
    assert_eq!(findings.beat_of, [Some(0); 3]);
    assert!((findings.beats[0].every - 5.0).abs() < 0.1);
    assert_eq!(
        clients(&visits(200, &[1.0, 6.0, 12.0]), 2),
        3,
        "a second late"
    );
}

#[test]
fn one_interval_is_a_beat_where_it_is_one_that_monitors_have() {
    assert_eq!(clients(&visits(200, &[1.0, 16.03]), 2), 0);
    assert_eq!(clients(&visits(200, &[1.0, 16.1]), 2), 2);
    assert_eq!(clients(&visits(200, &[1.0, 16.0, 18.0]), 2), 3);
    let mut changing = visits(200, &[1.0, 16.0]);
    changing[1].bytes = Some(300);
    assert_eq!(clients(&changing, 2), 2);
}

#[test]
fn an_address_is_like_a_monitor_by_its_beat_or_by_its_size_until_it_has_called_three_times() {
    let known = Beat {
        every: 10.0,
        bytes: Some(200),
    };
    let like = |bytes, at: &[f64]| likeness(visits(bytes, at).into_iter(), &known);
    assert_eq!(like(200, &[3.0]), Some(Likeness::Size));
    assert_eq!(like(201, &[3.0]), None);
    assert_eq!(like(200, &[3.0, 7.0]), Some(Likeness::Size));
    assert_eq!(like(200, &[3.0, 7.0, 12.0]), None);
    assert_eq!(like(200, &[3.0, 23.05, 33.0]), Some(Likeness::Beat));
    let remembered = |at: &[f64]| {
        let of = at.iter().map(|&at| Visit { at, bytes: None });
        likeness(of.collect::<Vec<_>>().into_iter(), &known)
    };
    assert_eq!(remembered(&[-30.0, -10.0]), Some(Likeness::Beat));
    assert_eq!(remembered(&[-30.0, -12.0]), None);
    assert_eq!(remembered(&[-30.0]), None);
}

#[test]
fn one_irregular_visit_takes_it_back() {
    let steady = [-10.0, -5.0, 0.0, 5.0];
    assert_eq!(clients(&visits(200, &steady), 2), 0);
    assert_eq!(clients(&visits(200, &[-10.0, -5.0, 0.0, 5.0, 6.5]), 2), 5);
}

#[test]
fn requests_of_other_sizes_are_no_beat() {
    let mut changing = visits(200, &[0.0, 5.0, 10.0]);
    changing[1].bytes = Some(300);
    assert_eq!(clients(&changing, 2), 3);
    let mut long = visits(9000, &[0.0, 5.0, 10.0]);
    assert_eq!(clients(&long, 2), 3);
    long.iter_mut().for_each(|visit| visit.bytes = None);
    assert_eq!(clients(&long, 2), 0, "the kernel remembers no sizes");
}

#[test]
fn two_monitors_may_share_an_address() {
    let both = sorted([
        visits(150, &[0.0, 10.0, 20.0, 30.0, 40.0]),
        visits(250, &[3.0, 18.0, 33.0, 48.0]),
    ]);
    assert_eq!(clients(&both, 2), 0);
    assert_eq!(find(&both, 2, &[]).beats.len(), 2);
    let same = sorted([
        visits(150, &[0.0, 10.0, 20.0, 30.0, 40.0]),
        visits(150, &[4.0, 14.0, 24.0, 34.0]),
    ]);
    assert_eq!(clients(&same, 2), 0, "readiness and liveness");
}

#[test]
fn a_monitor_at_an_address_of_clients_shows_by_its_size() {
    let clients_and_checks = sorted([
        visits(150, &[1.0, 3.0, 5.0, 7.0]),
        visits(90, &[1.3, 1.9, 4.0, 6.6]),
    ]);
    let findings = find(&clients_and_checks, 1, &[]);
    for (visit, beat) in clients_and_checks.iter().zip(&findings.beat_of) {
        assert_eq!(beat.is_some(), visit.bytes == Some(150), "{visit:?}");
    }
}

#[test]
fn some_visits_may_be_missing_or_late() {
    for (at, found) in [
        (&[0.0, 5.0, 10.0, 15.0, 25.0, 30.0][..], true),
        (&[0.0, 5.0, 15.0, 20.0], true),
        (&[0.0, 10.0, 15.0, 20.0], true),
        (&[0.0, 5.0, 15.0], false),
        (&[0.0, 5.0, 20.0, 35.0, 40.0], false),
        (&[0.0, 10.0, 15.0, 25.0, 30.0], true),
        (&[0.0, 15.0, 20.0], false),
        (&[0.0, 5.0, 10.8, 15.0, 20.0], true),
        (&[0.0, 5.0, 10.0, 15.0, 20.8], true),
        (&[0.0, 5.0, 10.8, 15.0, 19.2], false),
        (&[0.0, 5.0, 10.8], false),
    ] {
        let clients = clients(&visits(200, at), 1);
        assert_eq!(clients == 0, found, "{at:?}: {clients}");
    }
}

#[test]
fn a_probe_each_second_of_a_machine_short_of_cpu_has_one_visit_in_most_intervals() {
    let late = [
        0.1, 0.7, 0.0, 0.4, 0.2, 0.6, 0.1, 0.3, 0.7, 0.5, 0.0, 0.2, 0.6, 0.1, 0.4, 0.3, 0.0, 0.5,
    ];
    let at: Vec<f64> = (late.iter().enumerate())
        .map(|(n, late)| n as f64 + late)
        .collect();
    assert_eq!(clients(&visits(200, &at[..14]), 1), 14, "too few");
    assert_eq!(clients(&visits(200, &at), 1), 0);
    let mut skipped = at.clone();
    skipped.remove(7);
    assert_eq!(clients(&visits(200, &skipped), 1), 0);
    let mut bursts = at.clone();
    bursts[4] = 3.5;
    bursts[8] = 7.5;
    bursts[12] = 11.5;
    assert_eq!(clients(&visits(200, &bursts), 1), 18);
    // One in five is left out, as at a load of 50 (seen on a cluster of two cores).
    let long: Vec<f64> = (0..60)
        .filter(|n| n % 5 != 3)
        .map(|n| f64::from(n) + late[n as usize % late.len()])
        .collect();
    assert_eq!(clients(&visits(200, &long), 1), 0);
    let mut changing = visits(200, &at);
    changing[3].bytes = Some(300);
    assert_eq!(clients(&changing, 1), 1, "a client among them");
}

proptest! {
    #[test]
    fn a_steady_beat_is_found_whatever_its_phase_and_jitter(
        every in 1.0..60.0_f64,
        phase in 0.0..60.0_f64,
        jitter in proptest::collection::vec(-0.05..0.05_f64, 3..40),
    ) {
        let at: Vec<f64> = (jitter.iter().enumerate())
            .map(|(n, jitter)| n as f64 * every - phase + jitter)
            .collect();
        prop_assert_eq!(clients(&visits(200, &at), 1), 0);
    }

    #[test]
    fn what_is_found_is_never_more_than_what_was_seen(
        mut at in proptest::collection::vec(-60.0..60.0_f64, 0..60),
        sizes in proptest::collection::vec(proptest::option::of(1..400_u64), 60),
        at_most in 0..4_usize,
    ) {
        at.sort_by(f64::total_cmp);
        let seen: Vec<Visit> = (at.iter().zip(&sizes))
            .map(|(&at, &bytes)| Visit { at, bytes })
            .collect();
        let findings = find(&seen, at_most, &[1.0, 10.0]);
        prop_assert_eq!(findings.beat_of.len(), seen.len());
        let monitors = findings.beat_of.iter().filter(|of| of.is_some()).count();
        prop_assert!(monitors >= FEWEST * findings.beats.len() || seen.len() == 2);
        prop_assert!(findings.beats.iter().all(|beat| beat.every >= SHORTEST));
        prop_assert!(findings.beat_of.iter().flatten().all(|&beat| beat < findings.beats.len()));
    }
}

/// Sees that of a thousand addresses no more than so many are mistaken: each calls so often a second on average, for so many
/// seconds, with the same request each time.
fn mistaken_at_most(
    most: usize,
    random: &mut fastrand::Rng,
    (rate, seconds): (f64, f64),
    is_mistaken: impl Fn(&[Visit]) -> bool,
) {
    let mut mistaken = 0;
    for _ in 0..1000 {
        let (mut at, mut times) = (0.0, Vec::new());
        loop {
            at += -(1.0 - random.f64()).ln() / rate;
            if at > seconds {
                break;
            }
            times.push(at);
        }
        mistaken += usize::from(is_mistaken(&visits(200, &times)));
    }
    assert!(
        mistaken <= most,
        "{mistaken} of 1000 at {rate}/s for {seconds} s"
    );
}

#[test]
fn clients_by_chance_are_seldom_taken_for_a_monitor() {
    let mut random = fastrand::Rng::with_seed(7);
    for (rate, seconds, most) in [
        (0.1, 20.0, 20),
        (0.1, 70.0, 5),
        (0.3, 10.0, 30),
        (0.3, 20.0, 20),
        (0.3, 70.0, 2),
        (1.0, 10.0, 20),
        (1.0, 20.0, 2),
        (3.0, 10.0, 2),
    ] {
        mistaken_at_most(most, &mut random, (rate, seconds), |seen| {
            clients(seen, 2) < seen.len()
        });
    }
}

#[test]
fn a_probe_that_a_proxy_passes_on_is_known_however_late_it_comes() {
    // Each is late by up to 0.6 s, beside clients' requests of another size.
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..1000 {
        let probes: Vec<f64> = (0..12).map(|n| f64::from(n) + random.f64() * 0.6).collect();
        let mut seen = visits(160, &probes);
        seen.extend(visits(300, &[2.5, 2.6, 7.1]));
        seen.sort_by(|a, b| a.at.total_cmp(&b.at));
        let findings = find(&seen, 2, &[10.0, 1.0]);
        let monitors = findings.beat_of.iter().filter(|of| of.is_some()).count();
        assert_eq!((findings.beats.len(), monitors), (1, 12), "{probes:?}");
    }
}

#[test]
fn clients_behind_a_proxy_are_seldom_taken_for_a_probe_that_it_passes_on() {
    let mut random = fastrand::Rng::with_seed(7);
    for (rate, seconds, most) in [
        (0.3, 30.0, 20),
        (1.0, 12.0, 30),
        (1.0, 30.0, 5),
        (3.0, 10.0, 2),
    ] {
        mistaken_at_most(most, &mut random, (rate, seconds), |seen| {
            let findings = find(seen, 2, &[1.0]);
            findings.beat_of.iter().any(Option::is_some)
        });
    }
}

use proptest::prelude::*;

use super::*;

fn started(start: f64) -> Signs {
    Signs {
        start: Some(start),
        ..Signs::default()
    }
}

fn counted(cpu: f64) -> Signs {
    Signs {
        cpu: Some(cpu),
        ..Signs::default()
    }
}

fn ids(ids: &[&str]) -> Signs {
    Signs {
        ids: ids.iter().map(|&id| id.to_owned()).collect(),
        ..Signs::default()
    }
}

/// Takes these reads, ten a second.
fn take(processes: &mut Processes, reads: impl IntoIterator<Item = (f64, Signs)>) -> Believed {
    let mut now = processes.run.last().unwrap_or_else(Instant::now);
    let mut believed = Believed::Count(0.0);
    for (value, signs) in reads {
        now += Duration::from_millis(100);
        processes.begin_round(now);
        believed = processes.take(value, &signs, 0.0);
    }
    believed
}

fn several(reads: impl IntoIterator<Item = Signs>) -> bool {
    let mut processes = Processes::default();
    take(&mut processes, reads.into_iter().map(|signs| (0.0, signs)));
    processes.are_several()
}

#[test]
fn several_processes_show_themselves() {
    assert!(several([10.0, 10.5, 10.0].map(started)));
    assert!(several([10.0, 12.0, 14.0].map(started)));
    assert!(several([3.0, 2.0, 3.0, 2.1].map(counted)));
    assert!(several([ids(&["1"]), ids(&["2"]), ids(&["1"])]));
}

#[test]
fn one_process_is_not_taken_for_several() {
    // A restart.
    assert!(!several([10.0, 10.0, 99.0, 99.0].map(started)));
    assert!(!several([5.0, 6.0, 0.1, 0.2, 7.0].map(counted)));
    // The kernel's boot time, rounded.
    assert!(!several([10.0, 11.0, 10.0, 11.0].map(started)));
    // One page of all workers, of which one is new.
    assert!(!several([
        ids(&["1", "2"]),
        ids(&["1", "2", "3"]),
        ids(&["1", "2"])
    ]));
    assert!(!several([
        Signs::default(),
        Signs::default(),
        Signs::default()
    ]));
    let mut processes = Processes::default();
    let believed = take(&mut processes, [(3.0, started(1.0)), (0.0, started(1.0))]);
    assert_eq!(believed, Believed::Count(0.0));
}

#[test]
fn reads_at_once_in_whatever_order_are_one_process_still() {
    let mut processes = Processes::default();
    for round in 0..20 {
        processes.begin_round(Instant::now());
        for cpu in [0.2, 0.1] {
            processes.take(0.0, &counted(f64::from(round) + cpu), 0.0);
        }
    }
    assert!(!processes.are_several());
}

#[test]
fn the_count_is_the_sum_of_what_each_process_said_last() {
    let mut processes = Processes::default();
    let reads = [
        (2.0, 10.0),
        (0.0, 20.0),
        (1.0, 10.0),
        (3.0, 30.0),
        (0.0, 20.0),
    ];
    let believed = take(
        &mut processes,
        reads.map(|(value, start)| (value, started(start))),
    );
    assert_eq!(believed, Believed::Count(4.0));
}

#[test]
fn zero_is_believed_when_every_process_has_had_its_turns() {
    let worker = |n: usize| started(10.0 + 2.0 * (n % 4) as f64);
    let mut processes = Processes::default();
    take(
        &mut processes,
        (0..8).map(|n| (f64::from(u8::from(n % 4 == 3)), worker(n))),
    );
    let mut more = 0;
    while take(&mut processes, [(0.0, worker(more))]) != Believed::Count(0.0) {
        more += 1;
        assert!(more < 200);
    }
    // 5 + ln 4 turns of each.
    assert_eq!(processes.run.rounds(), 4 * 7);
    assert_eq!((turns_needed(4), turns_needed(17)), (26, 134));
}

#[test]
fn a_rare_process_asks_for_more_rounds() {
    // One of them answers every twelfth round: another as rare may not have been seen.
    let worker = |n: usize| started(if n % 12 == 11 { 10.0 } else { 20.0 });
    let mut processes = Processes::default();
    let mut rounds = 0;
    while take(&mut processes, [(0.0, worker(rounds))]) != Believed::Count(0.0)
        || !processes.are_several()
    {
        rounds += 1;
        assert!(rounds < 200);
    }
    assert_eq!(rounds / 12, 5);
}

/// Workers that were started within one tick of the clock.
fn forked_together(cpu: f64) -> Signs {
    Signs {
        start: Some(10.0),
        cpu: Some(cpu),
        ..Signs::default()
    }
}

#[test]
fn a_busy_process_is_not_forgotten_for_an_idle_one_that_was_started_with_it() {
    let mut processes = Processes::default();
    // Two with one start time, of which one is busy, and one with another.
    let reads = [
        (1.0, forked_together(0.5)),
        (0.0, forked_together(0.9)),
        (0.0, started(10.02)),
        (1.0, forked_together(0.51)),
        (0.0, forked_together(0.91)),
    ];
    assert_eq!(take(&mut processes, reads), Believed::Count(1.0));
    assert_eq!(processes.count(), 3);
    let others = (0..20).map(|n| match n % 2 {
        0 => (0.0, started(10.02)),
        _ => (0.0, forked_together(0.92 + f64::from(n) / 100.0)),
    });
    assert_eq!(take(&mut processes, others), Believed::Count(1.0));
    // It has become idle.
    let idle = (0..60).map(|n| match n % 3 {
        0 => (0.0, started(10.02)),
        1 => (0.0, forked_together(1.2 + f64::from(n) / 100.0)),
        _ => (0.0, forked_together(0.52 + f64::from(n) / 1000.0)),
    });
    assert_eq!(take(&mut processes, idle), Believed::Count(0.0));
}

#[test]
fn a_process_that_does_not_answer_any_more_keeps_the_count_unknown() {
    let mut processes = Processes::default();
    take(
        &mut processes,
        (0..6).map(|n| (0.0, started(10.0 + 2.0 * f64::from(n % 3)))),
    );
    let others = (0..200).map(|n| (0.0, started(10.0 + 2.0 * f64::from(n % 2))));
    let believed = take(&mut processes, others);
    assert!(
        matches!(
            believed,
            Believed::NotYet {
                answered: 2,
                processes: 3,
                ..
            }
        ),
        "{believed:?}"
    );
    // In a later drain too, though it has not been seen there yet.
    let last = processes.run.last().unwrap();
    processes.run.set_last(last - 2 * LONGEST_GAP);
    let mut now = Instant::now() + Duration::from_secs(3600);
    for n in 0..200 {
        now += Duration::from_millis(100);
        processes.begin_round(now);
        let believed = processes.take(0.0, &started(10.0 + 2.0 * f64::from(n % 2)), 0.0);
        assert!(matches!(believed, Believed::NotYet { .. }));
    }
}

#[test]
fn processes_that_cannot_be_told_apart_are_as_busy_as_the_busiest_of_late() {
    let mut processes = Processes::default();
    let reads = [(0.0, 3.0), (4.0, 1.0), (0.0, 3.1), (0.0, 1.1), (0.0, 3.2)];
    let believed = take(
        &mut processes,
        reads.map(|(value, cpu)| (value, counted(cpu))),
    );
    assert_eq!((believed, processes.count()), (Believed::Count(4.0), 2));
    let quiet = (0..40).map(|n| (0.0, counted(if n % 2 == 0 { 1.2 } else { 3.3 })));
    assert_eq!(take(&mut processes, quiet), Believed::Count(0.0));
}

/// Which worker answers, as uneven as it was seen: the first takes about half of what the ones before it leave.
fn uneven(turn: usize, workers: usize) -> usize {
    let mut left = turn;
    (0..workers - 1)
        .find(|_| {
            let takes = left % 5 < 2;
            left /= 5;
            takes
        })
        .unwrap_or(workers - 1)
}

proptest! {
    #[test]
    fn workers_by_chance_are_believed_idle_only_when_all_are(
        workers in 2_usize..9,
        busy in 0_usize..9,
        together in any::<bool>(),
        turns in prop::collection::vec(0_usize..100_000_000, 400),
    ) {
        let busy = busy % workers;
        let mut processes = Processes::default();
        let mut now = Instant::now();
        let (mut seen, mut since) = (0_usize, 0_usize);
        // Each has used its own time so far, and each answer takes some.
        let mut cpu: Vec<f64> = (0..workers).map(|worker| 0.5 + worker as f64 / 5.0).collect();
        for turn in turns {
            let worker = uneven(turn, workers);
            now += Duration::from_millis(100);
            cpu[worker] += 0.01;
            let is_busy = worker == busy;
            seen += usize::from(is_busy);
            since = if is_busy { 0 } else { since + 1 };
            let start = match together {
                true => 10.0,
                false => 10.0 + 0.01 * worker as f64,
            };
            let signs = Signs {
                start: Some(start),
                cpu: Some(cpu[worker]),
                ..Signs::default()
            };
            processes.begin_round(now);
            let believed = processes.take(f64::from(u8::from(is_busy)), &signs, 0.0);
            // Once the busy one has answered, and is known to be one of several, nothing makes the count zero; where
            // they cannot be told apart, not before all would have had a turn.
            let late = !together || since < turns_needed(3);
            if processes.are_several() && seen > 0 && late {
                prop_assert_eq!(believed, Believed::Count(1.0));
            }
        }
    }
}

//! Every rule of the drain, under a paused clock.

use std::sync::Mutex;

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep, timeout};

use super::reads::Read;
use super::*;

mod model;

const SECOND: Duration = Duration::from_secs(1);

fn seconds(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

fn policy() -> Policy {
    Policy {
        max_inflight: 0.0,
        min_wait: 5 * SECOND,
        quiet_period: SECOND,
        max_quiet: 10 * SECOND,
        grace_period: 30 * SECOND,
        reserve: 5 * SECOND,
        timeout: None,
        readiness: Readiness::Now,
        when_blind: WhenBlind::Wait,
        poll_interval: Duration::from_millis(100),
        exit_with_app: false,
    }
}

fn source(name: &str) -> Source {
    Source {
        name: name.to_owned(),
        connections: false,
    }
}

/// A drain whose sources say whatever a test wants them to, at any time.
struct Lab {
    handle: Handle,
    events: mpsc::UnboundedReceiver<Event>,
    owner: JoinHandle<()>,
    readings: Arc<Mutex<Vec<Option<Reading>>>>,
    policy: Policy,
}

impl Lab {
    fn with(policy: Policy, readings: &[Reading]) -> Self {
        Self::watching(policy, readings, None)
    }

    fn watching(policy: Policy, readings: &[Reading], look: Option<ReadTraffic>) -> Self {
        let readings = Arc::new(Mutex::new(
            readings.iter().copied().map(Some).collect::<Vec<_>>(),
        ));
        let shown = readings.clone();
        let count: ReadCount = Arc::new(move |source| {
            let shown = shown.clone();
            Box::pin(async move {
                sleep(Duration::from_millis(1)).await;
                loop {
                    let reading = shown.lock().unwrap()[source];
                    match reading {
                        Some(reading) => return reading,
                        None => sleep(Duration::from_millis(10)).await, // It hangs.
                    }
                }
            })
        });
        let names = (0..readings.lock().unwrap().len())
            .map(|n| source(&format!("s{n}")))
            .collect();
        let (owner, handle, events) = new(policy.clone(), names, count, look, None);
        Self {
            handle,
            events,
            owner: tokio::spawn(owner.run()),
            readings,
            policy,
        }
    }

    fn new(reading: Reading) -> Self {
        Self::with(policy(), &[reading])
    }

    fn show(&self, source: usize, reading: Reading) {
        self.readings.lock().unwrap()[source] = Some(reading);
    }

    fn hang(&self, source: usize) {
        self.readings.lock().unwrap()[source] = None;
    }

    fn phase(&self) -> Phase {
        self.handle.state().phase
    }

    fn ready(&self) -> bool {
        self.handle
            .state()
            .ready(self.policy.readiness, Instant::now())
    }

    async fn drain(&self, trigger: Trigger) -> Arc<Verdict> {
        self.handle.drain(trigger).await.await.unwrap()
    }
}

fn about(took: Duration, expected: f64) -> bool {
    (expected..expected + 0.25).contains(&took.as_secs_f64())
}

const BUSY: Reading = Reading::Count(3.0);
const QUIET: Reading = Reading::Count(0.0);

#[tokio::test(start_paused = true)]
async fn an_idle_app_is_drained_when_min_wait_is_over() {
    let lab = Lab::new(QUIET);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 5.0), "{verdict:?}");
    assert_eq!(
        (verdict.inflight, verdict.trigger, verdict.going),
        (Some(0.0), Trigger::AppHook, false)
    );
    assert_eq!(verdict.sources, [("s0".to_owned(), Some(0.0))]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_app_is_waited_for_and_then_a_quiet_period() {
    let lab = Lab::new(BUSY);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(9 * SECOND).await;
    lab.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 10.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_dips_to_zero_within_the_quiet_period_ends_nothing() {
    let lab = Lab::new(BUSY);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(6 * SECOND).await;
    for _ in 0..5 {
        lab.show(0, QUIET);
        sleep(seconds(0.7)).await;
        lab.show(0, BUSY);
        sleep(seconds(0.3)).await;
        assert_eq!(lab.phase(), Phase::Draining);
    }
    lab.show(0, QUIET);
    assert!(about(verdict.await.unwrap().took, 12.0));
}

#[tokio::test(start_paused = true)]
async fn up_to_max_inflight_counts_as_quiet() {
    let lab = Lab::with(
        Policy {
            max_inflight: 3.0,
            ..policy()
        },
        &[BUSY],
    );
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Drained, Some(3.0))
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_drain_whose_work_does_not_end() {
    let lab = Lab::new(BUSY);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Deadline, Some(3.0))
    );
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_budget_shorter_than_min_wait_wins() {
    let lab = Lab::with(
        Policy {
            timeout: Some(2 * SECOND),
            ..policy()
        },
        &[QUIET],
    );
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(about(verdict.took, 2.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn unknown_is_not_zero() {
    let lab = Lab::new(Reading::Unknown);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Deadline, None)
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_interrupts_a_quiet_period() {
    let lab = Lab::new(QUIET);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(seconds(4.5)).await;
    lab.show(0, Reading::Unknown);
    sleep(seconds(1.0)).await;
    lab.show(0, QUIET);
    assert!(about(verdict.await.unwrap().took, 6.5));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_unknown_and_the_deadline_holds() {
    let lab = Lab::new(QUIET);
    lab.hang(0);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Deadline, None)
    );
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn all_sources_must_be_quiet_and_a_hung_one_holds_up_no_other() {
    let lab = Lab::with(policy(), &[QUIET, BUSY]);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(lab.phase(), Phase::Draining);
    lab.show(1, QUIET);
    assert!(about(verdict.await.unwrap().took, 8.0));

    let lab = Lab::with(
        Policy {
            when_blind: WhenBlind::Window(8 * SECOND),
            ..policy()
        },
        &[QUIET, QUIET],
    );
    lab.hang(0);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!((verdict.outcome, verdict.inflight), (Outcome::Blind, None));
    assert_eq!(
        verdict.sources,
        [("s0".to_owned(), None), ("s1".to_owned(), Some(0.0))]
    );
    assert!(about(verdict.took, 8.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_blind_window_begins_anew_after_each_count() {
    let lab = Lab::with(
        Policy {
            when_blind: WhenBlind::Window(6 * SECOND),
            ..policy()
        },
        &[Reading::Unknown],
    );
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(4 * SECOND).await;
    lab.show(0, BUSY);
    sleep(4 * SECOND).await;
    lab.show(0, Reading::Unknown);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Blind);
    assert!(about(verdict.took, 14.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn to_proceed_when_blind_still_waits_for_routes() {
    let lab = Lab::with(
        Policy {
            when_blind: WhenBlind::Proceed,
            ..policy()
        },
        &[Reading::Unknown],
    );
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Blind);
    assert!(about(verdict.took, 5.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_listens_no_more_ends_the_drain() {
    let lab = Lab::new(Reading::Gone);
    let verdict = lab.drain(Trigger::SelfHook).await;
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn one_source_gone_while_another_answers_is_unknown() {
    let lab = Lab::with(policy(), &[Reading::Gone, QUIET]);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn hooks_join_one_drain_and_share_its_verdict() {
    let lab = Lab::new(QUIET);
    let app = lab.handle.drain(Trigger::AppHook).await;
    sleep(Duration::from_millis(50)).await;
    let own = lab.handle.drain(Trigger::SelfHook).await;
    let late = async {
        sleep(3 * SECOND).await;
        lab.drain(Trigger::AppHook).await
    };
    let (app, own, late) = tokio::join!(app, own, late);
    let (app, own) = (app.unwrap(), own.unwrap());
    assert!(Arc::ptr_eq(&app, &own) && Arc::ptr_eq(&app, &late));
    assert_eq!((app.trigger, app.going), (Trigger::AppHook, true));
    assert!(
        about(app.took, 5.0),
        "the first call's clock counts: {app:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn once_the_pod_is_going_later_hooks_get_the_verdict_at_once() {
    let lab = Lab::new(QUIET);
    let first = lab.drain(Trigger::SelfHook).await;
    lab.show(0, BUSY);
    let again = timeout(Duration::from_millis(1), lab.drain(Trigger::AppHook))
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(lab.phase(), Phase::Drained);
    sleep(3600 * SECOND).await;
    assert_eq!(lab.phase(), Phase::Drained);
    assert!(!lab.ready());
}

#[tokio::test(start_paused = true)]
async fn a_lone_app_hook_is_a_restart_and_the_pod_reopens_when_the_app_is_back() {
    let mut lab = Lab::new(QUIET);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert!(!verdict.going);
    assert_eq!(lab.phase(), Phase::Reopening);
    sleep(2 * SECOND).await;
    assert_eq!(
        lab.phase(),
        Phase::Reopening,
        "the old process still answers, which means nothing"
    );
    lab.show(0, Reading::Gone);
    sleep(2 * SECOND).await;
    assert!(!lab.ready());
    lab.show(0, Reading::Unknown); // It listens again, and has no series yet.
    sleep(SECOND).await;
    assert_eq!(lab.phase(), Phase::Serving);
    assert!(lab.ready());
    let mut seen = Vec::new();
    while let Ok(event) = lab.events.try_recv() {
        seen.push(match event {
            Event::Began(_) => "began",
            Event::Stopping(_) => "stopping",
            Event::Bounded(_) => "bounded",
            Event::Ended(..) => "ended",
            Event::Serving => "serving",
        });
    }
    assert_eq!(seen, ["began", "stopping", "ended", "serving"]);
}

#[tokio::test(start_paused = true)]
async fn an_app_never_seen_down_is_back_once_the_kubelet_would_have_killed_it() {
    let lab = Lab::new(QUIET);
    lab.drain(Trigger::AppHook).await;
    sleep(seconds(24.5)).await;
    assert_eq!(lab.phase(), Phase::Reopening);
    sleep(SECOND).await;
    assert_eq!(lab.phase(), Phase::Serving);
}

#[tokio::test(start_paused = true)]
async fn a_second_caller_never_gets_an_earlier_drains_verdict() {
    let lab = Lab::new(QUIET);
    let first = lab.drain(Trigger::AppHook).await;
    // While it reopens, and once it serves again: each a drain of its own.
    let second = lab.drain(Trigger::AppHook).await;
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(about(second.took, 5.0), "{second:?}");
    lab.show(0, Reading::Gone);
    sleep(SECOND).await;
    lab.show(0, BUSY);
    sleep(SECOND).await;
    assert_eq!(lab.phase(), Phase::Serving);
    let third = lab.drain(Trigger::SelfHook).await;
    assert_eq!(third.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_lasts_until_it_is_undone() {
    let lab = Lab::new(QUIET);
    let verdict = lab.drain(Trigger::Manual).await;
    assert_eq!((verdict.outcome, verdict.going), (Outcome::Drained, false));
    sleep(3600 * SECOND).await;
    assert_eq!(lab.phase(), Phase::Drained);
    assert!(!lab.ready());
    assert_eq!(lab.handle.undo().await, Ok(()));
    assert_eq!(lab.phase(), Phase::Serving);
    assert!(lab.ready());
}

#[tokio::test(start_paused = true)]
async fn the_kubelets_time_runs_from_its_own_call_and_not_from_a_drain_by_hand() {
    let mut lab = Lab::new(BUSY);
    let by_hand = lab.handle.drain(Trigger::Manual).await;
    sleep(20 * SECOND).await;
    let hook = lab.handle.drain(Trigger::SelfHook).await;
    sleep(20 * SECOND).await;
    lab.drain(Trigger::AppHook).await;
    let verdict = hook.await.unwrap();
    assert!(Arc::ptr_eq(&verdict, &by_hand.await.unwrap()));
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(
        about(verdict.took, 45.0),
        "once, from the first: {verdict:?}"
    );
    assert_eq!(verdict.deadline, 45 * SECOND);
    let mut seen = Vec::new();
    while let Ok(event) = lab.events.try_recv() {
        seen.push(event);
    }
    assert!(
        matches!(
            &seen[..],
            [
                Event::Began(_),
                Event::Stopping(_),
                Event::Bounded(drain),
                Event::Ended(..)
            ] if drain.killed == drain.began + 50 * SECOND
        ),
        "{seen:?}"
    );
}

impl Lab {
    async fn pod_facts(&self, pod: PodFacts) {
        let began = self.handle.state().drain.unwrap().began;
        self.handle.pod_facts(began, pod).await;
        tokio::task::yield_now().await;
    }
}

fn granted(seconds: u32) -> PodFacts {
    PodFacts {
        granted: Some(seconds * SECOND),
        ..PodFacts::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_really_granted_moves_the_deadline_both_ways() {
    for (grace, expected) in [
        (60, 55.0), // The flag is too low.
        (30, 25.0),
        (12, 7.0),
        (8, 4.0), // The reserve is half of it at most.
        (2, 1.0),
        (0, 0.3), // Over as soon as that is known.
    ] {
        let lab = Lab::new(BUSY);
        let verdict = lab.handle.drain(Trigger::AppHook).await;
        sleep(seconds(0.3)).await;
        lab.pod_facts(granted(grace)).await;
        let verdict = verdict.await.unwrap();
        assert_eq!(verdict.outcome, Outcome::Deadline);
        assert!(about(verdict.took, expected), "{grace}: {verdict:?}");
    }
}

#[test]
fn a_reserve_of_more_than_half_stays_one() {
    let policy = Policy {
        reserve: 20 * SECOND,
        ..policy()
    };
    assert_eq!(policy.budget(), 10 * SECOND);
    assert_eq!(policy.budget_of(15 * SECOND), 5 * SECOND);
    assert_eq!(policy.budget_of(60 * SECOND), 40 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_an_earlier_drain_or_of_none_is_passed_over() {
    let lab = Lab::new(BUSY);
    let long_ago = Instant::now() - 100 * SECOND;
    let nonsense = PodFacts {
        going: true,
        granted: Some(Duration::ZERO),
        reason: Some("nonsense".into()),
    };
    lab.handle.pod_facts(long_ago, nonsense.clone()).await;
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    lab.handle.pod_facts(long_ago, nonsense).await;
    let verdict = verdict.await.unwrap();
    assert_eq!((verdict.going, &verdict.reason), (false, &None));
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_deletion_makes_a_lone_app_hook_more_than_a_restart() {
    let going = PodFacts {
        going: true,
        reason: Some("EvictionByEvictionAPI".into()),
        ..PodFacts::default()
    };
    let lab = Lab::new(QUIET);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    lab.pod_facts(going.clone()).await;
    let verdict = verdict.await.unwrap();
    assert!(verdict.going);
    assert_eq!(verdict.reason.as_deref(), Some("EvictionByEvictionAPI"));
    assert_eq!(lab.phase(), Phase::Drained);

    // Also where it is known only after the drain.
    let lab = Lab::new(QUIET);
    lab.drain(Trigger::AppHook).await;
    assert_eq!(lab.phase(), Phase::Reopening);
    lab.pod_facts(going).await;
    assert_eq!(lab.phase(), Phase::Drained);
    lab.show(0, Reading::Gone);
    sleep(5 * SECOND).await;
    lab.show(0, QUIET);
    sleep(60 * SECOND).await;
    assert_eq!(lab.phase(), Phase::Drained);
    assert_eq!(lab.handle.undo().await, Err(Refusal::Going));
}

/// A drain of an idle app whose Services are known to have let go of it, or not, that long after its beginning.
async fn leaving(after: Duration, known: bool, policy: Policy) -> Arc<Verdict> {
    let count: ReadCount = Arc::new(|_| Box::pin(async { QUIET }));
    let leave: EndpointsLeft = Arc::new(move || {
        Box::pin(async move {
            sleep(after).await;
            known
        })
    });
    let (owner, handle, _events) = new(policy, vec![source("s")], count, None, Some(leave));
    tokio::spawn(owner.run());
    handle.drain(Trigger::AppHook).await.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn min_wait_begins_when_services_have_let_go_of_the_pod() {
    for (after, known, outcome, took) in [
        (3.0, true, Outcome::Drained, 8.0),
        (0.0, true, Outcome::Drained, 5.0),
        (3.0, false, Outcome::Drained, 5.0),
        (9.0, false, Outcome::Drained, 9.0),
        (22.0, true, Outcome::Deadline, 25.0),
        (1e9, true, Outcome::Deadline, 25.0),
    ] {
        let verdict = leaving(seconds(after), known, policy()).await;
        assert_eq!(verdict.outcome, outcome, "{after} {known}");
        assert!(about(verdict.took, took), "{after} {known}: {verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_is_to_end_with_its_app_does_when_the_app_has_gone_for_long_enough() {
    let told = Policy {
        exit_with_app: true,
        ..policy()
    };
    let lab = Lab::with(told.clone(), &[BUSY]);
    sleep(100 * SECOND).await;
    // Restarted after a crash.
    lab.show(0, Reading::Gone);
    sleep(9 * SECOND).await;
    lab.show(0, QUIET);
    sleep(100 * SECOND).await;
    lab.show(0, Reading::Unknown);
    sleep(100 * SECOND).await;
    assert!(!lab.owner.is_finished());
    assert_eq!(lab.phase(), Phase::Serving);
    lab.show(0, Reading::Gone);
    sleep(9 * SECOND).await;
    assert!(!lab.owner.is_finished());
    sleep(4 * SECOND).await;
    assert!(lab.owner.is_finished());
    assert_eq!(
        lab.phase(),
        Phase::Serving,
        "nobody had to wait for anything"
    );

    let untold = Lab::new(Reading::Gone);
    sleep(1000 * SECOND).await;
    assert!(!untold.owner.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_outlasts_a_restart_of_the_app() {
    let lab = Lab::new(QUIET);
    lab.drain(Trigger::Manual).await;
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.trigger, Trigger::AppHook);
    assert_eq!(lab.phase(), Phase::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_is_undone_while_it_runs() {
    let lab = Lab::new(BUSY);
    let verdict = lab.handle.drain(Trigger::Manual).await;
    sleep(SECOND).await;
    assert_eq!(lab.handle.undo().await, Ok(()));
    assert_eq!(lab.phase(), Phase::Serving);
    assert_eq!(verdict.await.unwrap().outcome, Outcome::Undone);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_undone_once_the_app_or_the_pod_stops() {
    let lab = Lab::new(BUSY);
    let mut verdict = lab.handle.drain(Trigger::Manual).await;
    lab.handle.drain(Trigger::AppHook).await;
    assert_eq!(lab.handle.undo().await, Err(Refusal::Stopping));
    lab.handle.drain(Trigger::SelfHook).await;
    assert_eq!(lab.handle.undo().await, Err(Refusal::Going));
    assert!(
        timeout(SECOND, &mut verdict).await.is_err(),
        "the hook is still held"
    );
    verdict.await.unwrap();
    assert_eq!(lab.handle.undo().await, Err(Refusal::Going));
    assert_eq!(lab.phase(), Phase::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_the_waiting() {
    let lab = Lab::new(BUSY);
    assert_eq!(lab.handle.release().await, Err(Refusal::NotDraining));
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(SECOND).await;
    assert_eq!(lab.handle.release().await, Ok(()));
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Released, Some(3.0))
    );
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_when_its_caller_goes_away() {
    let lab = Lab::new(QUIET);
    drop(lab.handle.drain(Trigger::SelfHook).await);
    sleep(6 * SECOND).await;
    assert_eq!(lab.phase(), Phase::Drained);
    assert_eq!(
        lab.handle.state().verdict.unwrap().outcome,
        Outcome::Drained
    );
}

#[tokio::test(start_paused = true)]
async fn a_native_sidecar_told_to_stop_after_its_app_stops_at_once() {
    let lab = Lab::new(Reading::Gone);
    drop(lab.handle.drain(Trigger::Signal).await);
    timeout(SECOND, lab.owner).await.unwrap().unwrap();

    let lab = Lab::new(QUIET);
    lab.drain(Trigger::SelfHook).await;
    lab.show(0, Reading::Gone);
    sleep(SECOND).await;
    assert!(!lab.owner.is_finished(), "nobody has told it to stop");
    drop(lab.handle.drain(Trigger::Signal).await);
    timeout(SECOND, lab.owner).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_sidecar_told_to_stop_first_stays_until_the_app_is_gone() {
    let lab = Lab::new(BUSY);
    let verdict = lab.handle.drain(Trigger::Signal).await;
    let hook = lab.handle.drain(Trigger::AppHook).await;
    sleep(6 * SECOND).await;
    lab.show(0, QUIET);
    assert!(Arc::ptr_eq(&verdict.await.unwrap(), &hook.await.unwrap()));
    sleep(3 * SECOND).await;
    assert!(!lab.owner.is_finished(), "the app still stops");
    assert!(!lab.ready());
    lab.show(0, Reading::Gone);
    timeout(SECOND, lab.owner).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_told_to_stop_ends_with_its_budget_at_the_latest() {
    let began = Instant::now();
    let lab = Lab::new(BUSY);
    drop(lab.handle.drain(Trigger::Signal).await);
    lab.owner.await.unwrap();
    assert!(about(began.elapsed(), 25.0));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_told_to_stop_when_the_time_is_up_stays_for_a_last_look() {
    for gone_after in [Some(0.2), None] {
        let lab = Lab::new(BUSY);
        lab.drain(Trigger::SelfHook).await;
        // The app goes on for as long as it is granted, and is killed.
        sleep(5 * SECOND).await;
        let told = Instant::now();
        drop(lab.handle.drain(Trigger::Signal).await);
        if let Some(after) = gone_after {
            sleep(seconds(after)).await;
            assert!(
                !lab.owner.is_finished(),
                "whom that cuts off is not known yet"
            );
            lab.show(0, Reading::Gone);
        }
        lab.owner.await.unwrap();
        let took = told.elapsed();
        assert!(took <= LAST_LOOK, "{took:?}");
        assert_eq!(took < LAST_LOOK, gone_after.is_some(), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_fails_now_or_later_or_never() {
    for (readiness, at_once, later) in [
        (Readiness::Now, false, false),
        (Readiness::After(3 * SECOND), true, false),
        (Readiness::Never, true, true),
    ] {
        let lab = Lab::with(
            Policy {
                readiness,
                ..policy()
            },
            &[QUIET],
        );
        assert!(lab.ready());
        let verdict = lab.handle.drain(Trigger::AppHook).await;
        assert_eq!(lab.ready(), at_once, "{readiness:?}");
        sleep(3 * SECOND).await;
        assert_eq!(lab.ready(), later, "{readiness:?}");
        verdict.await.unwrap();
        assert_eq!(lab.phase(), Phase::Reopening);
        assert!(!lab.ready(), "the app is down");
    }
}

#[tokio::test(start_paused = true)]
async fn while_serving_no_timer_runs_and_nothing_is_read() {
    let reads = Arc::new(Mutex::new(0));
    let seen = reads.clone();
    let count: ReadCount = Arc::new(move |_| {
        *seen.lock().unwrap() += 1;
        Box::pin(async { QUIET })
    });
    let (owner, handle, _events) = new(policy(), vec![source("s")], count, None, None);
    let owner = tokio::spawn(owner.run());
    advance(3600 * SECOND).await;
    assert_eq!(*reads.lock().unwrap(), 0);
    drop(handle);
    owner.await.unwrap();
}

/// Something that can happen to a pod.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Call(Trigger),
    Undo,
    Release,
    Show(usize, Reading),
    Hang(usize),
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let trigger = prop_oneof![
        4 => Just(Trigger::AppHook),
        2 => Just(Trigger::Manual),
        1 => Just(Trigger::SelfHook),
        1 => Just(Trigger::Signal),
    ];
    let reading = prop_oneof![
        Just(QUIET),
        Just(BUSY),
        Just(Reading::Unknown),
        Just(Reading::Gone)
    ];
    let happening = prop_oneof![
        3 => trigger.prop_map(Happening::Call),
        1 => Just(Happening::Undo),
        1 => Just(Happening::Release),
        3 => (0..2_usize, reading).prop_map(|(source, reading)| Happening::Show(source, reading)),
        1 => (0..2_usize).prop_map(Happening::Hang),
        4 => (1..12_000_u64).prop_map(Happening::Pass),
    ];
    proptest::collection::vec(happening, 1..25)
}

fn policies() -> impl Strategy<Value = Policy> {
    let when_blind = prop_oneof![
        Just(WhenBlind::Wait),
        Just(WhenBlind::Proceed),
        Just(WhenBlind::Window(Duration::from_secs(7)))
    ];
    (when_blind, 0..3_u32, 0..8_u32, 0..30_u32).prop_map(|(when_blind, quiet, wait, budget)| {
        Policy {
            when_blind,
            quiet_period: quiet * SECOND,
            min_wait: wait * SECOND,
            timeout: Some(budget * SECOND),
            ..policy()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_draining_pod_is_not_ready_and_every_drain_ends_in_time(
        happenings in happenings(),
        policy in policies(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let lab = Lab::with(policy.clone(), &[QUIET, BUSY]);
            let mut going = false;
            let mut answers = Vec::new();
            for happening in happenings {
                match happening {
                    Happening::Call(trigger) => {
                        going |= matches!(trigger, Trigger::SelfHook | Trigger::Signal);
                        let asked = Instant::now();
                        // A drain by hand may last for as long again, from when the kubelet calls.
                        let limit = 2 * policy.budget() + SECOND;
                        let pending = lab.handle.drain(trigger).await;
                        let earlier = lab.handle.state().phase == Phase::Drained;
                        if !lab.owner.is_finished() {
                            assert_ne!(lab.phase(), Phase::Serving, "a drain was asked for");
                        }
                        answers.push(tokio::spawn(async move {
                            let answer = timeout(limit, pending).await.expect("every drain ends by its deadline");
                            // None where the sidecar itself had ended.
                            if let Ok(verdict) = answer {
                                let began = asked.checked_sub(verdict.took);
                                assert!(verdict.took <= verdict.deadline + Duration::from_millis(2), "{verdict:?}");
                                assert!(earlier || began.is_none() || asked.elapsed() <= verdict.took, "{verdict:?}");
                            }
                        }));
                    }
                    Happening::Undo => {
                        let before = lab.phase();
                        let undone = lab.handle.undo().await;
                        if going {
                            assert!(undone.is_err());
                        } else if before == Phase::Serving {
                            assert!(undone.is_ok());
                        }
                    }
                    Happening::Release => {
                        let before = lab.phase();
                        let released = lab.handle.release().await;
                        assert_eq!(released.is_ok(), before == Phase::Draining);
                    }
                    Happening::Show(source, reading) => lab.show(source, reading),
                    Happening::Hang(source) => lab.hang(source),
                    Happening::Pass(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
                }
                let state = lab.handle.state();
                assert_eq!(lab.ready(), state.phase == Phase::Serving, "ready while {:?}", state.phase);
                assert!(!going || state.going);
                assert!(!going || state.phase != Phase::Serving, "serving again though the pod is going");
                assert!(state.verdict.is_none() || state.phase != Phase::Draining, "an old verdict is shown");
            }
            for answer in answers {
                answer.await.unwrap();
            }
        });
    }
}

/// A drain whose traffic a test makes up too.
struct Road {
    lab: Lab,
    sight: Arc<Mutex<Option<TrafficSnapshot>>>,
    /// What each look was told of when routes changed.
    told: Arc<Mutex<Option<Instant>>>,
}

impl Road {
    fn with(policy: Policy, reading: Reading) -> Self {
        let sight = Arc::new(Mutex::new(Some(TrafficSnapshot::default())));
        let told = Arc::new(Mutex::new(None));
        let (shown, heard) = (sight.clone(), told.clone());
        let look: ReadTraffic = Arc::new(move |_, settled| {
            let (shown, heard) = (shown.clone(), heard.clone());
            Box::pin(async move {
                *heard.lock().unwrap() = settled;
                let seen = *shown.lock().unwrap();
                sleep(Duration::from_millis(1)).await;
                seen.map(|sight| TrafficSnapshot {
                    held: settled.and(sight.held),
                    ..sight
                })
            })
        });
        Self {
            lab: Lab::watching(policy, &[reading], Some(look)),
            sight,
            told,
        }
    }

    fn change(&self, change: impl FnOnce(&mut TrafficSnapshot)) {
        let mut sight = self.sight.lock().unwrap();
        change(sight.get_or_insert_default());
    }

    fn arrive(&self) {
        self.change(|sight| {
            sight.arrivals += 1;
            sight.last_arrival = Some(Instant::now());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn without_arrivals_one_quiet_read_after_min_wait_ends_a_drain() {
    let road = Road::with(policy(), BUSY);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(road.lab.phase(), Phase::Draining);
    road.lab.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 7.0), "no quiet period: {verdict:?}");
    assert_eq!(verdict.arrivals, Some(0));
}

#[tokio::test(start_paused = true)]
async fn while_requests_arrive_a_quiet_app_is_not_drained() {
    let road = Road::with(policy(), QUIET);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    for _ in 0..36 {
        sleep(seconds(1.0 / 3.0)).await;
        road.arrive();
        assert_eq!(road.lab.phase(), Phase::Draining);
    }
    // 36 in 12 s: (5 + ln 36) · 12 / 36.
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.arrivals),
        (Outcome::Drained, Some(36))
    );
    assert!(about(verdict.took, 12.0 + 8.58 / 3.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn the_silence_asked_for_has_bounds() {
    let road = Road::with(policy(), QUIET);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(4 * SECOND).await;
    road.arrive();
    let verdict = verdict.await.unwrap();
    assert!(about(verdict.took, 14.0), "at most max-quiet: {verdict:?}");

    let road = Road::with(policy(), QUIET);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    for _ in 0..590 {
        sleep(Duration::from_millis(10)).await;
        road.arrive();
    }
    let verdict = verdict.await.unwrap();
    assert!(
        about(verdict.took, 6.9),
        "at least the quiet period: {verdict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn arrivals_without_end_last_until_the_deadline() {
    let road = Road::with(policy(), QUIET);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    let arrive = async {
        loop {
            sleep(SECOND / 2).await;
            road.arrive();
        }
    };
    let verdict = tokio::select! {
        verdict = verdict => verdict.unwrap(),
        () = arrive => unreachable!(),
    };
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_arrival_means_that_routes_had_not_changed() {
    let road = Road::with(policy(), BUSY);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(8 * SECOND).await;
    assert!(road.told.lock().unwrap().is_some());
    road.arrive();
    sleep(SECOND / 2).await;
    assert!(road.told.lock().unwrap().is_none());
    road.lab.show(0, QUIET);
    // One in 8 s: five times as long, but not more than max-quiet.
    assert!(about(verdict.await.unwrap().took, 18.0));
}

#[tokio::test(start_paused = true)]
async fn where_traffic_cannot_be_seen_quiet_has_to_last() {
    let road = Road::with(policy(), BUSY);
    *road.sight.lock().unwrap() = None;
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    road.lab.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert!(about(verdict.took, 8.0), "a quiet period: {verdict:?}");
    assert_eq!(verdict.arrivals, None);
}

#[tokio::test(start_paused = true)]
async fn a_request_the_app_has_not_counted_yet_is_waited_for() {
    let road = Road::with(policy(), QUIET);
    road.change(|sight| sight.unanswered = 1);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(road.lab.phase(), Phase::Draining);
    road.change(|sight| sight.unanswered = 0);
    assert!(about(verdict.await.unwrap().took, 7.0));

    let road = Road::with(policy(), QUIET);
    road.change(|sight| sight.unanswered = 1);
    let verdict = road.lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(
        about(verdict.took, 10.0),
        "but for max-quiet at most: {verdict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn clients_that_keep_their_connections_have_max_quiet_to_leave_a_moment_of_quiet() {
    let road = Road::with(policy(), BUSY);
    road.change(|sight| (sight.active, sight.held) = (3, Some(2)));
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(9 * SECOND).await;
    road.change(|sight| sight.held = Some(0));
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.persistent),
        (Outcome::Persistent, Some(3))
    );
    assert!(about(verdict.took, 19.0), "{verdict:?}");

    let road = Road::with(policy(), BUSY);
    road.change(|sight| (sight.active, sight.held) = (3, Some(0)));
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(9 * SECOND).await;
    road.lab.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained, "that moment came");
    assert!(about(verdict.took, 9.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_share_a_connection_are_waited_for_until_the_deadline() {
    let road = Road::with(policy(), BUSY);
    // Three requests in flight and two connections: one carries several, and one of these may be an old one.
    road.change(|sight| (sight.active, sight.held) = (2, Some(0)));
    let verdict = road.lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_no_longer_listens_but_still_answers_is_not_gone() {
    // A stream, on which nobody waits between two events.
    let road = Road::with(policy(), Reading::Gone);
    road.change(|sight| sight.open = 1);
    let verdict = road.lab.handle.drain(Trigger::SelfHook).await;
    sleep(12 * SECOND).await;
    assert_eq!(road.lab.phase(), Phase::Draining);
    road.change(|sight| sight.open = 0);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 12.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_metrics_are_gone_is_not_while_it_listens() {
    let road = Road::with(policy(), BUSY);
    road.change(|sight| sight.listens = true);
    let hook = road.lab.handle.drain(Trigger::AppHook).await;
    sleep(seconds(0.5)).await;
    // An exporter beside it has ended.
    road.lab.show(0, Reading::Gone);
    let _pending = road.lab.handle.drain(Trigger::Signal).await;
    sleep(20 * SECOND).await;
    assert_eq!(road.lab.phase(), Phase::Draining);
    road.change(|sight| sight.listens = false);
    assert_eq!(hook.await.unwrap().outcome, Outcome::AppGone);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_proves_nothing_and_takes_nothing_for_granted() {
    let road = Road::with(policy(), QUIET);
    road.change(|sight| sight.listens = true);
    let verdict = road.lab.handle.drain(Trigger::AppHook).await;
    for _ in 0..30 {
        road.arrive();
        sleep(seconds(0.3)).await;
    }
    *road.sight.lock().unwrap() = None;
    sleep(SECOND).await;
    assert_eq!(road.lab.phase(), Phase::Draining, "requests still arrive");
    // For good: then only time can tell.
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 19.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn routes_have_all_of_min_wait_from_the_first_sign_that_the_app_stops() {
    let lab = Lab::new(BUSY);
    let by_hand = lab.handle.drain(Trigger::Manual).await;
    sleep(20 * SECOND).await;
    let hook = lab.handle.drain(Trigger::AppHook).await;
    lab.show(0, QUIET);
    let verdict = hook.await.unwrap();
    assert!(about(verdict.took, 25.0), "{verdict:?}");
    assert_eq!(by_hand.await.unwrap().outcome, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn to_proceed_when_blind_takes_a_quiet_period_of_blindness() {
    let proceed = Policy {
        when_blind: WhenBlind::Proceed,
        min_wait: Duration::ZERO,
        ..policy()
    };
    let lab = Lab::with(proceed, &[Reading::Unknown]);
    assert!(about(lab.drain(Trigger::AppHook).await.took, 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_read_is_put_off_to_prove_what_it_can_as_early_as_it_can() {
    let lab = Lab::with(
        Policy {
            poll_interval: seconds(0.7),
            ..policy()
        },
        &[QUIET],
    );
    let verdict = lab.drain(Trigger::AppHook).await;
    assert!(verdict.took < seconds(5.05), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_read_from_before_min_wait_was_over_ends_nothing() {
    // The read begins before and ends after; what came in between is not in it.
    let lab = Lab::new(BUSY);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(seconds(3.0)).await;
    lab.show(0, QUIET);
    sleep(seconds(1.5)).await;
    lab.hang(0);
    sleep(seconds(0.8)).await;
    lab.show(0, QUIET);
    sleep(Duration::from_millis(15)).await;
    lab.show(0, BUSY);
    sleep(seconds(2.0)).await;
    assert_eq!(lab.phase(), Phase::Draining);
    lab.show(0, QUIET);
    assert!(about(verdict.await.unwrap().took, 8.3));
}

#[tokio::test(start_paused = true)]
async fn a_joined_sigterm_needs_no_quiet_period_to_know_that_the_app_is_gone() {
    let slow = Policy {
        quiet_period: 5 * SECOND,
        ..policy()
    };
    let lab = Lab::with(slow, &[BUSY]);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    sleep(SECOND).await;
    let _pending = lab.handle.drain(Trigger::Signal).await;
    lab.show(0, Reading::Gone);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_was_gone_is_back_once_every_source_listens() {
    let lab = Lab::with(policy(), &[Reading::Gone, Reading::Gone]);
    let verdict = lab.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::AppGone);
    lab.show(0, BUSY);
    sleep(SECOND).await;
    assert_eq!(lab.phase(), Phase::Reopening, "the other one is still down");
    lab.show(1, Reading::Unknown);
    sleep(SECOND).await;
    assert_eq!(lab.phase(), Phase::Serving);

    // Both are back before they are read again.
    let lab = Lab::with(policy(), &[Reading::Gone]);
    let verdict = lab.handle.drain(Trigger::AppHook).await;
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    lab.show(0, QUIET);
    sleep(SECOND).await;
    assert_eq!(lab.phase(), Phase::Serving, "it was seen to be gone");
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_that_goes_on_needs_no_second_one() {
    let lab = Lab::new(QUIET);
    let first = lab.drain(Trigger::Manual).await;
    lab.show(0, BUSY);
    let again = timeout(Duration::from_millis(1), lab.drain(Trigger::Manual)).await;
    assert!(Arc::ptr_eq(&first, &again.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn after_an_undone_drain_a_lone_hook_is_a_restart_again() {
    for wait in [SECOND, 10 * SECOND] {
        let lab = Lab::new(QUIET);
        let _pending = lab.handle.drain(Trigger::Manual).await;
        sleep(wait).await; // Undone while it runs, and once it is over.
        lab.handle.undo().await.unwrap();
        lab.drain(Trigger::AppHook).await;
        assert_eq!(lab.phase(), Phase::Reopening);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_began_the_drain_is_not_undone_either() {
    let lab = Lab::new(BUSY);
    let _pending = lab.handle.drain(Trigger::AppHook).await;
    assert_eq!(lab.handle.undo().await, Err(Refusal::Stopping));
}

#[test]
fn quiet_is_counted_from_the_end_of_one_read_to_the_beginning_of_another() {
    let now = Instant::now();
    let read = |began: f64, ended: f64| Read {
        source: 0,
        began: now + seconds(began),
        ended: now + seconds(ended),
        seen: QUIET,
    };
    let mut history = SourceHistory::new(now, false);
    history.take(&read(0.0, 1.0), 0.0);
    history.take(&read(1.5, 3.0), 0.0);
    assert_eq!(
        history.settles_at(&policy(), Some(now - 5 * SECOND)),
        Some(now + seconds(2.0))
    );
    let quiet = Policy {
        min_wait: Duration::ZERO,
        ..policy()
    };
    let mut facts = Facts {
        began: now,
        deadline: now + 25 * SECOND,
        signalled: false,
        left: Some(now),
        sources: vec![history],
        traffic: Traffic::Unwatched,
    };
    let later = now + 4 * SECOND;
    assert_ne!(
        decide(&quiet, &facts, later),
        Decision::End(Outcome::Drained)
    );
    facts.sources[0].take(&read(3.5, 3.6), 0.0);
    assert_eq!(
        decide(&quiet, &facts, later),
        Decision::End(Outcome::Drained)
    );
}

#[tokio::test(start_paused = true)]
async fn readiness_of_a_pod_that_is_going_follows_its_policy_to_the_end() {
    for (readiness, ready) in [
        (Readiness::Now, false),
        (Readiness::After(2 * SECOND), false),
        (Readiness::After(9 * SECOND), false),
        (Readiness::Never, true),
    ] {
        let lab = Lab::with(
            Policy {
                readiness,
                ..policy()
            },
            &[QUIET],
        );
        lab.drain(Trigger::SelfHook).await;
        assert_eq!(lab.phase(), Phase::Drained);
        assert_eq!(lab.ready(), ready, "{readiness:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_sidecar_does_not_take_an_unreadable_app_for_a_gone_one() {
    let lab = Lab::new(QUIET);
    let _pending = lab.handle.drain(Trigger::Signal).await;
    sleep(6 * SECOND).await;
    assert_eq!(lab.phase(), Phase::Drained);
    lab.show(0, Reading::Unknown);
    sleep(5 * SECOND).await;
    assert!(!lab.owner.is_finished());
    lab.show(0, Reading::Gone);
    sleep(SECOND).await;
    assert!(lab.owner.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_long_drain_says_every_five_seconds_that_it_goes_on() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = said.clone();
    let writer = move || Shared(log.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let lab = Lab::new(BUSY);
    lab.drain(Trigger::AppHook).await;
    let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains("still draining"))
        .collect();
    let left: Vec<_> = [20, 15, 10, 5]
        .map(|left| format!("left_seconds={left}"))
        .into();
    assert_eq!(lines.len(), left.len(), "{said}");
    for (line, left) in lines.iter().zip(left) {
        assert!(
            line.contains("inflight=\"3\"") && line.ends_with(&left),
            "{line}"
        );
    }
}

/// What several writers write.
struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

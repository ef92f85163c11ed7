//! Every rule of the drain, under a paused clock.

use std::sync::Mutex;

use proptest::prelude::*;
use tokio::task::JoinHandle;
use tokio::time::{advance, sleep, timeout};

use super::*;

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
        budget: 25 * SECOND,
        readiness: Readiness::Now,
        when_blind: WhenBlind::Wait,
        poll_interval: Duration::from_millis(100),
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
        let readings = Arc::new(Mutex::new(
            readings.iter().copied().map(Some).collect::<Vec<_>>(),
        ));
        let shown = readings.clone();
        let count: Count = Arc::new(move |source| {
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
            .map(|n| format!("s{n}"))
            .collect();
        let (owner, handle, events) = new(policy.clone(), names, count, None);
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
            budget: 2 * SECOND,
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
            Event::Began => "began",
            Event::Ended(_) => "ended",
            Event::Serving => "serving",
        });
    }
    assert_eq!(seen, ["began", "ended", "serving"]);
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
    let count: Count = Arc::new(move |_| {
        *seen.lock().unwrap() += 1;
        Box::pin(async { QUIET })
    });
    let (owner, handle, _events) = new(policy(), vec!["s".to_owned()], count, None);
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
            budget: budget * SECOND,
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
                        let limit = policy.budget + SECOND;
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

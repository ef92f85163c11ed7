//! What a source that cannot be read means.

use super::*;

#[tokio::test(start_paused = true)]
async fn unknown_is_not_zero() {
    let pod = TestPod::new(Reading::Unknown);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Deadline, None)
    );
}

#[tokio::test(start_paused = true)]
async fn unknown_interrupts_a_quiet_period() {
    let pod = TestPod::new(QUIET);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(4.5)).await;
    pod.show(0, Reading::Unknown);
    sleep(seconds(1.0)).await;
    pod.show(0, QUIET);
    assert!(about(verdict.await.unwrap().took, 6.5));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_hangs_is_unknown_and_the_deadline_holds() {
    let pod = TestPod::new(QUIET);
    pod.hang(0);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Deadline, None)
    );
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn all_sources_must_be_quiet_and_a_hung_one_holds_up_no_other() {
    let pod = TestPod::with(policy(), &[QUIET, BUSY]);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(pod.phase(), Phase::Draining);
    pod.show(1, QUIET);
    assert!(about(verdict.await.unwrap().took, 8.0));

    let pod = TestPod::with(
        Policy {
            when_blind: WhenBlind::Window(8 * SECOND),
            ..policy()
        },
        &[QUIET, QUIET],
    );
    pod.hang(0);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!((verdict.outcome, verdict.inflight), (Outcome::Blind, None));
    assert_eq!(
        verdict.sources,
        [("s0".to_owned(), None), ("s1".to_owned(), Some(0.0))]
    );
    assert!(about(verdict.took, 8.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_blind_window_begins_anew_after_each_count() {
    let pod = TestPod::with(
        Policy {
            when_blind: WhenBlind::Window(6 * SECOND),
            ..policy()
        },
        &[Reading::Unknown],
    );
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(4 * SECOND).await;
    pod.show(0, BUSY);
    sleep(4 * SECOND).await;
    pod.show(0, Reading::Unknown);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Blind);
    assert!(about(verdict.took, 14.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn to_proceed_when_blind_still_waits_for_routes() {
    let pod = TestPod::with(
        Policy {
            when_blind: WhenBlind::Proceed,
            ..policy()
        },
        &[Reading::Unknown],
    );
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Blind);
    assert!(about(verdict.took, 5.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn to_proceed_when_blind_takes_a_quiet_period_of_blindness() {
    let proceed = Policy {
        when_blind: WhenBlind::Proceed,
        min_wait: Duration::ZERO,
        ..policy()
    };
    let pod = TestPod::with(proceed, &[Reading::Unknown]);
    assert!(about(pod.drain(Trigger::AppHook).await.took, 1.0));
}

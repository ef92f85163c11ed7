//! When the work is done, as far as the sources say.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_idle_app_is_drained_when_min_wait_is_over() {
    let pod = TestPod::new(QUIET);
    let verdict = pod.drain(Trigger::AppHook).await;
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
    let pod = TestPod::new(BUSY);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(9 * SECOND).await;
    pod.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 10.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_dips_to_zero_within_the_quiet_period_ends_nothing() {
    let pod = TestPod::new(BUSY);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(6 * SECOND).await;
    for _ in 0..5 {
        pod.show(0, QUIET);
        sleep(seconds(0.7)).await;
        pod.show(0, BUSY);
        sleep(seconds(0.3)).await;
        assert_eq!(pod.phase(), Phase::Draining);
    }
    pod.show(0, QUIET);
    assert!(about(verdict.await.unwrap().took, 12.0));
}

#[tokio::test(start_paused = true)]
async fn up_to_max_inflight_counts_as_quiet() {
    let pod = TestPod::with(
        Policy {
            max_inflight: 3.0,
            ..policy()
        },
        &[BUSY],
    );
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Drained, Some(3.0))
    );
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_drain_whose_work_does_not_end() {
    let pod = TestPod::new(BUSY);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Deadline, Some(3.0))
    );
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_budget_shorter_than_min_wait_wins() {
    let pod = TestPod::with(
        Policy {
            timeout: Some(2 * SECOND),
            ..policy()
        },
        &[QUIET],
    );
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(about(verdict.took, 2.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_read_from_before_min_wait_was_over_ends_nothing() {
    // The read begins before and ends after; what came in between is not in it.
    let pod = TestPod::new(BUSY);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(3.0)).await;
    pod.show(0, QUIET);
    sleep(seconds(1.5)).await;
    pod.hang(0);
    sleep(seconds(0.8)).await;
    pod.show(0, QUIET);
    sleep(Duration::from_millis(15)).await;
    pod.show(0, BUSY);
    sleep(seconds(2.0)).await;
    assert_eq!(pod.phase(), Phase::Draining);
    pod.show(0, QUIET);
    assert!(about(verdict.await.unwrap().took, 8.3));
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
    let mut history = SourceHistory::new(now, &source("s"));
    history.take(&read(0.0, 1.0), 0.0);
    history.take(&read(1.5, 3.0), 0.0);
    assert_eq!(
        history.read_wanted(&policy(), Some(now - 5 * SECOND)),
        Some(now + seconds(2.0))
    );
    let quiet = Policy {
        min_wait: Duration::ZERO,
        ..policy()
    };
    let mut facts = Facts::new(now, now + 25 * SECOND, &[], 0, false);
    facts.sources = vec![history];
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

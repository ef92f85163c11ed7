//! When routes have changed.

use super::*;

#[tokio::test(start_paused = true)]
async fn without_arrivals_one_quiet_read_after_min_wait_ends_a_drain() {
    let watched = WatchedPod::with(policy(), BUSY);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining);
    watched.pod.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 7.0), "no quiet period: {verdict:?}");
    assert_eq!(verdict.arrivals, Some(0));
}

#[tokio::test(start_paused = true)]
async fn while_requests_arrive_a_quiet_app_is_not_drained() {
    let watched = WatchedPod::with(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    (watched.while_draining(36, SECOND / 3, || watched.arrive())).await;
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
    let watched = WatchedPod::with(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(4 * SECOND).await;
    watched.arrive();
    let verdict = verdict.await.unwrap();
    assert!(about(verdict.took, 14.0), "at most max-quiet: {verdict:?}");

    let watched = WatchedPod::with(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    for _ in 0..590 {
        sleep(Duration::from_millis(10)).await;
        watched.arrive();
    }
    let verdict = verdict.await.unwrap();
    assert!(
        about(verdict.took, 6.9),
        "at least the quiet period: {verdict:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn arrivals_without_end_last_until_the_deadline() {
    let watched = WatchedPod::with(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    let verdict = verdict_while(verdict, SECOND / 2, || watched.arrive()).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_arrival_means_that_routes_had_not_changed() {
    let watched = WatchedPod::with(policy(), BUSY);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(8 * SECOND).await;
    assert!(watched.routes_changed.lock().unwrap().is_some());
    watched.arrive();
    sleep(SECOND / 2).await;
    assert!(watched.routes_changed.lock().unwrap().is_none());
    watched.pod.show(0, QUIET);
    // One in 8 s: five times as long, but not more than max-quiet.
    assert!(about(verdict.await.unwrap().took, 18.0));
}

#[tokio::test(start_paused = true)]
async fn where_traffic_cannot_be_seen_quiet_has_to_last() {
    let watched = WatchedPod::with(policy(), BUSY);
    *watched.snapshot.lock().unwrap() = None;
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    watched.pod.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert!(about(verdict.took, 8.0), "a quiet period: {verdict:?}");
    assert_eq!(verdict.arrivals, None);
}

#[tokio::test(start_paused = true)]
async fn a_look_that_fails_proves_nothing_and_takes_nothing_for_granted() {
    let watched = WatchedPod::with(policy(), QUIET);
    watched.change(|snapshot| snapshot.listens = true);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    for _ in 0..30 {
        watched.arrive();
        sleep(seconds(0.3)).await;
    }
    *watched.snapshot.lock().unwrap() = None;
    sleep(SECOND).await;
    assert_eq!(
        watched.pod.phase(),
        Phase::Draining,
        "requests still arrive"
    );
    // For good: then only time can tell.
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 19.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_the_app_has_not_counted_yet_is_waited_for() {
    let watched = WatchedPod::with(policy(), QUIET);
    watched.change(|snapshot| snapshot.unanswered = 1);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining);
    watched.change(|snapshot| snapshot.unanswered = 0);
    assert!(about(verdict.await.unwrap().took, 7.0));

    let watched = WatchedPod::with(policy(), QUIET);
    watched.change(|snapshot| snapshot.unanswered = 1);
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(
        about(verdict.took, 10.0),
        "but for max-quiet at most: {verdict:?}"
    );
}

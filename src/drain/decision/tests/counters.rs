//! Counters of requests, which say whether routes have changed.

use super::*;

#[tokio::test(start_paused = true)]
async fn while_a_counter_rises_routes_lead_here_though_no_connection_arrives() {
    let watched = WatchedPod::counting(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    (watched.while_draining(36, SECOND / 3, || watched.count(1.0))).await;
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.requests, verdict.arrivals),
        (Outcome::Drained, Some(36), Some(0))
    );
    // 36 in 12 s: (5 + ln 36) · 12 / 36.
    assert!(about(verdict.took, 12.0 + 8.58 / 3.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_and_is_not_counted_is_no_client() {
    let watched = WatchedPod::counting(policy(), QUIET);
    watched.count(1000.0);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    let verdict = verdict_while(verdict, SECOND / 2, || watched.arrive()).await;
    assert_eq!(
        (verdict.outcome, verdict.requests),
        (Outcome::Drained, Some(0))
    );
    assert!(about(verdict.took, 5.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_has_never_counted_anything_does_not_decide_over_connections() {
    let watched = WatchedPod::counting(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(4 * SECOND).await;
    watched.arrive();
    let verdict = verdict.await.unwrap();
    assert!(about(verdict.took, 14.0), "as connections say: {verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn where_a_counter_cannot_be_read_connections_decide_alone() {
    let watched = WatchedPod::counting(policy(), QUIET);
    *watched.pod.counter.lock().unwrap() = Reading::Unknown;
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(4 * SECOND).await;
    watched.arrive();
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.requests),
        (Outcome::Drained, None)
    );
    assert!(about(verdict.took, 14.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_has_come_and_is_not_counted_yet_is_waited_for() {
    let watched = WatchedPod::counting(policy(), QUIET);
    watched.count(1000.0);
    watched.change(|snapshot| snapshot.unanswered = 1);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(7 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining);
    watched.change(|snapshot| snapshot.unanswered = 0);
    assert!(about(verdict.await.unwrap().took, 7.0));
}

#[tokio::test(start_paused = true)]
async fn without_connections_a_counter_tells_when_min_wait_is_not_enough() {
    let pod = TestPod::counting(policy(), QUIET);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    for n in 1..=7 {
        sleep(SECOND).await;
        *pod.counter.lock().unwrap() = Reading::Count(f64::from(n));
    }
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.requests),
        (Outcome::Drained, Some(7))
    );
    // 7 in 7 s: 5 + ln 7, and the quiet period is over by then.
    assert!(about(verdict.took, 7.0 + 6.95), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_in_use_nothing_but_silence_ends_what_a_counter_sees() {
    let watched = WatchedPod::counting(policy(), QUIET);
    watched.change(|snapshot| snapshot.remaining = Some(0));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(4.5)).await;
    watched.count(1.0);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 14.5), "max-quiet: {verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_gauge_in_place_of_a_counter_is_not_believed() {
    let watched = WatchedPod::counting(policy(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    for value in [5.0, 2.0, 4.0, 1.0, 3.0, 1.0] {
        sleep(seconds(0.5)).await;
        *watched.pod.counter.lock().unwrap() = Reading::Count(value);
    }
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.requests),
        (Outcome::Drained, None)
    );
    assert!(about(verdict.took, 5.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn clients_that_keep_their_connections_do_not_hold_a_drain_though_a_counter_rises() {
    let watched = WatchedPod::counting(policy(), BUSY);
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (3, Some(0)));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    let verdict = verdict_while(verdict, SECOND / 10, || watched.count(1.0)).await;
    assert_eq!(verdict.outcome, Outcome::Persistent);
    assert!(
        (12.0..15.3).contains(&verdict.took.as_secs_f64()),
        "a proxy has nearly all of max-quiet to change its routes: {verdict:?}"
    );
}

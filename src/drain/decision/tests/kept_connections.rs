//! Clients that keep their connections.

use super::*;

#[tokio::test(start_paused = true)]
async fn clients_that_keep_their_connections_have_max_quiet_to_leave_a_moment_of_quiet() {
    let watched = WatchedPod::with(policy(), BUSY);
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (3, Some(2)));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(9 * SECOND).await;
    watched.change(|snapshot| snapshot.remaining = Some(0));
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.persistent),
        (Outcome::Persistent, Some(3))
    );
    assert!(
        about(verdict.took, 13.0),
        "no count was lower than that for long enough: {verdict:?}"
    );

    let watched = WatchedPod::with(policy(), BUSY);
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (3, Some(0)));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(6 * SECOND).await;
    watched.pod.show(0, Reading::Count(4.0));
    sleep(3 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining, "it was lower before");
    watched.pod.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert!(
        matches!(verdict.outcome, Outcome::Drained | Outcome::Persistent),
        "that moment came: {verdict:?}"
    );
    assert!(about(verdict.took, 9.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_counted_yet_makes_no_moment_a_good_one() {
    let watched = WatchedPod::with(policy(), QUIET);
    watched.change(|snapshot| {
        (snapshot.active, snapshot.unanswered, snapshot.remaining) = (1, 1, Some(0));
    });
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(8 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining);
    watched.change(|snapshot| snapshot.unanswered = 0);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained);
    assert!(about(verdict.took, 8.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_share_a_connection_are_waited_for_until_the_deadline() {
    let watched = WatchedPod::with(policy(), BUSY);
    // Three requests in flight and two connections: one carries several, and one of these may be an old one.
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (2, Some(0)));
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn while_clients_keep_their_connections_the_drain_ends_at_a_low_count() {
    let watched = WatchedPod::with(policy(), Reading::Count(2.0));
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (9, Some(0)));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(5.5)).await;
    watched.pod.show(0, Reading::Count(9.0));
    sleep(seconds(3.5)).await;
    assert_eq!(watched.pod.phase(), Phase::Draining, "it was lower before");
    watched.pod.show(0, Reading::Count(2.0));
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Persistent, Some(2.0))
    );
    assert!(about(verdict.took, 9.0), "{verdict:?}");
}

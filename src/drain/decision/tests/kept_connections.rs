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
    assert!(about(verdict.took, 19.0), "{verdict:?}");

    let watched = WatchedPod::with(policy(), BUSY);
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (3, Some(0)));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(9 * SECOND).await;
    watched.pod.show(0, QUIET);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::Drained, "that moment came");
    assert!(about(verdict.took, 9.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_share_a_connection_are_waited_for_until_the_deadline() {
    let watched = WatchedPod::with(policy(), BUSY);
    // Three requests in flight and two connections: one carries several, and one of these may be an old one.
    watched.change(|snapshot| (snapshot.active, snapshot.remaining) = (2, Some(0)));
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

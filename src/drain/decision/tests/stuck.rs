//! A count that has not moved since the drain began, while no connection is open.

use super::*;
use crate::drain::WhenStuck;

fn ends() -> Policy {
    Policy {
        when_stuck: Some(WhenStuck::End),
        ..policy()
    }
}

#[tokio::test(start_paused = true)]
async fn it_ends_the_drain_after_max_quiet_where_the_policy_says_so() {
    let watched = WatchedPod::with(ends(), BUSY);
    watched.change(|snapshot| (snapshot.open, snapshot.listens) = (1, true));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(3 * SECOND).await;
    watched.change(|snapshot| snapshot.open = 0);
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Stuck, Some(3.0))
    );
    assert!(about(verdict.took, 13.0), "{verdict:?}");
    assert!(about(verdict.stuck.unwrap(), 10.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn it_is_waited_for_and_said_where_the_policy_does_not() {
    let watched = WatchedPod::with(policy(), BUSY);
    watched.change(|snapshot| snapshot.listens = true);
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(verdict.stuck.unwrap() > 24 * SECOND, "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_moves_or_a_client_that_is_connected_is_work() {
    let watched = WatchedPod::with(ends(), BUSY);
    watched.change(|snapshot| snapshot.listens = true);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(2 * SECOND).await;
    watched.pod.show(0, Reading::Count(2.0));
    let verdict = verdict.await.unwrap();
    assert_eq!((verdict.outcome, verdict.stuck), (Outcome::Deadline, None));

    let watched = WatchedPod::with(ends(), BUSY);
    watched.change(|snapshot| (snapshot.open, snapshot.listens) = (1, true));
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!((verdict.outcome, verdict.stuck), (Outcome::Deadline, None));

    let unwatched = TestPod::with(ends(), &[BUSY]);
    let verdict = unwatched.drain(Trigger::AppHook).await;
    assert_eq!((verdict.outcome, verdict.stuck), (Outcome::Deadline, None));
}

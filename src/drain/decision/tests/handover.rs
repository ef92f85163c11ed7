//! The handover to an app that finishes its work by itself.

use super::*;
use crate::drain::AppShutdown;

fn graceful() -> Policy {
    Policy {
        app_shutdown: AppShutdown::Graceful,
        reserve: Duration::ZERO,
        ..policy()
    }
}

#[tokio::test(start_paused = true)]
async fn the_hook_is_answered_when_routes_have_changed_and_the_work_is_the_apps() {
    let watched = WatchedPod::with(graceful(), BUSY);
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::HandedOver, Some(3.0))
    );
    assert!(about(verdict.took, 5.0), "{verdict:?}");
    assert_eq!(verdict.deadline, 30 * SECOND, "nothing is kept back");
}

#[tokio::test(start_paused = true)]
async fn it_never_comes_before_routes_have_changed() {
    let watched = WatchedPod::with(graceful(), QUIET);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    (watched.while_draining(36, SECOND / 3, || watched.arrive())).await;
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::HandedOver);
    assert!(about(verdict.took, 12.0 + 8.58 / 3.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn kept_connections_are_a_reason_to_wait_for_a_good_moment_and_no_longer_than_max_quiet() {
    // Of ten connections three are busy, which the app finishes; seven are idle, which it closes at once.
    let watched = WatchedPod::with(graceful(), BUSY);
    watched.change(|snapshot| (snapshot.open, snapshot.waiting) = (10, 3));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(5.5)).await;
    watched.change(|snapshot| snapshot.waiting = 2);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::HandedOver);
    assert!(
        (7.0..=10.1).contains(&verdict.took.as_secs_f64()),
        "it was better at first, and less is asked for as time runs out: {verdict:?}"
    );

    let watched = WatchedPod::with(graceful(), BUSY);
    watched.change(|snapshot| (snapshot.open, snapshot.waiting) = (10, 3));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(5.5)).await;
    watched.change(|snapshot| snapshot.waiting = 10);
    let verdict = verdict.await.unwrap();
    assert!(about(verdict.took, 5.5), "none is idle: {verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn where_clients_use_kept_connections_alone_no_new_one_says_little_about_routes() {
    for (kept_in_use, arrivals, took) in [
        (3, 0, 7.5),
        (3, 6, 7.5),
        (3, 7, 5.0),
        (0, 0, 5.0),
        (0, 7, 5.0),
    ] {
        let watched = WatchedPod::with(graceful(), BUSY);
        watched.change(|snapshot| {
            snapshot.kept_in_use = kept_in_use;
            (snapshot.open, snapshot.waiting) = (3, 3);
        });
        let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
        for _ in 0..arrivals {
            watched.arrive();
        }
        let verdict = verdict.await.unwrap();
        assert_eq!(verdict.outcome, Outcome::HandedOver);
        assert!(about(verdict.took, took), "{verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_on_kept_connections_hold_it_until_max_quiet_after_the_last_new_connection() {
    let watched = WatchedPod::counting(graceful(), BUSY);
    watched.change(|snapshot| (snapshot.open, snapshot.waiting) = (3, 3));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    let verdict = verdict_while(verdict, SECOND / 10, || watched.count(1.0)).await;
    assert_eq!(verdict.outcome, Outcome::HandedOver);
    assert!(
        (7.5..=10.1).contains(&verdict.took.as_secs_f64()),
        "{verdict:?}"
    );

    // Its silence ends it sooner.
    let watched = WatchedPod::counting(graceful(), BUSY);
    watched.change(|snapshot| (snapshot.open, snapshot.waiting) = (10, 3));
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    for _ in 0..50 {
        sleep(SECOND / 10).await;
        watched.count(1.0);
    }
    let verdict = verdict.await.unwrap();
    // 50 in 5 s: (5 + ln 50) · 5 / 50 is less than the quiet period.
    assert!(about(verdict.took, 6.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_watch_min_wait_is_all_there_is_to_wait_for() {
    let pod = TestPod::with(graceful(), &[BUSY]);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::HandedOver);
    assert!(about(verdict.took, 5.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn what_never_leaves_ends_with_the_grace_period() {
    let watched = WatchedPod::with(graceful(), BUSY);
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    let verdict = verdict_while(verdict, SECOND / 2, || watched.arrive()).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(about(verdict.took, 30.0), "{verdict:?}");
}

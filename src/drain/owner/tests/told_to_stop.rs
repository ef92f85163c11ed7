//! When the sidecar itself ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn while_serving_no_timer_runs_and_nothing_is_read() {
    let reads = Arc::new(Mutex::new(0));
    let seen = reads.clone();
    let count: ReadCount = Arc::new(move |_| {
        *seen.lock().unwrap() += 1;
        Box::pin(async { QUIET })
    });
    let (owner, handle, _events) = new(policy(), Inputs::new(vec![source("s")], count));
    let owner = tokio::spawn(owner.run());
    advance(3600 * SECOND).await;
    assert_eq!(*reads.lock().unwrap(), 0);
    drop(handle);
    owner.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_that_is_to_end_with_its_app_does_when_the_app_has_gone_for_long_enough() {
    let told = Policy {
        exit_with_app: true,
        ..policy()
    };
    let pod = TestPod::with(told.clone(), &[BUSY]);
    sleep(100 * SECOND).await;
    // Restarted after a crash.
    pod.show(0, Reading::Gone);
    sleep(9 * SECOND).await;
    pod.show(0, QUIET);
    sleep(100 * SECOND).await;
    pod.show(0, Reading::Unknown);
    sleep(100 * SECOND).await;
    assert!(!pod.owner.is_finished());
    assert_eq!(pod.phase(), Phase::Serving);
    pod.show(0, Reading::Gone);
    sleep(9 * SECOND).await;
    assert!(!pod.owner.is_finished());
    sleep(4 * SECOND).await;
    assert!(pod.owner.is_finished());
    assert_eq!(pod.phase(), Phase::Serving, "no caller had to wait");

    let untold = TestPod::new(Reading::Gone);
    sleep(1000 * SECOND).await;
    assert!(!untold.owner.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_native_sidecar_told_to_stop_after_its_app_stops_at_once() {
    let pod = TestPod::new(Reading::Gone);
    drop(pod.handle.drain(Trigger::Signal).await);
    timeout(SECOND, pod.owner).await.unwrap().unwrap();

    let pod = TestPod::new(QUIET);
    pod.drain(Trigger::SelfHook).await;
    pod.show(0, Reading::Gone);
    sleep(SECOND).await;
    assert!(!pod.owner.is_finished(), "it was not told to stop");
    drop(pod.handle.drain(Trigger::Signal).await);
    timeout(SECOND, pod.owner).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_sidecar_told_to_stop_first_stays_until_the_app_is_gone() {
    let pod = TestPod::new(BUSY);
    let verdict = pod.handle.drain(Trigger::Signal).await;
    let hook = pod.handle.drain(Trigger::AppHook).await;
    sleep(6 * SECOND).await;
    pod.show(0, QUIET);
    assert!(Arc::ptr_eq(&verdict.await.unwrap(), &hook.await.unwrap()));
    sleep(3 * SECOND).await;
    assert!(!pod.owner.is_finished(), "the app still stops");
    assert!(!pod.ready());
    pod.show(0, Reading::Gone);
    timeout(SECOND, pod.owner).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_ordinary_sidecar_does_not_take_an_unreadable_app_for_a_gone_one() {
    let pod = TestPod::new(QUIET);
    let _pending = pod.handle.drain(Trigger::Signal).await;
    sleep(6 * SECOND).await;
    assert_eq!(pod.phase(), Phase::Drained);
    pod.show(0, Reading::Unknown);
    sleep(5 * SECOND).await;
    assert!(!pod.owner.is_finished());
    pod.show(0, Reading::Gone);
    sleep(SECOND).await;
    assert!(pod.owner.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_told_to_stop_ends_with_its_budget_at_the_latest() {
    let began = Instant::now();
    let pod = TestPod::new(BUSY);
    drop(pod.handle.drain(Trigger::Signal).await);
    pod.owner.await.unwrap();
    assert!(about(began.elapsed(), 25.0));
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_told_to_stop_when_the_time_is_up_stays_for_a_last_look() {
    for gone_after in [Some(0.2), None] {
        let pod = TestPod::new(BUSY);
        pod.drain(Trigger::SelfHook).await;
        // The app goes on for as long as it is granted, and is killed.
        sleep(5 * SECOND).await;
        let told = Instant::now();
        drop(pod.handle.drain(Trigger::Signal).await);
        if let Some(after) = gone_after {
            sleep(seconds(after)).await;
            assert!(
                !pod.owner.is_finished(),
                "which requests that cuts off is not known yet"
            );
            pod.show(0, Reading::Gone);
        }
        pod.owner.await.unwrap();
        let took = told.elapsed();
        assert!(took <= FINAL_READ, "{took:?}");
        assert_eq!(took < FINAL_READ, gone_after.is_some(), "{took:?}");
    }
}

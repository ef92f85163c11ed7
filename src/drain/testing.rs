//! A pod whose sources, and whose traffic, say what a test wants, under a paused clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::oneshot::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::*;

pub const SECOND: Duration = Duration::from_secs(1);
pub const BUSY: Reading = Reading::Count(3.0);
pub const QUIET: Reading = Reading::Count(0.0);

/// A pod whose sources say whatever a test wants them to, at any time.
pub struct TestPod {
    pub handle: Handle,
    pub events: mpsc::UnboundedReceiver<Event>,
    pub owner: JoinHandle<()>,
    pub readings: Arc<Mutex<Vec<Option<Reading>>>>,
    /// What the counter says, where there is one.
    pub counter: Arc<Mutex<Reading>>,
    pub policy: Policy,
}

/// A pod whose traffic a test makes up too.
pub struct WatchedPod {
    pub pod: TestPod,
    pub snapshot: Arc<Mutex<Option<TrafficSnapshot>>>,
    /// When routes have changed, as the last read of the traffic was told.
    pub routes_changed: Arc<Mutex<Option<Instant>>>,
}

impl TestPod {
    pub fn with(policy: Policy, readings: &[Reading]) -> Self {
        Self::build(policy, readings, None, false)
    }

    /// One that has a counter of requests, which stands at zero.
    pub fn counting(policy: Policy, reading: Reading) -> Self {
        Self::build(policy, &[reading], None, true)
    }

    pub fn build(
        policy: Policy,
        readings: &[Reading],
        read_traffic: Option<ReadTraffic>,
        counting: bool,
    ) -> Self {
        let readings = Arc::new(Mutex::new(
            readings.iter().copied().map(Some).collect::<Vec<_>>(),
        ));
        let shown = readings.clone();
        let count: ReadCount = Arc::new(move |source| {
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
        let sources = (0..readings.lock().unwrap().len())
            .map(|n| source(&format!("s{n}")))
            .collect();
        let counter = Arc::new(Mutex::new(Reading::Count(0.0)));
        let shown = counter.clone();
        let read_counter: ReadCount = Arc::new(move |_| {
            let shown = shown.clone();
            Box::pin(async move {
                sleep(Duration::from_millis(1)).await;
                *shown.lock().unwrap()
            })
        });
        let inputs = Inputs {
            read_traffic,
            counters: if counting {
                vec!["c".to_owned()]
            } else {
                Vec::new()
            },
            read_counter,
            ..Inputs::new(sources, count)
        };
        let (owner, handle, events) = new(policy.clone(), inputs);
        Self {
            handle,
            events,
            owner: tokio::spawn(owner.run()),
            readings,
            counter,
            policy,
        }
    }

    pub fn new(reading: Reading) -> Self {
        Self::with(policy(), &[reading])
    }

    pub fn show(&self, source: usize, reading: Reading) {
        self.readings.lock().unwrap()[source] = Some(reading);
    }

    pub fn hang(&self, source: usize) {
        self.readings.lock().unwrap()[source] = None;
    }

    pub fn phase(&self) -> Phase {
        self.handle.state().phase
    }

    pub fn ready(&self) -> bool {
        self.handle
            .state()
            .ready(self.policy.readiness, Instant::now())
    }

    pub async fn drain(&self, trigger: Trigger) -> Arc<Verdict> {
        self.handle.drain(trigger).await.await.unwrap()
    }

    /// What the pod's object says of the drain that runs.
    pub async fn pod_facts(&self, pod: PodFacts) {
        let began = self.handle.state().drain.unwrap().began;
        self.handle.pod_facts(began, pod).await;
        tokio::task::yield_now().await;
    }
}

impl WatchedPod {
    pub fn with(policy: Policy, reading: Reading) -> Self {
        Self::build(policy, reading, false)
    }

    /// One that has a counter of requests too.
    pub fn counting(policy: Policy, reading: Reading) -> Self {
        Self::build(policy, reading, true)
    }

    /// So many more requests are counted.
    pub fn count(&self, requests: f64) {
        let mut counter = self.pod.counter.lock().unwrap();
        if let Reading::Count(n) = &mut *counter {
            *n += requests;
        }
    }

    fn build(policy: Policy, reading: Reading, counting: bool) -> Self {
        let snapshot = Arc::new(Mutex::new(Some(TrafficSnapshot::default())));
        let routes_changed = Arc::new(Mutex::new(None));
        let (shown, told) = (snapshot.clone(), routes_changed.clone());
        let read_traffic: ReadTraffic = Arc::new(move |_, routes_changed| {
            let (shown, told) = (shown.clone(), told.clone());
            Box::pin(async move {
                *told.lock().unwrap() = routes_changed;
                let seen = shown.lock().unwrap().clone();
                sleep(Duration::from_millis(1)).await;
                seen.map(|snapshot| TrafficSnapshot {
                    remaining: routes_changed.and(snapshot.remaining),
                    ..snapshot
                })
            })
        });
        Self {
            pod: TestPod::build(policy, &[reading], Some(read_traffic), counting),
            snapshot,
            routes_changed,
        }
    }

    pub fn change(&self, change: impl FnOnce(&mut TrafficSnapshot)) {
        let mut snapshot = self.snapshot.lock().unwrap();
        change(snapshot.get_or_insert_default());
    }

    /// Does something so many times, during all of which the pod drains.
    pub async fn while_draining(&self, times: usize, every: Duration, again: impl Fn()) {
        for _ in 0..times {
            sleep(every).await;
            again();
            assert_eq!(self.pod.phase(), Phase::Draining);
        }
    }

    pub fn arrive(&self) {
        self.change(|snapshot| {
            snapshot.arrivals += 1;
            snapshot.last_arrival = Some(Instant::now());
        });
    }
}

/// The verdict of a drain, during which something is done again and again.
pub async fn verdict_while(
    verdict: impl Future<Output = Result<Arc<Verdict>, RecvError>>,
    every: Duration,
    again: impl Fn(),
) -> Arc<Verdict> {
    let again = async {
        loop {
            sleep(every).await;
            again();
        }
    };
    tokio::select! {
        verdict = verdict => verdict.unwrap(),
        () = again => unreachable!(),
    }
}

pub fn seconds(n: f64) -> Duration {
    Duration::from_secs_f64(n)
}

pub fn policy() -> Policy {
    Policy {
        max_inflight: 0.0,
        min_wait: 5 * SECOND,
        quiet_period: SECOND,
        max_quiet: 10 * SECOND,
        grace_period: 30 * SECOND,
        reserve: 5 * SECOND,
        app_shutdown: AppShutdown::Abrupt,
        when_stuck: None,
        timeout: None,
        readiness: Readiness::Now,
        when_blind: WhenBlind::Wait,
        poll_interval: Duration::from_millis(100),
        exit_with_app: false,
    }
}

/// How a drain went of which nothing else is known.
pub fn verdict() -> Verdict {
    Verdict {
        outcome: Outcome::Drained,
        took: 3 * SECOND,
        inflight: None,
        trigger: Trigger::AppHook,
        going: true,
        deadline: 25 * SECOND,
        sources: Vec::new(),
        arrivals: None,
        last_arrival: None,
        requests: None,
        stuck: None,
        persistent: None,
        reason: None,
        waiting_for: None,
        visitors: None,
    }
}

pub fn source(name: &str) -> Source {
    Source {
        name: name.to_owned(),
        connections: false,
        ends_when_stuck: false,
    }
}

pub fn about(took: Duration, expected: f64) -> bool {
    (expected..expected + 0.25).contains(&took.as_secs_f64())
}

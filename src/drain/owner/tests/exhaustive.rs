//! Every order of a few events, each from every state that they can lead to: whatever the verdict, the rules that keep
//! requests and pods safe hold.
//!
//! Unlike [`super::model`] this knows nothing of when a drain should end, and so takes in what no simple model can follow:
//! arrivals, monitors, counts that are stuck, kept connections, handovers, drains by hand. The rules:
//!
//! - a pod that is going is never ready, and neither is one that drains;
//! - no hook is answered before min-wait has passed since the first sign that the app stops, unless the budget is over,
//!   an operator has released it, the app is gone, or that drain was over already;
//! - every caller is answered by the deadline;
//! - there are never two drains at once;
//! - a pod that is not going serves again once its app is back.

use tokio::task::JoinHandle;

use super::*;
use crate::drain::testing::WatchedPod;
use crate::drain::{AppShutdown, WhenStuck};

const MIN_WAIT: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(8);

/// How late the drain may follow, at the most: one read of each kind.
const LATE: Duration = Duration::from_millis(300);

/// How often the rules are checked.
const TICK: Duration = Duration::from_millis(250);

/// After the last event: the longest grace period, and an app that comes back.
const REST: Duration = Duration::from_secs(14);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Call(Trigger),
    Undo,
    Release,
    /// The pod's object says that it was deleted, with this grace period in seconds.
    Deleted(u64),
    World(World),
    Arrival,
    /// Those that arrived were a monitor's.
    Monitors,
}

/// The app, its clients and what can be seen of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum World {
    Idle,
    Busy,
    /// A count without a connection.
    Stuck,
    /// Requests come again and again, on connections from before the drain.
    Kept,
    /// Nothing can be read.
    Unreadable,
    Down,
    /// It was started again while nothing looked.
    Replaced,
}

const CALLS: [Step; 4] = [
    Step::Call(Trigger::AppHook),
    Step::Call(Trigger::SelfHook),
    Step::Call(Trigger::Signal),
    Step::Call(Trigger::Manual),
];

const OTHERS: [Step; 13] = [
    Step::Undo,
    Step::Release,
    Step::Deleted(3),
    Step::Deleted(10),
    Step::World(World::Idle),
    Step::World(World::Busy),
    Step::World(World::Stuck),
    Step::World(World::Kept),
    Step::World(World::Unreadable),
    Step::World(World::Down),
    Step::World(World::Replaced),
    Step::Arrival,
    Step::Monitors,
];

/// Short and long beside the quiet period, min-wait and the budget.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(1200),
    Duration::from_millis(4500),
];

fn policies() -> [Policy; 3] {
    let abrupt = Policy {
        min_wait: MIN_WAIT,
        quiet_period: Duration::from_millis(500),
        max_quiet: Duration::from_secs(2),
        grace_period: GRACE,
        reserve: Duration::from_secs(2),
        when_stuck: Some(WhenStuck::Wait),
        ..policy()
    };
    [
        Policy {
            when_stuck: Some(WhenStuck::End),
            ..abrupt.clone()
        },
        Policy {
            app_shutdown: AppShutdown::Graceful,
            ..abrupt.clone()
        },
        Policy {
            when_blind: WhenBlind::Window(Duration::from_secs(1)),
            ..abrupt
        },
    ]
}

/// A caller that waits.
struct Caller {
    trigger: Trigger,
    /// The first sign that the app stops, of the drain that it waits for.
    first_sign: Option<Instant>,
    /// The drain that it asked for was over already.
    late: bool,
    answer: JoinHandle<Option<(Arc<Verdict>, Instant)>>,
}

/// One order of events, as it goes.
struct Case {
    watched: WatchedPod,
    world: World,
    callers: Vec<Caller>,
    /// Of the drain that runs.
    first_sign: Option<Instant>,
    drain_runs: bool,
    so_far: String,
}

impl Case {
    fn new(policy: Policy, world: World) -> Self {
        let case = Self {
            watched: WatchedPod::with(policy, QUIET),
            world,
            callers: Vec::new(),
            first_sign: None,
            drain_runs: false,
            so_far: format!("{world:?}"),
        };
        case.show(world);
        case
    }

    fn show(&self, world: World) {
        let reading = match world {
            World::Idle | World::Replaced => QUIET,
            World::Busy | World::Stuck | World::Kept => BUSY,
            World::Unreadable => Reading::Unknown,
            World::Down => Reading::Gone,
        };
        self.watched.pod.show(0, reading);
        self.watched.change(|snapshot| {
            let (open, waiting) = match world {
                World::Busy | World::Kept | World::Unreadable => (3, 3),
                World::Idle | World::Replaced => (1, 0),
                World::Stuck | World::Down => (0, 0),
            };
            (snapshot.open, snapshot.waiting, snapshot.active) = (open, waiting, waiting);
            snapshot.remaining = Some(if world == World::Kept { 0 } else { waiting });
            snapshot.listens = world != World::Down;
            snapshot.listener_replaced |= world == World::Replaced;
        });
    }

    async fn take(&mut self, step: Step) {
        self.so_far += &format!(" | {step:?}");
        let handle = self.watched.pod.handle.clone();
        match step {
            Step::Call(trigger) => self.call(trigger).await,
            Step::Undo => {
                let undone = handle.undo().await;
                let (going, phase) = (handle.state().going, handle.state().phase);
                if undone == Ok(()) {
                    assert!(!going && phase == Phase::Serving, "{}", self.so_far);
                }
            }
            Step::Release => drop(handle.release().await),
            Step::Deleted(granted) => {
                if let Some(drain) = handle.state().drain {
                    let facts = PodFacts {
                        going: true,
                        granted: Some(Duration::from_secs(granted)),
                        ..PodFacts::default()
                    };
                    handle.pod_facts(drain.began, facts).await;
                }
            }
            Step::World(world) => {
                self.world = world;
                self.show(world);
            }
            Step::Arrival => self.watched.arrive(),
            Step::Monitors => self.watched.change(|snapshot| {
                (snapshot.arrivals, snapshot.last_arrival) = (0, None);
            }),
        }
        tokio::task::yield_now().await;
        self.check();
    }

    async fn call(&mut self, trigger: Trigger) {
        let before = self.watched.pod.handle.state();
        let pending = self.watched.pod.handle.drain(trigger).await;
        let late = before.phase == Phase::Drained
            && self.watched.pod.phase() == Phase::Drained
            && (before.going || trigger == Trigger::Manual);
        self.check();
        if trigger != Trigger::Manual && !late {
            self.first_sign.get_or_insert_with(Instant::now);
            let first = self.first_sign;
            // Those that waited for a drain by hand wait for the app's end now.
            let waiting = (self.callers.iter_mut()).filter(|caller| !caller.answer.is_finished());
            for caller in waiting {
                caller.first_sign = caller.first_sign.or(first);
            }
        }
        self.callers.push(Caller {
            trigger,
            first_sign: self.first_sign,
            late,
            answer: tokio::spawn(async move {
                let verdict = pending.await.ok()?;
                Some((verdict, Instant::now()))
            }),
        });
    }

    /// Checks the rules on what can be seen at this moment.
    fn check(&mut self) {
        let pod = &mut self.watched.pod;
        while let Ok(event) = pod.events.try_recv() {
            match event {
                Event::Began(_) => {
                    let two = std::mem::replace(&mut self.drain_runs, true);
                    assert!(!two, "two drains at once: {}", self.so_far);
                    self.first_sign = None;
                }
                Event::Ended(drain, verdict) => {
                    let one = std::mem::replace(&mut self.drain_runs, false);
                    assert!(one, "an end without a beginning: {}", self.so_far);
                    let late = drain.began + verdict.took > drain.deadline + LATE;
                    // A deadline that was moved may be over already.
                    let moved = self.so_far.contains("Deleted");
                    assert!(!late || moved, "{verdict:?}: {}", self.so_far);
                }
                _ => {}
            }
        }
        if pod.owner.is_finished() {
            return;
        }
        let (state, ready) = (pod.handle.state(), pod.ready());
        assert!(!(ready && state.going), "ready and going: {}", self.so_far);
        assert_eq!(ready, state.phase == Phase::Serving, "{}", self.so_far);
        if let (Phase::Draining, Some(drain)) = (state.phase, state.drain) {
            assert!(
                Instant::now() <= drain.deadline + LATE,
                "beyond the deadline: {}",
                self.so_far
            );
        }
    }

    /// Lets time pass, and checks the rules all the while.
    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            sleep(TICK.min(until - Instant::now())).await;
            self.check();
        }
    }

    /// Waits for the longest that anything may take, and checks that every caller has its answer, and none too early.
    async fn end(mut self) {
        self.pass(REST).await;
        let ended = self.watched.pod.owner.is_finished();
        for caller in self.callers.drain(..) {
            assert!(
                caller.answer.is_finished(),
                "{:?} was not answered: {}",
                caller.trigger,
                self.so_far
            );
            let Some((verdict, answered)) = caller.answer.await.unwrap() else {
                assert!(ended, "no verdict: {}", self.so_far);
                continue;
            };
            let allowed = matches!(
                verdict.outcome,
                Outcome::Deadline | Outcome::Released | Outcome::AppGone
            );
            // What was undone was by hand, and no hook waited.
            let undone = verdict.outcome == Outcome::Undone;
            assert!(
                !undone || caller.trigger == Trigger::Manual,
                "{}",
                self.so_far
            );
            let waited = match caller.first_sign {
                Some(since) => answered - since,
                None => verdict.took,
            };
            assert!(
                allowed || undone || caller.late || waited >= MIN_WAIT,
                "{:?} was answered after {waited:?}, {}: {}",
                caller.trigger,
                verdict.outcome.name(),
                self.so_far
            );
        }
        if ended {
            return;
        }
        let state = self.watched.pod.handle.state();
        assert_ne!(state.phase, Phase::Draining, "{}", self.so_far);
        if state.phase == Phase::Reopening {
            self.show(World::Idle);
            sleep(GRACE + REST).await;
            let phase = self.watched.pod.phase();
            assert_eq!(phase, Phase::Serving, "{}", self.so_far);
        }
    }
}

/// Each order of a call and of so many further events, with each pause between them.
fn explore(further: usize) -> usize {
    let steps: Vec<Step> = CALLS.into_iter().chain(OTHERS).collect();
    let orders = steps.len().pow(further as u32);
    let mut cases = 0;
    for policy in policies() {
        for world in [World::Idle, World::Busy, World::Stuck] {
            for call in CALLS {
                for order in 0..orders {
                    let chosen = (0..further).scan(order, |rest, _| {
                        let step = steps[*rest % steps.len()];
                        *rest /= steps.len();
                        Some(step)
                    });
                    let chosen: Vec<Step> = chosen.collect();
                    for pause in PAUSES {
                        let runtime = tokio::runtime::Builder::new_current_thread()
                            .enable_time()
                            .start_paused(true)
                            .build()
                            .unwrap();
                        runtime.block_on(async {
                            let mut case = Case::new(policy.clone(), world);
                            case.take(call).await;
                            for &step in &chosen {
                                case.pass(pause).await;
                                case.take(step).await;
                            }
                            case.end().await;
                        });
                        cases += 1;
                    }
                }
            }
        }
    }
    cases
}

#[test]
fn whatever_event_follows_a_call_the_safety_rules_hold() {
    assert_eq!(explore(1), 3 * 3 * 4 * 17 * 3);
}

/// `cargo test --lib exhaustive -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn whatever_two_events_follow_a_call_the_safety_rules_hold() {
    assert_eq!(explore(2), 3 * 3 * 4 * 17 * 17 * 3);
}

//! What peers and fixed sleeps do as a hook, in real time: the peers' own programs where they can be had, else stand-ins that
//! follow the loops of their sources.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::AT_ONCE;
use super::programs::Peer;

#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// Its own program, or a stand-in.
    Peer(Peer),
    /// `sleep` with so many seconds.
    Sleep(u64),
}

const SECOND: Duration = Duration::from_secs(1);

impl Way {
    /// As the tables call it.
    pub fn name(self) -> String {
        match self {
            Self::Peer(peer) if peer.program().is_some() => peer.name().into(),
            Self::Peer(peer) => format!("{} (stand-in)", peer.name()),
            Self::Sleep(seconds) => format!("sleep {seconds}"),
        }
    }

    /// How many drains may run at once.
    pub fn at_once(self) -> usize {
        match self {
            Self::Peer(peer) if peer.program().is_some() => AT_ONCE,
            _ => usize::MAX,
        }
    }

    /// Drains an app whose last request came before the drain and ends so long after its begin; says when the hook was
    /// answered, in seconds after that end: less than 0 where the request was cut.
    pub fn drain(self, request: Duration) -> f64 {
        match self {
            Self::Peer(peer) if peer.program().is_some() => program(peer, request),
            Self::Peer(peer) => stand_in(peer, request),
            Self::Sleep(seconds) => {
                thread::sleep(Duration::from_secs(seconds));
                seconds as f64 - request.as_secs_f64()
            }
        }
    }
}

fn program(peer: Peer, request: Duration) -> f64 {
    let mut child = peer.inside(&request.as_secs_f64().to_string());
    let mut said = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_to_string(&mut said).unwrap();
    assert!(child.wait().unwrap().success());
    said.trim().parse().unwrap()
}

/// Each with the defaults of its source (Contour 31c4bb38e, Envoy Gateway d32f282942, Knative 98e5ef90aa). The hooks of both
/// containers of a pod begin at the same moment.
///
/// Contour, `cmd/contour/shutdownmanager.go`: `shutdownHandler` looks at once (`checkDelay` is 0) and then every
/// `checkInterval` (5 s); `shutdownReadyHandler` looks for its file every `shutdownReadyCheckInterval` (1 s).
///
/// Envoy Gateway, `internal/cmd/envoy/shutdown_manager.go`: `Shutdown` looks every second, and ends after `minDrainDuration`
/// (10 s, `internal/cmd/envoy.go`); `shutdownReadyHandler` looks for its file every second.
///
/// Knative, `pkg/queue/sharedmain/main.go` and the `Drainer` of `knative.dev/pkg/network/handlers`: 30 s
/// (`drainSleepDuration`) after the last request that came.
fn stand_in(peer: Peer, request: Duration) -> f64 {
    let began = Instant::now();
    let busy = move || began.elapsed() < request;
    match peer {
        Peer::Contour => hook_looks_for_file(move || {
            while busy() {
                thread::sleep(5 * SECOND);
            }
        }),
        Peer::EnvoyGateway => hook_looks_for_file(move || {
            while began.elapsed() <= 10 * SECOND || busy() {
                thread::sleep(SECOND);
            }
        }),
        Peer::Knative => thread::sleep(30 * SECOND),
    }
    began.elapsed().as_secs_f64() - request.as_secs_f64()
}

/// One hook waits for the work and writes a file; the other looks for the file every second.
fn hook_looks_for_file(wait: impl FnOnce() + Send + 'static) {
    let file = Arc::new(AtomicBool::new(false));
    let written = file.clone();
    thread::spawn(move || {
        wait();
        written.store(true, Ordering::SeqCst);
    });
    while !file.load(Ordering::SeqCst) {
        thread::sleep(SECOND);
    }
}

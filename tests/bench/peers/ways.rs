//! What peers and fixed sleeps do as a hook, in real time: stand-ins that follow the loops of the peers' sources.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Each with the defaults of its source (Contour 31c4bb38e, Envoy Gateway d32f282942; of Knative the constants were read). The
/// hooks of both containers of a pod begin at the same moment.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// Contour, `cmd/contour/shutdownmanager.go`: `shutdownHandler` looks at once (`checkDelay` is 0) and then every
    /// `checkInterval` (5 s); `shutdownReadyHandler` looks for its file every `shutdownReadyCheckInterval` (1 s).
    Contour,
    /// Envoy Gateway, `internal/cmd/envoy/shutdown_manager.go`: `Shutdown` looks every second, and ends after
    /// `minDrainDuration` (10 s, `internal/cmd/envoy.go`); `shutdownReadyHandler` looks for its file every second.
    EnvoyGateway,
    /// Knative, `pkg/queue/sharedmain/main.go` and the `Drainer` of `knative.dev/pkg/network/handlers`: 30 s
    /// (`drainSleepDuration`) after the last request that came, then every second until none is pending.
    Knative,
    /// `sleep` with so many seconds.
    Sleep(u64),
}

const SECOND: Duration = Duration::from_secs(1);

impl Way {
    /// As the tables call it.
    pub fn name(self) -> String {
        match self {
            Self::Contour => "Contour".into(),
            Self::EnvoyGateway => "Envoy Gateway".into(),
            Self::Knative => "Knative".into(),
            Self::Sleep(seconds) => format!("sleep {seconds}"),
        }
    }

    /// Drains an app whose last request came before the drain and ends so long after its begin; says when the hook was
    /// answered, in seconds after that end: less than 0 where the request was cut.
    pub fn drain(self, request: Duration) -> f64 {
        let began = Instant::now();
        let busy = move || began.elapsed() < request;
        match self {
            Self::Contour => hook_looks_for_file(move || {
                while busy() {
                    thread::sleep(5 * SECOND);
                }
            }),
            Self::EnvoyGateway => hook_looks_for_file(move || {
                while began.elapsed() <= 10 * SECOND || busy() {
                    thread::sleep(SECOND);
                }
            }),
            Self::Knative => {
                thread::sleep(31 * SECOND);
                while busy() {
                    thread::sleep(SECOND);
                }
            }
            Self::Sleep(seconds) => thread::sleep(Duration::from_secs(seconds)),
        }
        began.elapsed().as_secs_f64() - request.as_secs_f64()
    }
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

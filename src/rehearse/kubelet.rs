//! The kubelet, as far as it terminates: hooks, SIGTERM, SIGKILL, readiness probes.
//!
//! | rule of the kubelet | where it is played |
//! | --- | --- |
//! | on deletion the app's hook and the sidecar's own are called at once | [`terminate`] |
//! | on a restart only the app's hook is called | [`terminate`], `restart` |
//! | only a transport error fails an httpGet hook, its status is not looked at, and then SIGTERM comes at once | [`call_hook`] |
//! | the body of a hook's answer is read to its end or to 10 KiB | [`call_hook`] |
//! | hooks and probes come from the node's address, not from a client's | [`KUBELET`] |
//! | a hook may take the whole grace period; SIGTERM comes then at the latest, and SIGKILL at least 2 s later | [`terminate`], [`LEAST`] |
//! | SIGTERM goes to the container's first process; when that ends, its other processes are killed | [`stop_app`] |
//! | a native sidecar gets SIGTERM when the app has ended and its own hook was answered | [`stop_sidecar`] |
//! | a pod that is deleted leaves the endpoints at once, whatever its probes say | `run.rs` |
//! | a readiness probe goes on while the pod terminates, every 2 s, and fails after 3 failures in a row | [`watch_readiness`] |
//! | on a restart, a container that does not run makes the pod unready | `run.rs` |
//! | a pod goes some time after its last container has ended | [`terminate`], [`CLEAN_UP`] |
//!
//! Not played: the wait for an earlier kill, node shutdown, probes of the app itself.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http::StatusCode;
use http::header::{HOST, USER_AGENT};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::app::{App, describe};
use super::clients::connection::open;
use super::sidecar::Sidecar;
use super::way::Way;

/// Where the kubelet calls from: no client does.
const KUBELET: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What is left at least between SIGTERM and SIGKILL.
const LEAST: Duration = Duration::from_secs(2);

/// How long after its last container a pod goes. The kubelet waits for its next look at all containers, which comes every
/// second (pkg/kubelet/pod_workers.go, podWorkerLoop: `podCache.GetNewerThan`; pkg/kubelet/kubelet.go,
/// genericPlegRelistPeriod), so half a second in the mean; what it clears away, and its calls to the API server, take the
/// rest. Of 44 pods on Kubernetes 1.36 whose app ended at once, each was gone after 0.4 to 2.3 s, in the mean after 0.93 s.
const CLEAN_UP: Duration = Duration::from_millis(900);

/// The most that is read of a hook's answer, in bytes.
const LONGEST: usize = 10 * 1024;

/// How often readiness is asked for, how long that may take, and how often in a row it must fail: the chart's probe.
const PROBES: Duration = Duration::from_secs(2);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const FAILURES: u32 = 3;

/// How a termination went.
#[derive(Debug)]
pub struct Terminated {
    pub hook_answered: Option<Instant>,
    pub sigterm: Instant,
    pub app_ended: Instant,
    pub gone: Instant,
    pub killed: bool,
    pub status: String,
    pub left_behind: usize,
    pub verdict: Option<Value>,
    pub hook_failed: Option<String>,
}

/// Terminates the app, and with it the sidecar; on a restart the app alone. It counts from now.
///
/// # Errors
/// When the kernel does not say how the app ended.
pub async fn terminate(
    app: &mut App,
    sidecar: Option<&mut Sidecar>,
    way: Way,
    grace_period: Duration,
    restart: bool,
) -> anyhow::Result<Terminated> {
    let deadline = Instant::now() + grace_period;
    let own_hook = (sidecar.as_ref().filter(|_| !restart))
        .map(|sidecar| tokio::spawn(call_hook(sidecar.address, "/prestop/self")));
    let mut hook_answered = None;
    let mut hook_failed = None;
    let mut verdict = None;
    let hook = async {
        match (way, &sidecar) {
            (Way::Gracekeeper | Way::Handover, Some(sidecar)) => {
                call_hook(sidecar.address, "/prestop/app").await.map(Some)
            }
            (Way::Sleep(time), _) => {
                sleep(time).await;
                Ok(None)
            }
            _ => Ok(None),
        }
    };
    // A container that ends by itself has no more use for its hook.
    let hook = tokio::select! {
        hook = timeout_at(deadline, hook) => Some(hook),
        _ = app.ended() => None,
    };
    if let Some(Ok(result)) = hook
        && way != Way::None
    {
        match result {
            Ok(body) => {
                hook_answered = Some(Instant::now());
                verdict = body.and_then(|body| serde_json::from_slice(&body).ok());
            }
            Err(e) => hook_failed = Some(format!("{e:#}")),
        }
    }
    let mut terminated = stop_app(app, deadline).await?;
    terminated.hook_answered = hook_answered;
    terminated.verdict = verdict;
    terminated.hook_failed = hook_failed;
    if !restart {
        if let Some(sidecar) = sidecar {
            stop_sidecar(sidecar, own_hook, deadline).await;
        }
        sleep(CLEAN_UP).await;
        terminated.gone = Instant::now();
    }
    Ok(terminated)
}

/// SIGTERM, and SIGKILL when the time is over.
async fn stop_app(app: &mut App, deadline: Instant) -> anyhow::Result<Terminated> {
    let sigterm = Instant::now();
    app.terminate();
    let last = deadline.max(sigterm + LEAST);
    let ended = timeout_at(last, app.ended()).await;
    let killed = ended.is_err();
    // The first process has ended, or is killed now; so are the others.
    let left = app.kill();
    let status = match ended {
        Ok(status) => status?,
        Err(_) => app.ended().await?,
    };
    let app_ended = Instant::now();
    Ok(Terminated {
        hook_answered: None,
        sigterm,
        app_ended,
        gone: app_ended,
        killed,
        status: describe(status),
        left_behind: if killed { 0 } else { left },
        verdict: None,
        hook_failed: None,
    })
}

/// SIGTERM to the sidecar once its own hook has been answered, and SIGKILL when the time is over.
async fn stop_sidecar(
    sidecar: &mut Sidecar,
    own_hook: Option<JoinHandle<anyhow::Result<Bytes>>>,
    deadline: Instant,
) {
    if let Some(hook) = own_hook {
        let _ = timeout_at(deadline, hook).await;
    }
    sidecar.terminate();
    let left = deadline.saturating_duration_since(Instant::now());
    sidecar.ended_within(left.max(LEAST)).await;
}

/// Calls an httpGet hook and waits for its answer, whatever its status is.
async fn call_hook(sidecar: SocketAddr, path: &'static str) -> anyhow::Result<Bytes> {
    let (_, body) = get(sidecar, path, "kube-lifecycle/1.36").await?;
    Ok(body)
}

async fn get(to: SocketAddr, path: &str, agent: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = open(to, KUBELET).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = http::Request::get(path)
        .header(HOST, to.to_string())
        .header(USER_AGENT, agent)
        .body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await;
    connection.abort();
    let body = body.map_err(|e| anyhow!("the answer broke off: {e}"))?;
    Ok((status, body.to_bytes()))
}

/// Waits until the sidecar is ready for the first time.
///
/// # Errors
/// When it is not within a time.
pub async fn wait_until_ready(sidecar: SocketAddr, within: Duration) -> anyhow::Result<()> {
    let ready = async {
        while !is_ready(sidecar).await {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let missed = |_| {
        anyhow!(
            "the sidecar was not ready after {}",
            humantime::format_duration(within)
        )
    };
    timeout(within, ready).await.map_err(missed)
}

async fn is_ready(sidecar: SocketAddr) -> bool {
    let answer = timeout(PROBE_TIMEOUT, get(sidecar, "/readyz", "kube-probe/1.36")).await;
    matches!(answer, Ok(Ok((status, _))) if status.is_success())
}

/// Probes readiness until it is dropped, and tells each change.
pub async fn watch_readiness(sidecar: SocketAddr, ready: watch::Sender<bool>) {
    let mut failures = 0;
    let mut next = Instant::now();
    loop {
        sleep_until(next).await;
        next += PROBES;
        match is_ready(sidecar).await {
            true => failures = 0,
            false => failures += 1,
        }
        ready.send_if_modified(|ready| {
            let now = failures == 0 || (*ready && failures < FAILURES);
            std::mem::replace(ready, now) != now
        });
    }
}

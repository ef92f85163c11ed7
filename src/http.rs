//! The endpoints, on one port.
//!
//! | request | answers |
//! | --- | --- |
//! | `GET /readyz` | 200 while the pod may get traffic, else 503 and why not |
//! | `GET /livez` | 200 |
//! | `GET /prestop/app`, `/prestop` | the app's hook: drains, and answers with the verdict when that is over |
//! | `GET /prestop/self` | the sidecar's own hook: likewise, and the pod is going |
//! | `POST /drain` | drains by hand: 202 and the status; with `?wait=true` the verdict, when it is over |
//! | `DELETE /drain` | serves again; 409 once the pod is going |
//! | `POST /release` | ends the waiting now |
//! | `GET /status` | what is known, as JSON |
//! | `GET /metrics` | our own metrics, as Prometheus text |
//!
//! What changes state needs the token where there is one. Without one the hooks are open to all, since the kubelet calls
//! from outside the pod, and the rest to loopback alone.

mod connections;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Extension, Query, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
    USER_AGENT, WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use subtle::ConstantTimeEq as _;
use tokio::time::Instant;
use tracing::warn;

use crate::config::{ConfigErrors, Files};
use crate::drain::{Handle, Phase, Readiness, Refusal, Trigger};
use crate::fetch::{Client, Url};
use crate::inflight::{AutoPorts, Meter};
use crate::metrics::Metrics;
use crate::report;
use crate::traffic::{KubeletAddresses, Traffic};
pub use connections::Server;

/// The environment variable that holds the token itself.
pub const TOKEN_VARIABLE: &str = "GRACEKEEPER_TOKEN";

/// Flags of the endpoints.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Endpoints")]
pub struct Args {
    /// The one port; dual-stack where the host has IPv6
    #[arg(long, value_name = "IP:PORT", default_value = "[::]:9903")]
    pub listen: String,

    /// A file with the secret that whatever changes state needs; or the secret itself in GRACEKEEPER_TOKEN
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,

    /// Readiness also asks the app here, and is only as good as its answer
    #[arg(long, value_name = "URL")]
    pub app_ready: Option<String>,
}

/// The endpoints' settings, checked.
#[derive(Debug)]
pub struct Settings {
    pub listen: SocketAddr,
    pub token: Option<Token>,
    pub app_ready: Option<Url>,
}

impl Args {
    /// Checks the flags; `token` is what the environment has of one.
    pub fn validate(&self, token: Option<&str>, errors: &mut ConfigErrors) -> Option<Settings> {
        let token = match (&self.token_file, token) {
            (Some(path), Some(_)) => {
                let message = format!("{TOKEN_VARIABLE} is set too; give one of the two");
                errors.add("token-file", &path.to_string_lossy(), message);
                None
            }
            (Some(path), None) => {
                let token = match errors.files() {
                    Files::Here => Token::read(path),
                    Files::Elsewhere => Ok(Token::unknown()),
                };
                errors.check("token-file", &path.to_string_lossy(), token)
            }
            (None, Some(token)) => Token::new(token)
                .map_err(|message| {
                    errors.say_of(TOKEN_VARIABLE, format!("{TOKEN_VARIABLE}: {message}"))
                })
                .ok(),
            (None, None) => None,
        };
        let app_ready = (self.app_ready.as_ref())
            .and_then(|text| errors.check("app-ready", text, Url::parse(text)));
        Some(Settings {
            listen: errors.address("listen", &self.listen)?,
            token,
            app_ready,
        })
    }
}

/// The secret for what changes state.
#[derive(Clone)]
pub struct Token(Arc<[u8]>);

impl Token {
    fn new(text: &str) -> Result<Self, String> {
        let text = text.trim_ascii();
        if text.is_empty() {
            return Err("it is empty; write a secret, or leave it out to have none".to_owned());
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(
                "it has characters that no header may carry; use letters and digits".to_owned(),
            );
        }
        Ok(Self(text.as_bytes().into()))
    }

    fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("it cannot be read: {e}"))?;
        Self::new(&text)
    }

    /// Of a file that is not on this machine. It is never compared with anything.
    fn unknown() -> Self {
        Self(Arc::default())
    }

    /// The header for clients that cannot set `Authorization`.
    pub const HEADER: &str = "x-gracekeeper-token";

    /// The secret as the value of that header.
    pub fn header(&self) -> &[u8] {
        &self.0
    }

    /// Whether a request has it, as `Authorization: Bearer` or as `X-Gracekeeper-Token`.
    fn is_in(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.as_bytes().split_at_checked(7)?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then(|| token.trim_ascii())
        });
        let own = headers
            .get(Self::HEADER)
            .map(|value| value.as_bytes().trim_ascii());
        [bearer, own]
            .into_iter()
            .flatten()
            .any(|given| given.ct_eq(&self.0).into())
    }
}

/// Without the secret.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the endpoints need to answer.
#[derive(Debug, Clone)]
pub struct App {
    pub drain: Handle,
    pub readiness: Readiness,
    pub meters: Arc<[Meter]>,
    /// The counters of requests.
    pub counters: Arc<[Meter]>,
    pub metrics: Metrics,
    pub client: Client,
    pub token: Option<Token>,
    /// Where the traffic on the app's ports is watched.
    pub traffic: Option<Traffic>,
    /// Where the kubelet calls from.
    pub kubelet: KubeletAddresses,
    /// The app's ports, where they are found when a drain begins.
    pub auto_ports: Option<AutoPorts>,
    /// Mistakes in the configuration, for which defaults were taken.
    pub mistakes: Arc<[String]>,
    /// Where readiness also asks, and for how long.
    pub app_ready: Option<(Url, Duration)>,
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

/// The endpoints. Each request needs a [`Peer`] among its extensions.
pub fn router(app: App) -> Router {
    // A HEAD would start a drain that its sender never hears of.
    let hook = |name: &'static str, trigger| {
        let call = move |app: State<App>, peer: Extension<Peer>, headers: HeaderMap| {
            prestop(app, peer, headers, name, trigger)
        };
        get(call).head(|| async { (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET")]) })
    };
    Router::new()
        .route("/readyz", get(readyz))
        .route("/livez", get(async || "ok\n"))
        .route("/prestop", hook("app", Trigger::AppHook))
        .route("/prestop/app", hook("app", Trigger::AppHook))
        .route("/prestop/self", hook("self", Trigger::SelfHook))
        .route("/drain", post(drain).delete(undo))
        .route("/release", post(release))
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .fallback(async || {
            (
                StatusCode::NOT_FOUND,
                "no such page; see /status, /metrics, /readyz, /livez\n",
            )
        })
        .layer(middleware::from_fn_with_state(app.clone(), probed))
        .layer(middleware::from_fn(plain))
        .with_state(app)
}

/// Refuses bodies, and keeps answers out of caches.
async fn plain(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let empty = headers
        .get(CONTENT_LENGTH)
        .is_none_or(|length| length == "0")
        && !headers.contains_key(TRANSFER_ENCODING);
    let mut response = if empty {
        next.run(request).await
    } else {
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            [("connection", "close")],
            "send no body\n",
        )
            .into_response()
    };
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// How `gracekeeper hook` names itself in its requests, so that its address is not taken for the kubelet's.
pub const HOOK_AGENT: &str = concat!("gracekeeper-hook/", env!("CARGO_PKG_VERSION"));

/// How the kubelet's probes name themselves.
const PROBE: &[u8] = b"kube-probe/";

/// Notes the address that the kubelet's probes come from.
async fn probed(State(app): State<App>, request: Request, next: Next) -> Response {
    let agent = request.headers().get(USER_AGENT);
    if agent.is_some_and(|agent| agent.as_bytes().starts_with(PROBE))
        && let Some(Peer(peer)) = request.extensions().get()
    {
        app.kubelet.called_from(*peer);
    }
    next.run(request).await
}

async fn readyz(State(app): State<App>) -> Response {
    let (state, now) = (app.drain.state(), Instant::now());
    if !state.ready(app.readiness, now) {
        let why = match (state.phase, &state.drain) {
            (Phase::Draining | Phase::Drained, Some(drain)) => {
                let ago = now.saturating_duration_since(drain.began).as_secs_f64();
                format!(
                    "{}: by {}, {ago:.1} s ago\n",
                    state.phase.name(),
                    drain.trigger.name()
                )
            }
            (phase, _) => format!(
                "{}: the app has not answered since it was stopped\n",
                phase.name()
            ),
        };
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    }
    let Some((url, limit)) = &app.app_ready else {
        return "ok\n".into_response();
    };
    let refusal = match app.client.status(Method::GET, url, *limit).await {
        Ok(status) if status.is_success() => return "ok\n".into_response(),
        Ok(status) => format!("the app is not ready: {url} answered {status}\n"),
        Err(e) => format!("the app is not ready: {url}: {e}\n"),
    };
    (StatusCode::SERVICE_UNAVAILABLE, refusal).into_response()
}

async fn prestop(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    hook: &'static str,
    trigger: Trigger,
) -> Response {
    if let Err(refusal) = admit(&app, peer, &headers, true) {
        warn!(hook, peer = %peer.0, "a hook without the token is refused, and the kubelet does not wait; set the \
              token in the hook's httpHeaders");
        return *refusal;
    }
    // The command calls from within the pod, as some of the app's clients do.
    let command = headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent == HOOK_AGENT);
    if !command {
        app.kubelet.called_from(peer.0);
    }
    app.metrics.hook(hook);
    verdict(&app, trigger).await
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    #[serde(default)]
    wait: bool,
}

async fn drain(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    Query(Wait { wait }): Query<Wait>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = admit(&app, peer, &headers, false) {
        return *refusal;
    }
    if wait {
        return verdict(&app, Trigger::Manual).await;
    }
    app.drain.drain(Trigger::Manual).await;
    (StatusCode::ACCEPTED, json(status_of(&app))).into_response()
}

async fn undo(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = admit(&app, peer, &headers, false) {
        return *refusal;
    }
    changed(&app, app.drain.undo().await)
}

async fn release(
    State(app): State<App>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    if let Err(refusal) = admit(&app, peer, &headers, false) {
        return *refusal;
    }
    changed(&app, app.drain.release().await)
}

async fn status(State(app): State<App>) -> Response {
    json(status_of(&app))
}

async fn metrics(State(app): State<App>) -> Response {
    let counts = app.traffic.as_ref().map(Traffic::counts);
    let monitors = (app.traffic.as_ref()).map_or(0, |traffic| traffic.visitors().monitor_count);
    let state = app.drain.state();
    let lasted = state.since.elapsed();
    match (app.metrics).page(state.phase, lasted, counts.unwrap_or_default(), monitors) {
        Ok(page) => (
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            page,
        )
            .into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")).into_response(),
    }
}

/// Drains, and answers when that is over.
async fn verdict(app: &App, trigger: Trigger) -> Response {
    match app.drain.drain(trigger).await.await {
        Ok(verdict) => {
            let app_ports = app.auto_ports.as_ref().and_then(AutoPorts::found);
            json(report::verdict(&verdict, app_ports.as_deref()))
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the sidecar is ending\n").into_response(),
    }
}

/// The answer to a request that changes state: the status, or why nothing changed.
fn changed(app: &App, done: Result<(), Refusal>) -> Response {
    let refusal = match done {
        Ok(()) => return json(status_of(app)),
        Err(Refusal::Going) => "the pod is going; nothing brings it back\n",
        Err(Refusal::Stopping) => {
            "the kubelet is about to stop the app's container; POST /release ends the waiting\n"
        }
        Err(Refusal::NotDraining) => "no drain runs\n",
        Err(Refusal::Ending) => "the sidecar is ending\n",
    };
    (StatusCode::CONFLICT, refusal).into_response()
}

fn status_of(app: &App) -> String {
    let app_ports = app.auto_ports.as_ref().and_then(AutoPorts::found);
    let setup = report::Setup {
        app_ports: app_ports.as_deref(),
        mistakes: &app.mistakes,
        readiness: app.readiness,
    };
    report::status(
        &app.drain.state(),
        &app.meters,
        &app.counters,
        app.traffic.as_ref(),
        &app.kubelet,
        &setup,
        Instant::now(),
    )
}

fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body + "\n").into_response()
}

/// Refuses a request that may not change state: the error is the answer.
fn admit(
    app: &App,
    Peer(peer): Peer,
    headers: &HeaderMap,
    hook: bool,
) -> Result<(), Box<Response>> {
    let refusal = match &app.token {
        Some(token) if token.is_in(headers) => return Ok(()),
        Some(_) => {
            let message = "this needs the token, as Authorization: Bearer or X-Gracekeeper-Token\n";
            (
                StatusCode::UNAUTHORIZED,
                [(WWW_AUTHENTICATE, "Bearer")],
                message,
            )
                .into_response()
        }
        None if hook || peer.to_canonical().is_loopback() => return Ok(()),
        None => (
            StatusCode::FORBIDDEN,
            "without a token, this is for loopback alone\n",
        )
            .into_response(),
    };
    Err(Box::new(refusal))
}

#[cfg(test)]
mod tests;

//! The endpoints, asked without a socket.

use axum::body::{Body, to_bytes};
use http::{HeaderName, Method};
use serde_json::Value;
use tokio::time::sleep;
use tower::ServiceExt as _;

use super::*;
use crate::drain::{self, Policy, ReadCount, Reading};

const LOOPBACK: &str = "127.0.0.1";
const KUBELET: &str = "10.0.0.1";

fn app(reading: Reading, token: Option<&str>) -> Router {
    let policy = Policy {
        max_quiet: Duration::from_secs(1),
        ..drain::testing::policy()
    };
    let count: ReadCount = Arc::new(move |_| Box::pin(async move { reading }));
    let (owner, handle, _events) = drain::new(
        policy,
        drain::Inputs::new(
            vec![drain::Source {
                name: "s".to_owned(),
                connections: false,
                ends_when_stuck: false,
            }],
            count,
        ),
    );
    tokio::spawn(owner.run());
    router(App {
        drain: handle,
        readiness: Readiness::Now,
        meters: Arc::new([]),
        counters: Arc::new([]),
        metrics: Metrics::new(25.0).unwrap(),
        client: Client::default(),
        traffic: None,
        auto_ports: None,
        mistakes: Arc::default(),
        kubelet: KubeletAddresses::default(),
        token: token.map(|text| Token::new(text).unwrap()),
        app_ready: None,
    })
}

async fn ask(
    router: &Router,
    method: Method,
    path: &str,
    peer: &str,
    headers: &[(&str, &str)],
) -> (StatusCode, String) {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    request.extensions_mut().insert(Peer(peer.parse().unwrap()));
    for (name, value) in headers {
        let name: HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(router: &Router, path: &str) -> (StatusCode, String) {
    ask(router, Method::GET, path, KUBELET, &[]).await
}

const QUIET: Reading = Reading::Count(0.0);
const BUSY: Reading = Reading::Count(2.0);

#[tokio::test(start_paused = true)]
async fn readiness_fails_with_a_reason_once_a_hook_has_come_and_liveness_does_not() {
    let router = app(QUIET, None);
    assert_eq!(
        get(&router, "/readyz").await,
        (StatusCode::OK, "ok\n".to_owned())
    );
    let hook = tokio::spawn({
        let router = router.clone();
        async move { get(&router, "/prestop/app").await }
    });
    sleep(Duration::from_millis(1)).await;
    let (status, why) = get(&router, "/readyz").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(why.starts_with("draining: by app hook, 0.0 s ago"), "{why}");
    assert_eq!(get(&router, "/livez").await.0, StatusCode::OK);
    let (status, verdict) = hook.await.unwrap();
    let verdict: Value = serde_json::from_str(&verdict).unwrap();
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&verdict["outcome"], &verdict["going"]),
        (&"drained".into(), &false.into())
    );
    assert_eq!(
        get(&router, "/readyz").await.0,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test(start_paused = true)]
async fn status_has_the_agreed_shape() {
    let router = app(BUSY, None);
    let (status, _) = ask(&router, Method::POST, "/drain", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    sleep(Duration::from_secs(2)).await;
    let (_, text) = get(&router, "/status").await;
    let status: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status["phase"], "draining");
    assert_eq!(
        (&status["ready"], &status["going"]),
        (&false.into(), &false.into())
    );
    assert_eq!(
        (&status["sinceSeconds"], &status["deadlineInSeconds"]),
        (&2.into(), &23.into())
    );
    for key in ["arrivals", "cut", "kubelet", "sources", "verdict"] {
        assert!(status.get(key).is_some(), "{key} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_is_accepted_at_once_and_undone() {
    let router = app(BUSY, None);
    let (status, body) = ask(&router, Method::POST, "/drain", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!(body.contains("\"phase\":\"draining\""), "{body}");
    let (status, body) = ask(&router, Method::DELETE, "/drain", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::OK);
    assert!(
        body.contains("\"phase\":\"serving\"") && body.contains("\"outcome\":\"undone\""),
        "{body}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_can_be_waited_for_and_released() {
    let router = app(BUSY, None);
    let (status, _) = ask(&router, Method::POST, "/release", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let waiting = tokio::spawn({
        let router = router.clone();
        async move { ask(&router, Method::POST, "/drain?wait=true", LOOPBACK, &[]).await }
    });
    sleep(Duration::from_secs(1)).await;
    let (status, _) = ask(&router, Method::POST, "/release", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::OK);
    let (status, verdict) = waiting.await.unwrap();
    assert_eq!(status, StatusCode::OK);
    assert!(verdict.contains("\"outcome\":\"released\""), "{verdict}");
    let (status, _) = ask(&router, Method::POST, "/drain?weit=true", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(start_paused = true)]
async fn once_the_pod_is_going_nothing_is_undone() {
    let router = app(QUIET, None);
    get(&router, "/prestop/self").await;
    let (status, why) = ask(&router, Method::DELETE, "/drain", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(why.contains("going"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn with_a_token_whatever_changes_state_needs_it() {
    let router = app(QUIET, Some("secret\n"));
    let changing = [
        (Method::GET, "/prestop"),
        (Method::GET, "/prestop/app"),
        (Method::GET, "/prestop/self"),
        (Method::POST, "/drain"),
        (Method::POST, "/drain?wait=true"),
        (Method::DELETE, "/drain"),
        (Method::POST, "/release"),
    ];
    for (method, path) in &changing {
        for headers in [
            &[][..],
            &[("authorization", "Bearer wrong")],
            &[("authorization", "Bearer secretsecret")],
            &[("authorization", "secret")],
            &[("authorization", "Basic secret")],
            &[("x-gracekeeper-token", "secre")],
            &[("x-gracekeeper-token", "")],
        ] {
            let (status, _) = ask(&router, method.clone(), path, LOOPBACK, headers).await;
            assert_eq!(
                status,
                StatusCode::UNAUTHORIZED,
                "{method} {path} {headers:?}"
            );
        }
    }
    assert_eq!(
        get(&router, "/readyz").await.0,
        StatusCode::OK,
        "nothing has changed"
    );
    for open in ["/livez", "/status", "/metrics"] {
        assert_eq!(get(&router, open).await.0, StatusCode::OK, "{open}");
    }
    for headers in [
        ("authorization", "Bearer secret"),
        ("authorization", "bearer secret"),
        ("x-gracekeeper-token", "secret"),
    ] {
        let (status, _) = ask(&router, Method::GET, "/prestop/app", KUBELET, &[headers]).await;
        assert_eq!(status, StatusCode::OK);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_token_hooks_are_open_and_the_rest_is_for_loopback() {
    let router = app(QUIET, None);
    for (method, path) in [
        (Method::POST, "/drain"),
        (Method::DELETE, "/drain"),
        (Method::POST, "/release"),
    ] {
        let (status, _) = ask(&router, method.clone(), path, KUBELET, &[]).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}");
    }
    for loopback in [LOOPBACK, "::1", "::ffff:127.0.0.1"] {
        let (status, _) = ask(&router, Method::DELETE, "/drain", loopback, &[]).await;
        assert_eq!(status, StatusCode::OK, "{loopback}");
    }
    assert_eq!(get(&router, "/prestop").await.0, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn nothing_but_the_right_method_starts_a_drain() {
    let router = app(QUIET, None);
    for (method, path) in [
        (Method::HEAD, "/prestop/app"),
        (Method::POST, "/prestop/app"),
        (Method::OPTIONS, "/prestop/self"),
        (Method::GET, "/drain"),
        (Method::GET, "/release"),
        (Method::PUT, "/drain"),
    ] {
        let (status, _) = ask(&router, method.clone(), path, LOOPBACK, &[]).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
    }
    let (status, _) = ask(&router, Method::GET, "/prestop/else", LOOPBACK, &[]).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = ask(
        &router,
        Method::POST,
        "/drain",
        LOOPBACK,
        &[("content-length", "3")],
    )
    .await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(
        get(&router, "/readyz").await.0,
        StatusCode::OK,
        "nothing has changed"
    );
}

#[tokio::test(start_paused = true)]
async fn hooks_and_phase_show_in_the_metrics() {
    let router = app(QUIET, None);
    get(&router, "/prestop/self").await;
    let (_, page) = get(&router, "/metrics").await;
    for line in [
        "gracekeeper_hooks_total{hook=\"self\"} 1",
        "gracekeeper_phase{phase=\"drained\"} 1",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} in\n{page}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_sidecars_own_hook_means_that_the_pod_is_going() {
    for (path, going) in [
        ("/prestop", false),
        ("/prestop/app", false),
        ("/prestop/self", true),
    ] {
        let router = app(QUIET, None);
        let verdict: Value = serde_json::from_str(&get(&router, path).await.1).unwrap();
        assert_eq!(verdict["going"], going, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_refused_however_it_comes_and_starts_nothing() {
    let router = app(QUIET, None);
    for header in [("content-length", "5"), ("transfer-encoding", "chunked")] {
        let (status, _) = ask(&router, Method::POST, "/drain", "127.0.0.1", &[header]).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{header:?}");
    }
    assert!(get(&router, "/status").await.1.contains("\"serving\""));
    let (status, _) = ask(
        &router,
        Method::POST,
        "/drain",
        "127.0.0.1",
        &[("content-length", "0")],
    )
    .await;
    assert_eq!(status, StatusCode::ACCEPTED);
}

#[tokio::test(start_paused = true)]
async fn no_other_scheme_brings_a_token_and_no_answer_is_kept() {
    let router = app(QUIET, Some("s3cret"));
    for (value, status) in [
        ("Basic s3cret", StatusCode::UNAUTHORIZED),
        ("s3cret", StatusCode::UNAUTHORIZED),
        ("bearer s3cret", StatusCode::ACCEPTED),
    ] {
        let header = [("authorization", value)];
        let answer = ask(&router, Method::POST, "/drain", "10.0.0.9", &header).await;
        assert_eq!(answer.0, status, "{value}");
    }
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = "/status".parse().unwrap();
    request
        .extensions_mut()
        .insert(Peer(KUBELET.parse().unwrap()));
    let response = router.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["cache-control"], "no-store");
}

//! What mends a server's stop, for servers that name themselves, and for gRPC.

/// Stands for a gRPC server, which does not name itself.
pub const GRPC: &str = "grpc";

/// A name in the `Server` or `X-Powered-By` header, and what mends the server's stop.
const SERVERS: [(&str, &str); 7] = [
    (
        "uvicorn",
        "uvicorn: --timeout-graceful-shutdown=SECONDS bounds how long it waits for requests after SIGTERM; without it, it waits \
         for as long as they take",
    ),
    (
        "gunicorn",
        "gunicorn: --graceful-timeout=SECONDS (30 unless set) is how long it waits for requests after SIGTERM; make it as long \
         as the longest request",
    ),
    (
        "nginx",
        "nginx: SIGTERM cuts requests off, SIGQUIT waits for them; write STOPSIGNAL SIGQUIT in the image's Dockerfile, and \
         worker_shutdown_timeout to bound it",
    ),
    (
        "express",
        "Node: process.on('SIGTERM', () => server.close()) waits for requests; without a handler they are cut off",
    ),
    (
        "werkzeug",
        "Flask's development server cuts requests off at SIGTERM; use gunicorn or another server that waits",
    ),
    (
        "basehttp",
        "Python's http.server cuts requests off at SIGTERM; handle it with server.shutdown() in another thread",
    ),
    (
        GRPC,
        "gRPC: on SIGTERM call the server's graceful stop, which takes no new calls and lets those that run end: GracefulStop() \
         in Go, stop(SECONDS) in Python, shutdown() and awaitTermination() in Java",
    ),
];

/// What mends this server, where that is known.
pub fn framework(server: &str) -> Option<String> {
    let server = server.to_lowercase();
    let known = SERVERS.iter().find(|(name, _)| server.contains(name));
    known.map(|(_, advice)| (*advice).to_owned())
}

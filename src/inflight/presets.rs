//! Sources by the name of the software: each expands to one that could be written out.
//!
//! What each counts was read in that software's source, and seen on its page where it could be run here. A preset is left
//! out where a page says less than is needed: it would be wrong at the worst moment.

use std::time::Duration;

/// What a name stands for.
#[derive(Debug)]
pub struct Preset {
    /// The scheme to write.
    pub name: &'static str,
    /// The kind and the transport.
    pub kind: &'static str,
    /// The port of the page unless the user writes another; none where the software has no usual one.
    port: Option<u16>,
    /// The path of the page unless the user writes another.
    pub path: &'static str,
    /// What follows the `#`; empty where nothing does.
    selector: &'static str,
    /// The counter of requests on the same page, as for `--requests`; none where the page has no such counter, or one that
    /// counts health checks and cannot tell them apart.
    requests: Option<&'static str>,
    /// It counts nothing but requests on connections: no connection, no work. What goes on after the answer was sent is
    /// work without a connection: of Starlette (FastAPI too) a response's background task, which `Response.__call__`
    /// (starlette/responses.py) awaits after the last byte, and which ASGI middleware around the app counts with it.
    pub ends_when_stuck: bool,
    /// What the software needs to serve the page: shown to the user.
    pub needs: &'static str,
    /// How old the count on the page may be: for so long it has to be quiet.
    pub lag: Duration,
}

/// The page has the count of the moment.
const NONE: Duration = Duration::ZERO;

/// Puma's `worker_check_interval` unless configured, and a little for the way.
const PUMA: Duration = Duration::from_millis(5500);

/// Every preset.
///
/// Where a request for the page counts itself and has a label of its own, it is subtracted by that label, so that
/// a page without any other series reads 0 and a page without the metric is unknown; else it is subtracted as the one it is.
pub const ALL: &[Preset] = &[
    // prometheus-fastapi-instrumentator 8.1: middleware.py, `http_requests_inprogress`; counts to the end of a stream,
    // and of a response's background task.
    Preset {
        name: "fastapi",
        kind: "prometheus+http",
        port: Some(8000),
        path: "/metrics",
        selector: r#"sum(http_requests_inprogress) - sum(http_requests_inprogress{handler="/metrics"} or vector(0))"#,
        requests: Some(
            r#"sum(http_requests_total{handler!~"/metrics|/healthz?|/health/.*|/livez?|/liveness|/readyz?|/readiness|/ping|/startup"} or vector(0)) + sum(http_requests_inprogress{handler!~"/metrics|/healthz?|/health/.*|/livez?|/liveness|/readyz?|/readiness|/ping|/startup"} or vector(0))"#,
        ),
        ends_when_stuck: false,
        needs: "prometheus-fastapi-instrumentator: should_instrument_requests_inprogress=True, inprogress_labels=True",
        lag: NONE,
    },
    // starlette_exporter 0.24: middleware.py, `requests_in_progress`; has no label of the path; counts background
    // tasks.
    Preset {
        name: "starlette-exporter",
        kind: "prometheus+http",
        port: Some(8000),
        path: "/metrics",
        selector: "sum(starlette_requests_in_progress) - 1",
        requests: None,
        ends_when_stuck: false,
        needs: "starlette_exporter, /metrics not in skip_paths",
        lag: NONE,
    },
    // django-prometheus 2.5: middleware.py, two counters, before and after every other middleware.
    Preset {
        name: "django",
        kind: "prometheus+http",
        port: Some(8000),
        path: "/metrics",
        selector: "django_http_requests_before_middlewares_total - django_http_responses_before_middlewares_total - 1",
        requests: None,
        ends_when_stuck: true,
        needs: "django-prometheus, its page under the app's own URLs; no streaming answers",
        lag: NONE,
    },
    // opentelemetry-instrumentation 0.66 with opentelemetry-exporter-prometheus: the exporter's own port counts no scrape.
    // Of ASGI it counts background tasks (opentelemetry-instrumentation-asgi, __init__.py, around `self.app`).
    Preset {
        name: "opentelemetry",
        kind: "prometheus+http",
        port: Some(9464),
        path: "/metrics",
        selector: "sum(http_server_active_requests)",
        requests: None,
        ends_when_stuck: false,
        needs: "OpenTelemetry's HTTP instrumentation (Flask, FastAPI, Django, .NET, ...) and its Prometheus exporter",
        lag: NONE,
    },
    // Micrometer's LongTaskTimer `http.server.requests.active`: `_active_count` up to 1.12, `_count` since, `_gcount` with
    // histograms (PrometheusMeterRegistry.java; docs/implementations/prometheus.adoc).
    Preset {
        name: "spring-boot",
        kind: "prometheus+http",
        port: Some(8080),
        path: "/actuator/prometheus",
        selector: r#"sum({__name__=~"http_server_requests_active_seconds_active_count|http_server_requests_active_seconds_count|http_server_requests_active_seconds_gcount"}) - 1"#,
        requests: None,
        ends_when_stuck: true,
        needs: "Actuator with micrometer-registry-prometheus, on the app's own port",
        lag: NONE,
    },
    // As above; a separate management port is not observed in the servlet stack (spring-boot issues 15673, 41319).
    Preset {
        name: "spring-boot-management",
        kind: "prometheus+http",
        port: None,
        path: "/actuator/prometheus",
        selector: r#"sum({__name__=~"http_server_requests_active_seconds_active_count|http_server_requests_active_seconds_count|http_server_requests_active_seconds_gcount"})"#,
        requests: None,
        ends_when_stuck: true,
        needs: "the same with management.server.port set, servlet stack",
        lag: NONE,
    },
    // quarkus: VertxHttpServerMetrics, `http.server.active.requests`.
    Preset {
        name: "quarkus",
        kind: "prometheus+http",
        port: Some(8080),
        path: "/q/metrics",
        selector: "sum(http_server_active_requests) - 1",
        requests: None,
        ends_when_stuck: true,
        needs: "quarkus-micrometer-registry-prometheus, no management interface",
        lag: NONE,
    },
    // As above; since 3.20 it has a label of the server's port (pull requests 46553 and 46695).
    Preset {
        name: "quarkus-management",
        kind: "prometheus+http",
        port: Some(9000),
        path: "/q/metrics",
        selector: r#"sum(http_server_active_requests{server_port!="9000"})"#,
        requests: None,
        ends_when_stuck: true,
        needs: "the same, version 3.20 or later, quarkus.management.enabled=true",
        lag: NONE,
    },
    // dotnet/aspnetcore HostingMetrics `http.server.active_requests`; opentelemetry-dotnet PrometheusIntegrationTests.cs.
    Preset {
        name: "aspnetcore",
        kind: "prometheus+http",
        port: Some(8080),
        path: "/metrics",
        selector: "sum(http_server_active_requests) - 1",
        requests: None,
        ends_when_stuck: true,
        needs: "OpenTelemetry.Exporter.Prometheus.AspNetCore, MapPrometheusScrapingEndpoint",
        lag: NONE,
    },
    // prometheus-net 8: HttpInProgressMiddleware.cs; its own page is left out by HttpMetricsMiddlewareExtensions.cs.
    Preset {
        name: "prometheus-net",
        kind: "prometheus+http",
        port: Some(8080),
        path: "/metrics",
        selector: "sum(http_requests_in_progress)",
        requests: None,
        ends_when_stuck: true,
        needs: "prometheus-net.AspNetCore: UseHttpMetrics, MapMetrics at /metrics",
        lag: NONE,
    },
    // axum-prometheus: src/lib.rs, `axum_http_requests_pending`: from `prepare` to `on_response`, which is the answer's head.
    // The counter rises there too, so that the sum with what is pending rises with every request, once. A request whose
    // client hangs up before that is pending for ever.
    Preset {
        name: "axum",
        kind: "prometheus+http",
        port: Some(3000),
        path: "/metrics",
        selector: r#"sum(axum_http_requests_pending) - sum(axum_http_requests_pending{endpoint="/metrics"} or vector(0))"#,
        requests: Some(
            r#"sum(axum_http_requests_total{endpoint!~"/metrics|/healthz?|/health/.*|/livez?|/liveness|/readyz?|/readiness|/ping|/startup"} or vector(0)) + sum(axum_http_requests_pending{endpoint!~"/metrics|/healthz?|/health/.*|/livez?|/liveness|/readyz?|/readiness|/ping|/startup"} or vector(0))"#,
        ),
        ends_when_stuck: true,
        needs: "axum-prometheus; --app-port too: a streaming answer counts only until its head",
        lag: NONE,
    },
    // go-grpc-prometheus and go-grpc-middleware: server_metrics.go. `handled` comes into being with the first end.
    Preset {
        name: "go-grpc",
        kind: "prometheus+http",
        port: None,
        path: "/metrics",
        selector: "sum(grpc_server_started_total) - sum(grpc_server_handled_total or vector(0))",
        requests: Some(
            r#"sum(grpc_server_started_total{grpc_service!~"grpc.health.v1.Health|grpc.reflection..*"} or vector(0))"#,
        ),
        ends_when_stuck: true,
        needs: "go-grpc-middleware's providers/prometheus, or go-grpc-prometheus",
        lag: NONE,
    },
    // envoy: docs/root/configuration/http/http_conn_man/stats.rst, `downstream_rq_active`; the admin page is one of them.
    Preset {
        name: "envoy",
        kind: "prometheus+http",
        port: Some(9901),
        path: "/stats/prometheus",
        selector: r#"sum(envoy_http_downstream_rq_active{envoy_http_conn_manager_prefix!="admin"})"#,
        requests: Some(
            r#"sum(envoy_http_downstream_rq_total{envoy_http_conn_manager_prefix!="admin"})"#,
        ),
        ends_when_stuck: true,
        needs: "the admin page",
        lag: NONE,
    },
    // nginx: ngx_http_stub_status_module.
    Preset {
        name: "nginx",
        kind: "nginx+http",
        port: Some(8080),
        path: "/stub_status",
        selector: "",
        requests: None,
        ends_when_stuck: true,
        needs: "a location with stub_status",
        lag: NONE,
    },
    // haproxy 2.6, run: of its session counts only a backend's leave out idle connections, and count those that queue.
    Preset {
        name: "haproxy",
        kind: "prometheus+http",
        port: Some(8404),
        path: "/metrics?scope=backend",
        selector: "sum(haproxy_backend_current_sessions)",
        requests: Some("sum(haproxy_backend_http_requests_total)"),
        ends_when_stuck: true,
        needs: "http-request use-service prometheus-exporter if { path /metrics }",
        lag: NONE,
    },
    // traefik 2: pkg/middlewares/metrics/metrics.go counts requests under this name. Version 3 has connections only.
    Preset {
        name: "traefik",
        kind: "prometheus+http",
        port: Some(8080),
        path: "/metrics",
        selector: r#"sum(traefik_entrypoint_open_connections) - sum(traefik_entrypoint_open_connections{entrypoint="traefik"} or vector(0))"#,
        requests: None,
        ends_when_stuck: true,
        needs: "version 2, --metrics.prometheus=true",
        lag: NONE,
    },
    // caddy 2: modules/caddyhttp/metrics.go.
    Preset {
        name: "caddy",
        kind: "prometheus+http",
        port: Some(2019),
        path: "/metrics",
        selector: "sum(caddy_http_requests_in_flight)",
        requests: None,
        ends_when_stuck: true,
        needs: "the admin page, and the global option metrics",
        lag: NONE,
    },
    // puma: lib/puma/thread_pool.rb and server.rb (STAT_METHODS, since 6.6): busy threads and what waits for one.
    Preset {
        name: "puma",
        kind: "json+http",
        port: Some(9293),
        path: "/stats",
        selector: "/busy_threads",
        requests: None,
        ends_when_stuck: true,
        needs: "version 6.6 or later, its control app, single mode; with a token write puma://127.0.0.1:9293/stats?token=TOKEN",
        lag: NONE,
    },
    // puma: lib/puma/cluster.rb, stats: what each worker said last, which it says every worker_check_interval, 5 s unless
    // configured (lib/puma/cluster/worker.rb, lib/puma/configuration.rb). A worker that has said nothing yet has an empty
    // last_status.
    Preset {
        name: "puma-cluster",
        kind: "json+http",
        port: Some(9293),
        path: "/stats",
        selector: "/worker_status/*/last_status/busy_threads",
        requests: None,
        ends_when_stuck: true,
        needs: "the same with workers; the counts are up to 5 s old, so that a drain waits for 5 s of quiet",
        lag: PUMA,
    },
    // puma-metrics: lib/puma/metrics/parser.rb; there in all versions of Puma since 5. Of workers as above.
    Preset {
        name: "puma-metrics",
        kind: "prometheus+http",
        port: Some(9393),
        path: "/metrics",
        selector: "sum(puma_max_threads) - sum(puma_pool_capacity)",
        requests: None,
        ends_when_stuck: true,
        lag: PUMA,
        needs: "the plugin puma-metrics; the counts may be 5 s old, so that a drain waits for 5 s of quiet",
    },
    // php 8.1: sapi/fpm status page; counts itself, and scripts that go on after fastcgi_finish_request(), when their client
    // has its answer.
    Preset {
        name: "php-fpm",
        kind: "prometheus+http",
        port: Some(80),
        path: "/status?openmetrics",
        selector: "phpfpm_active_processes + phpfpm_listen_queue - 1",
        requests: None,
        ends_when_stuck: false,
        needs: "pm.status_path = /status, served by the web server in front",
        lag: NONE,
    },
    // bentoml 1.4: server/http/instruments.py; its page counts no scrape. The ASGI apps that a service mounts may have
    // background tasks.
    Preset {
        name: "bentoml",
        kind: "prometheus+http",
        port: Some(3000),
        path: "/metrics",
        selector: "sum(bentoml_service_request_in_progress)",
        requests: None,
        ends_when_stuck: false,
        needs: "",
        lag: NONE,
    },
    // vllm: v1/metrics/loggers.py; there from the start. A request to /v1/responses with `background` runs on without its
    // client (entrypoints/openai, serving_responses.py).
    Preset {
        name: "vllm",
        kind: "prometheus+http",
        port: Some(8000),
        path: "/metrics",
        selector: "sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)",
        requests: Some(
            "sum(vllm:request_success_total) + sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)",
        ),
        ends_when_stuck: false,
        needs: "--app-port too: a request that is not scheduled yet is in neither",
        lag: NONE,
    },
    // sglang 0.5: srt/observability/http_request_metrics.py; counts to the end of a stream.
    Preset {
        name: "sglang",
        kind: "prometheus+http",
        port: Some(30000),
        path: "/metrics",
        selector: r#"sum(sglang:http_requests_active) - sum(sglang:http_requests_active{endpoint="/metrics"} or vector(0))"#,
        requests: None,
        ends_when_stuck: true,
        needs: "--enable-metrics",
        lag: NONE,
    },
    // llama.cpp: tools/server/README.md.
    Preset {
        name: "llamacpp",
        kind: "prometheus+http",
        port: None,
        path: "/metrics",
        selector: "llamacpp:requests_processing + llamacpp:requests_deferred",
        requests: None,
        ends_when_stuck: true,
        needs: "--metrics",
        lag: NONE,
    },
    // litellm 1.109: proxy/middleware/in_flight_requests_middleware.py; counts its own page, and background tasks.
    Preset {
        name: "litellm",
        kind: "prometheus+http",
        port: Some(4000),
        path: "/metrics/",
        selector: "litellm_in_flight_requests - 1",
        requests: None,
        ends_when_stuck: false,
        needs: "callbacks: [prometheus], require_auth_for_metrics_endpoint: false",
        lag: NONE,
    },
];

impl Preset {
    /// The preset of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|preset| preset.name == name)
    }

    /// The source it stands for, at an address as it was written after `://`: a host, and perhaps a port and a path.
    ///
    /// # Errors
    /// Says what is missing and what to write.
    pub fn expand(&self, address: &str) -> Result<String, String> {
        Ok(self.page(address)? + &self.fragment())
    }

    /// The counter of requests on the same page, if it has one; see [`Preset::expand`].
    ///
    /// # Errors
    /// Says what is missing and what to write.
    pub fn expand_requests(&self, address: &str) -> Result<String, String> {
        let requests = self.requests.ok_or_else(|| {
            format!(
                "{} has no counter of requests that leaves out health checks; write the source of a counter out, or \
                 leave --requests out",
                self.name
            )
        })?;
        Ok(format!("{}#{requests}", self.page(address)?))
    }

    /// Where the page is.
    fn page(&self, address: &str) -> Result<String, String> {
        let (authority, path) = match address.find(['/', '?']) {
            Some(at) => address.split_at(at),
            None => (address, ""),
        };
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        let has_port = host
            .rsplit(']')
            .next()
            .is_some_and(|rest| rest.contains(':'));
        let port = match (has_port, self.port) {
            (true, _) => String::new(),
            (false, Some(port)) => format!(":{port}"),
            (false, None) => {
                return Err(format!(
                    "it has no port, and {0} has no usual one; write {0}://127.0.0.1:PORT",
                    self.name
                ));
            }
        };
        let path = if matches!(path, "" | "/") {
            self.path
        } else {
            path
        };
        Ok(format!("{}://{authority}{port}{path}", self.kind))
    }

    /// Whether it brings a counter of requests.
    pub fn counts_requests(&self) -> bool {
        self.requests.is_some()
    }

    /// What it stands for on this machine, for people to read.
    pub fn shown(&self) -> String {
        let port = self.port.map_or("PORT".to_owned(), |port| port.to_string());
        format!(
            "{}://127.0.0.1:{port}{}{}",
            self.kind,
            self.path,
            self.fragment()
        )
    }

    fn fragment(&self) -> String {
        match self.selector {
            "" => String::new(),
            selector => format!("#{selector}"),
        }
    }
}

/// The presets as `--help` lists them.
pub fn list() -> String {
    let mut list = "Presets, each a short way to write a --inflight:\n".to_owned();
    for preset in ALL {
        list += &format!("\n  {}://\n      {}\n", preset.name, preset.shown());
        if let Some(requests) = preset.requests {
            list += &format!("      requests: {requests}\n");
        }
        if !preset.needs.is_empty() {
            list += &format!("      needs: {}\n", preset.needs);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `UPDATE=1 cargo test lists_every_preset` writes the table anew.
    #[test]
    fn the_page_of_sources_lists_every_preset() {
        const ENDS: [&str; 2] = ["<!-- presets -->\n", "<!-- /presets -->"];
        let mut table =
            "| preset | stands for | counter of requests | needs |\n| --- | --- | --- | --- |\n"
                .to_owned();
        let code = |text: &str| format!("`{}`", text.replace('|', "\\|"));
        for preset in ALL {
            let shown = code(&preset.shown());
            let requests = preset.requests.map(code).unwrap_or_default();
            table += &format!(
                "| `{}://` | {shown} | {requests} | {} |\n",
                preset.name, preset.needs
            );
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sources.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (before, rest) = page.split_once(ENDS[0]).unwrap();
        let (there, after) = rest.split_once(ENDS[1]).unwrap();
        if std::env::var_os("UPDATE").is_some() {
            let updated = [before, ENDS[0], &table, ENDS[1], after].concat();
            std::fs::write(path, updated).unwrap();
        } else {
            assert_eq!(there, table, "run this test with UPDATE=1");
        }
    }

    #[test]
    fn an_address_is_completed_with_the_usual_port_and_path() {
        let expand = |name: &str, address: &str| Preset::named(name).unwrap().expand(address);
        let vllm = "sum(vllm:num_requests_running) + sum(vllm:num_requests_waiting)";
        for (address, expected) in [
            ("127.0.0.1", "127.0.0.1:8000/metrics"),
            ("127.0.0.1:9000", "127.0.0.1:9000/metrics"),
            ("127.0.0.1:9000/", "127.0.0.1:9000/metrics"),
            ("[::1]", "[::1]:8000/metrics"),
            ("[::1]:1/other", "[::1]:1/other"),
            ("me:pw@localhost", "me:pw@localhost:8000/metrics"),
        ] {
            let expected = format!("prometheus+http://{expected}#{vllm}");
            assert_eq!(expand("vllm", address).unwrap(), expected);
        }
        assert_eq!(
            expand("nginx", "127.0.0.1:81").unwrap(),
            "nginx+http://127.0.0.1:81/stub_status"
        );
        assert_eq!(
            expand("puma", "127.0.0.1:9293/stats?token=T").unwrap(),
            "json+http://127.0.0.1:9293/stats?token=T#/busy_threads"
        );
        assert!(
            expand("go-grpc", "127.0.0.1")
                .unwrap_err()
                .contains("go-grpc://127.0.0.1:PORT")
        );
        assert!(Preset::named("ollama").is_none());
    }
}

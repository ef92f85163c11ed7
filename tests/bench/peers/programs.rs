//! The peers' own programs, where the environment names them: `PEER_CONTOUR`, `PEER_ENVOY_GATEWAY`, `PEER_KNATIVE`.
//!
//! Their ports and files cannot all be chosen, so each runs in a network and a mount namespace of its own, in a process of
//! the bench that was started again by `unshare`.

use std::env;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where Envoy's admin interface is: for Contour, and for Envoy Gateway (`EnvoyAdminPort`).
const ADMIN_SOCKET: &str = "/tmp/admin.sock";
const ADMIN_PORT: u16 = 19000;
/// Contour's `--ready-file`.
const READY_FILE: &str = "/tmp/ok";
/// The app's port behind Knative's queue-proxy, and the one on which that serves.
const APP_PORT: u16 = 8080;
const QUEUE_PORT: u16 = 8012;
const LONGEST_START: Duration = Duration::from_secs(60);

/// Tells this program, started again, what to do there.
const INSIDE: &str = "INSIDE_NAMESPACE";

/// A peer whose own program can be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Contour,
    EnvoyGateway,
    Knative,
}

impl Peer {
    pub const ALL: [Self; 3] = [Self::Contour, Self::EnvoyGateway, Self::Knative];

    pub fn name(self) -> &'static str {
        match self {
            Self::Contour => "Contour",
            Self::EnvoyGateway => "Envoy Gateway",
            Self::Knative => "Knative",
        }
    }

    /// Its program, if the environment names one.
    pub fn program(self) -> Option<OsString> {
        env::var_os(match self {
            Self::Contour => "PEER_CONTOUR",
            Self::EnvoyGateway => "PEER_ENVOY_GATEWAY",
            Self::Knative => "PEER_KNATIVE",
        })
    }

    /// Starts this program again in namespaces of its own, to do something with this peer; what it prints is the answer.
    pub fn inside(self, what: &str) -> Child {
        let own = env::current_exe().unwrap();
        Command::new("unshare")
            .args(["--map-root-user", "--net", "--mount", "--"])
            .arg(own)
            .env(INSIDE, format!("{self:?} {what}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Whether this process is in such namespaces; with which peer, and what to do.
    pub fn is_inside() -> Option<(Self, String)> {
        let said = env::var(INSIDE).ok()?;
        let (peer, what) = said.split_once(' ').unwrap();
        let peer = Self::ALL
            .into_iter()
            .find(|known| format!("{known:?}") == peer)
            .unwrap();
        for command in ["ip link set lo up", "mount -t tmpfs none /tmp"] {
            let status = Command::new("sh").args(["-c", command]).status().unwrap();
            assert!(status.success(), "{command}");
        }
        Some((peer, what.to_owned()))
    }

    /// Where its hook is asked.
    fn hook(self) -> (u16, &'static str) {
        match self {
            Self::Contour => (8090, "/shutdown"),
            Self::EnvoyGateway => (19002, "/shutdown/ready"),
            Self::Knative => (8022, "/wait-for-drain"),
        }
    }

    fn spawn(self) -> Child {
        let mut command = match self {
            Self::Contour => {
                self.command(&["envoy", "shutdown-manager", "--ready-file", READY_FILE])
            }
            Self::EnvoyGateway => self.command(&["envoy", "shutdown-manager"]),
            Self::Knative => self.command(&[]),
        };
        if self == Self::Knative {
            // As `pkg/reconciler/revision/resources/queue.go` sets what is required.
            command.envs([
                ("CONTAINER_CONCURRENCY", "0"),
                ("QUEUE_SERVING_PORT", "8012"),
                ("QUEUE_SERVING_TLS_PORT", "8112"),
                ("USER_PORT", "8080"),
                ("REVISION_TIMEOUT_SECONDS", "300"),
                ("SERVING_LOGGING_CONFIG", ""),
                ("SERVING_LOGGING_LEVEL", ""),
                ("SERVING_NAMESPACE", "shop"),
                ("SERVING_CONFIGURATION", "web"),
                ("SERVING_REVISION", "web-1"),
                ("SERVING_POD", "web-1-x"),
                ("SERVING_POD_IP", "127.0.0.1"),
            ]);
        }
        command.spawn().unwrap()
    }

    /// How long it takes from its start until it accepts connections.
    pub fn start_alone(self) -> Duration {
        let began = Instant::now();
        let mut child = self.spawn();
        wait_for_port(self.hook().0);
        let took = began.elapsed();
        let _ = child.kill();
        let _ = child.wait();
        took
    }

    fn command(self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program().unwrap());
        command
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

/// A peer's program that serves beside an app, and what it runs in a drain.
pub struct Program {
    peer: Peer,
    pub children: Vec<Child>,
    busy: Arc<AtomicBool>,
}

impl Program {
    /// Starts the app and the program, and waits until it serves.
    pub fn start(peer: Peer) -> Self {
        let busy = Arc::new(AtomicBool::new(false));
        serve_app(peer, &busy);
        let children = vec![peer.spawn()];
        wait_for_port(peer.hook().0);
        if peer == Peer::Knative {
            wait_for_port(QUEUE_PORT);
        }
        Self {
            peer,
            children,
            busy,
        }
    }

    /// Calls the hooks of both containers while a request is under way, which ends so long after; says when the hook was
    /// answered, in seconds after that end. `meanwhile` is called in the middle of the request.
    pub fn drain(&mut self, request: Duration, meanwhile: impl FnOnce(&Self)) -> f64 {
        self.busy.store(true, Ordering::SeqCst);
        let through = (self.peer == Peer::Knative).then(|| {
            let asked = thread::spawn(|| get((LOCALHOST, QUEUE_PORT).into(), "/"));
            // It is under way when the hook comes.
            thread::sleep(Duration::from_millis(50));
            asked
        });
        let began = Instant::now();
        let busy = self.busy.clone();
        let ended = thread::spawn(move || {
            thread::sleep(request);
            busy.store(false, Ordering::SeqCst);
        });
        let other_hook: &[&str] = match self.peer {
            Peer::Contour => &[
                "envoy",
                "shutdown",
                "--admin-address=/tmp/admin.sock",
                "--ready-file=/tmp/ok",
            ],
            Peer::EnvoyGateway => &["envoy", "shutdown"],
            Peer::Knative => &[],
        };
        match self.peer {
            // The kubelet ends the queue-proxy's container at the same moment.
            Peer::Knative => {
                let pid = rustix::process::Pid::from_child(&self.children[0]);
                rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
            }
            _ => (self.children).push(self.peer.command(other_hook).spawn().unwrap()),
        }
        let hook = {
            let (port, path) = self.peer.hook();
            thread::spawn(move || {
                get((LOCALHOST, port).into(), path);
                Instant::now()
            })
        };
        thread::sleep(request / 2);
        meanwhile(self);
        let answered = hook.join().unwrap();
        ended.join().unwrap();
        if let Some(asked) = through {
            asked.join().unwrap();
        }
        (answered - began).as_secs_f64() - request.as_secs_f64()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the peer asks: Envoy's admin interface, with the one request as an open connection, or the app itself.
fn serve_app(peer: Peer, busy: &Arc<AtomicBool>) {
    let busy = busy.clone();
    match peer {
        Peer::Contour => {
            let listener = UnixListener::bind(ADMIN_SOCKET).unwrap();
            thread::spawn(move || serve(listener.incoming(), |_| envoy_page(&busy)));
        }
        Peer::EnvoyGateway => {
            let listener = TcpListener::bind((LOCALHOST, ADMIN_PORT)).unwrap();
            thread::spawn(move || serve(listener.incoming(), |_| envoy_json(&busy)));
        }
        Peer::Knative => {
            let listener = TcpListener::bind((LOCALHOST, APP_PORT)).unwrap();
            thread::spawn(move || serve(listener.incoming(), |_| app_answer(&busy)));
        }
    }
}

fn envoy_page(busy: &AtomicBool) -> String {
    let open = u8::from(busy.load(Ordering::SeqCst));
    format!(
        "# TYPE envoy_http_downstream_cx_active gauge\n\
         envoy_http_downstream_cx_active{{envoy_http_conn_manager_prefix=\"ingress_http\"}} {open}\n"
    )
}

fn envoy_json(busy: &AtomicBool) -> String {
    let open = u8::from(busy.load(Ordering::SeqCst));
    format!(
        "{{\"stats\":[{{\"name\":\"listener.0.0.0.0_10080.downstream_cx_active\",\"value\":{open}}}]}}"
    )
}

/// Answers when the request is over.
fn app_answer(busy: &AtomicBool) -> String {
    while busy.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(1));
    }
    "ok".into()
}

fn serve<S: Read + Write>(
    connections: impl Iterator<Item = std::io::Result<S>>,
    answer: impl Fn(&[u8]) -> String,
) {
    for mut stream in connections.map_while(Result::ok) {
        let mut request = [0; 4096];
        let length = stream.read(&mut request).unwrap_or(0);
        let body = answer(&request[..length]);
        let length = body.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    }
}

/// Waits until a port of this machine accepts connections.
pub fn wait_for_port(port: u16) {
    let began = Instant::now();
    while TcpStream::connect((LOCALHOST, port)).is_err() {
        assert!(began.elapsed() < LONGEST_START, "nothing listens on {port}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Asks, and waits until the connection ends. The kubelet goes on then, whatever came: from Envoy Gateway's hook nothing
/// comes after ten seconds, which is its server's `WriteTimeout`, but the end when it is over.
fn get(address: SocketAddr, path: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
}

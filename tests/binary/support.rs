//! Starts the sidecar and apps, and asks them things as the kubelet and clients do.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything takes, on any machine. Nothing waits this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for a condition.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(began.elapsed() < PATIENCE, "waited too long for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The answer to a request, and when it was complete.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub at: Instant,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// Sends a request over a connection of its own; nothing where no whole answer comes back.
pub fn ask(method: &str, url: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(PATIENCE))
        .build()
        .into();
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if method != "GET" {
        request = request.header("content-length", "0");
    }
    let mut response = agent.run(request.body(()).unwrap()).ok()?;
    let status = response.status().as_u16();
    let body = response.body_mut().read_to_string().ok()?;
    Some(Answer {
        status,
        body,
        at: Instant::now(),
    })
}

/// A child process that ends with the test.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts a command and keeps what it prints.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| {
                panic!("{command:?}: {e}; `make test` sets up what the tests need")
            });
        let lines = Arc::new(Mutex::new(VecDeque::new()));
        keep(child.stdout.take().unwrap(), &lines);
        keep(child.stderr.take().unwrap(), &lines);
        Self { child, lines }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().iter().cloned().collect()
    }

    /// The first line that gives something, once it is printed.
    pub fn line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        wait_for(what, || {
            let found = self.lines().iter().find_map(|line| find(line));
            if found.is_none()
                && let Some(status) = self.child.try_wait().unwrap()
            {
                panic!("it ended, {status}, before {what}: {:#?}", self.lines());
            }
            found
        })
    }

    pub fn signal(&self, name: &str) {
        let pid = self.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Kills it and the workers it has started, as the end of a container does.
    pub fn kill(&mut self) {
        let pid = self.id();
        let workers = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let _ = self.child.kill();
        for worker in workers.unwrap_or_default().split_whitespace() {
            let mut kill = Command::new("kill");
            let _ = kill
                .args(["-s", "KILL", worker])
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.child.wait();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the end of a process", || self.child.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A gunicorn leaves its workers running if it is killed at once.
        if self.running() {
            self.signal("TERM");
            let asked = Instant::now();
            while self.running() && asked.elapsed() < Duration::from_secs(2) {
                thread::sleep(Duration::from_millis(5));
            }
        }
        self.kill();
    }
}

fn keep(from: impl Read + Send + 'static, lines: &Arc<Mutex<VecDeque<String>>>) {
    let lines = lines.clone();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            lines.lock().unwrap().push_back(line);
        }
    });
}

/// The sidecar under test.
pub struct Sidecar {
    pub process: Process,
    pub address: SocketAddr,
}

impl Sidecar {
    /// Starts it on a free port, with these flags.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_with(flags, &[])
    }

    /// Starts it with an environment too.
    pub fn start_with(flags: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_under(&[], flags, environment)
    }

    /// Starts it by a command that limits it, and then becomes it. `GRACEKEEPER_BINARY` names another build of it: `make soak`.
    pub fn start_under(limit: &[&str], flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut words = limit.to_vec();
        let binary = std::env::var("GRACEKEEPER_BINARY");
        let binary = binary.unwrap_or_else(|_| env!("CARGO_BIN_EXE_gracekeeper").to_owned());
        words.push(&binary);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(["run", "--listen=127.0.0.1:0", "--log-format=json"])
            .args(flags);
        // Clients are on this machine, and no proxy brings their requests.
        command.env("GRACEKEEPER_LOCAL_PEERS", "clients");
        command.envs(environment.iter().copied());
        let mut process = Process::start(&mut command);
        let address = process.line("the sidecar's address", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line.get("address")?.as_str()?.parse().ok()
        });
        Self { process, address }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn get(&self, path: &str) -> Answer {
        ask("GET", &self.url(path), &[]).expect("the sidecar answers")
    }

    pub fn status(&self) -> Value {
        self.get("/status").json()
    }

    /// Calls a hook as the kubelet does, and returns once the sidecar has taken it in.
    pub fn hook(&self, path: &str) -> JoinHandle<Option<Answer>> {
        let url = self.url(path);
        let before = self.hooks();
        let hook =
            thread::spawn(move || ask("GET", &url, &[("user-agent", "kube-lifecycle/1.36")]));
        wait_for("a hook to be taken in", || {
            (hook.is_finished() || self.hooks() > before).then_some(())
        });
        hook
    }

    /// How many hooks have been taken in.
    fn hooks(&self) -> u64 {
        let page = self.get("/metrics").body;
        let lines = page
            .lines()
            .filter(|l| l.starts_with("gracekeeper_hooks_total{"));
        lines
            .filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Waits until it has heard of each of its sources.
    pub fn wait_for_sources(&self) {
        wait_for("the first reads", || {
            let sources = self.status()["sources"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            sources
                .iter()
                .all(|s| !s["result"].is_null() && s["result"] != "refused")
                .then_some(())
        });
    }

    /// The lines of its log that say this.
    pub fn said(&self, message: &str) -> Vec<Value> {
        let lines = self.process.lines();
        let parsed = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed
            .filter(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|m| m.contains(message))
            })
            .collect()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        // It would stay for as long as its app does.
        if self.process.running() {
            self.process.signal("INT");
        }
    }
}

/// The sidecar goes when it is told to, whatever it reads or waits for.
pub fn ends(mut sidecar: Sidecar) {
    sidecar.process.signal("INT");
    let asked = Instant::now();
    assert_eq!(sidecar.process.ended().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10));
}

/// Requests that last until a test lets them go.
pub struct Gate {
    folder: TempDir,
}

impl Gate {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn file(&self, name: &str, end: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.{end}"))
    }

    /// Sends a request and returns once the app works on it.
    pub fn enter(&self, base: &str, name: &str) -> JoinHandle<Option<Answer>> {
        let url = self.path(&format!("{base}/work"), name);
        let request = thread::spawn(move || ask("GET", &url, &[]));
        self.wait_for(name);
        request
    }

    /// Where a request goes that this gate is to hold.
    pub fn path(&self, to: &str, name: &str) -> String {
        format!("{to}?folder={}&name={name}", self.name())
    }

    /// The folder of its files.
    pub fn name(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    /// Returns once the app works on a request.
    pub fn wait_for(&self, name: &str) {
        wait_for("a request to be under way", || {
            self.file(name, "started").exists().then_some(())
        });
    }

    /// Whether a request was let go.
    pub fn is_open(&self, name: &str) -> bool {
        self.file(name, "go").exists()
    }

    /// Lets a request go.
    pub fn open(&self, name: &str) {
        std::fs::write(self.file(name, "go"), "").unwrap();
    }
}

/// What is told has each of these.
pub fn has_all(told: &str, parts: &[&str]) {
    for part in parts {
        assert!(told.contains(part), "{part:?} in\n{told}");
    }
}

/// What is shown is what a file of tests/binary has.
pub fn is_recorded(shown: &[u8], name: &str) {
    let shown = String::from_utf8_lossy(shown);
    let path = folder("tests/binary").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &*shown).unwrap();
    }
    let recorded = std::fs::read_to_string(&path).unwrap();
    assert_eq!(
        shown, recorded,
        "run the tests with UPDATE=1 and read what changes"
    );
}

/// A folder of this repository.
pub fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program of the Python environment that `make test` makes.
pub fn python(program: &str) -> Command {
    let mut command = Command::new(folder("target/test-env/venv/bin").join(program));
    command.current_dir(folder("tests/apps"));
    command
}

/// The `http://HOST:PORT` that an app prints when it listens.
pub fn listening(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest
        .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'))
        .unwrap_or(rest.len());
    Some(format!("http://{}", &rest[..end]))
}

/// Our own shop, which dies at once on SIGTERM.
pub fn shop(port: u16) -> (Process, String) {
    shop_with(port, &[])
}

/// The shop, listening elsewhere too.
pub fn shop_with(port: u16, flags: &[&str]) -> (Process, String) {
    let mut command = Command::new("python3");
    command
        .arg("shop.py")
        .arg(port.to_string())
        .args(flags)
        .current_dir(folder("tests/apps"));
    let mut app = Process::start(&mut command);
    let base = app.line("the shop's address", listening);
    (app, base)
}

/// The source of the shop's gauge.
pub fn shop_source(base: &str) -> String {
    format!("--inflight=prometheus+{base}/metrics#shop_customers")
}

//! The sidecar: this binary as a child, with the flags it would have in a pod.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::target::PORT;

/// How soon it listens.
const START: Duration = Duration::from_secs(20);

/// The file of this program, also when another has taken its place meanwhile, as after a build.
const OURSELVES: &str = "/proc/self/exe";

/// A running sidecar. Dropping it kills it.
#[derive(Debug)]
pub struct Sidecar {
    pub address: SocketAddr,
    child: Child,
    /// The lines of its log that are errors or warnings.
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Sidecar {
    /// Starts it for an app on that port, with `{port}` in its flags replaced.
    ///
    /// # Errors
    /// When it cannot be started or ends at once.
    pub async fn start(flags: &[String], app: u16, folder: &Path) -> anyhow::Result<Self> {
        let ours = std::env::vars_os().map(|(name, _)| name);
        let ours = ours.filter(|name| name.to_string_lossy().starts_with("GRACEKEEPER_"));
        let mut command = Command::new(OURSELVES);
        for name in ours {
            // The flags have all that the environment had.
            command.env_remove(name);
        }
        let chosen = flags.iter().any(|flag| flag.starts_with("--local-peers"));
        let mut child = command
            .arg("run")
            .args(
                flags
                    .iter()
                    .map(|flag| flag.replace(PORT, &app.to_string())),
            )
            .args(["--listen=127.0.0.1:0", "--kube=off", "--log-format=json"])
            // The clients here call from a loopback address, and are no proxy in the pod.
            .args((!chosen).then_some("--local-peers=clients"))
            .arg(format!(
                "--termination-log={}",
                folder.join("termination-log").display()
            ))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("the sidecar cannot be started")?;
        let log = child
            .stderr
            .take()
            .ok_or_else(|| anyhow!("the sidecar has no log"))?;
        let mut lines = BufReader::new(log).lines();
        let address = timeout(START, address(&mut lines)).await;
        let address = address.map_err(|_| anyhow!("the sidecar does not listen"))??;
        let warnings = Arc::new(Mutex::new(Vec::new()));
        tokio::spawn(read(lines, warnings.clone()));
        Ok(Self {
            address,
            child,
            warnings,
        })
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits until it has ended; kills it after a time.
    pub async fn ended_within(&mut self, limit: Duration) {
        if timeout(limit, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// What it warned of.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The address it listens on, from its log; its errors where it ends before.
async fn address(lines: &mut Lines<BufReader<ChildStderr>>) -> anyhow::Result<SocketAddr> {
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await? {
        let address = (serde_json::from_str::<Value>(&line).ok())
            .and_then(|line| line["address"].as_str()?.parse().ok());
        if let Some(address) = address {
            return Ok(address);
        }
        said.push(line);
    }
    Err(anyhow!("the sidecar ended at once: {}", said.join("; ")))
}

/// Reads the log to its end, so that the sidecar can go on writing.
async fn read(mut lines: Lines<BufReader<ChildStderr>>, warnings: Arc<Mutex<Vec<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if let ("WARN" | "ERROR", Some(message)) = (
            line["level"].as_str().unwrap_or_default(),
            line["message"].as_str(),
        ) {
            let mut warnings = warnings.lock().unwrap_or_else(PoisonError::into_inner);
            warnings.push(message.to_owned());
        }
    }
}

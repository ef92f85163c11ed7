//! The app under rehearsal: a command in a process group of its own, whose output goes to a file.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::network::Network;
use super::ports;
use super::target::PORT;

/// In the environment of each process of an app, so that those that left its process group are found too.
const MARK: &str = "GRACEKEEPER_REHEARSAL";

/// How many instances were started.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// How often it is asked whether the app listens.
const PAUSE: Duration = Duration::from_millis(20);

/// How much of the app's output an error shows, in lines.
const LAST_LINES: usize = 8;

/// A running instance. Dropping it kills all of its processes.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    child: Child,
    group: Pid,
    mark: String,
    output: PathBuf,
    name: String,
}

impl App {
    /// Starts the command with `{port}` replaced, and waits until it listens at the address.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen in time; the message has the last lines of its output.
    pub async fn start(
        command: &[String],
        address: SocketAddr,
        output: &Path,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let mut app = Self::spawn(&[], command, address.port(), address, output)?;
        app.wait_until_it_listens(within).await?;
        Ok(app)
    }

    /// Starts the command in a network of its own, where it listens on this port, and waits until it does.
    ///
    /// # Errors
    /// As `start`.
    pub async fn start_in(
        network: &Network,
        command: &[String],
        port: u16,
        output: &Path,
        within: Duration,
    ) -> anyhow::Result<Self> {
        let mut app = Self::spawn(&network.enter, command, port, network.address, output)?;
        let began = Instant::now();
        while !network.reaches_app().await {
            app.must_run()?;
            if began.elapsed() > within {
                bail!(
                    "it does not listen there after {}{}",
                    humantime::format_duration(within),
                    app.last_lines()
                );
            }
            sleep(PAUSE).await;
        }
        Ok(app)
    }

    /// Starts the command, after the words that lead it into a network. Clients reach it at the address.
    fn spawn(
        enter: &[String],
        command: &[String],
        port: u16,
        address: SocketAddr,
        output: &Path,
    ) -> anyhow::Result<Self> {
        let port = port.to_string();
        let command: Vec<String> = command
            .iter()
            .map(|word| word.replace(PORT, &port))
            .collect();
        let words = [enter, &command].concat();
        let [program, arguments @ ..] = words.as_slice() else {
            bail!("there is no command");
        };
        let file = File::options().create(true).append(true).open(output)?;
        // A restarted app has the same port, and must not end with the one before it.
        let mark = format!(
            "{}-{}",
            std::process::id(),
            STARTED.fetch_add(1, Ordering::Relaxed)
        );
        let child = Command::new(program)
            .args(arguments)
            .env("PORT", &port)
            .env(MARK, &mark)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("the command {program:?} cannot be started"))?;
        let group = (child.id())
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .ok_or_else(|| anyhow!("the command {program:?} ended at once"))?;
        Ok(Self {
            address,
            child,
            group,
            mark,
            output: output.to_owned(),
            name: command.join(" "),
        })
    }

    /// Fails where its first process has ended.
    fn must_run(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!(
                "the command {:?} ended with {} before it listened on {}{}",
                self.name,
                describe(status),
                self.address,
                self.last_lines()
            ),
        }
    }

    async fn wait_until_it_listens(&mut self, within: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            self.must_run()?;
            let connected = timeout(Duration::from_secs(1), TcpStream::connect(self.address)).await;
            if matches!(connected, Ok(Ok(_))) {
                return Ok(());
            }
            if began.elapsed() > within {
                let others = ports::listening(&self.processes()).await;
                let others: Vec<String> = others.iter().map(u16::to_string).collect();
                let instead = match others.as_slice() {
                    [] => "; it listens on no port".to_owned(),
                    ports => format!(
                        "; it listens on port {}: write {{port}} where the command takes its port, or that port in --url",
                        ports.join(", ")
                    ),
                };
                bail!(
                    "the command {:?} does not listen on {} after {}{instead}{}",
                    self.name,
                    self.address,
                    humantime::format_duration(within),
                    self.last_lines()
                );
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends SIGTERM to its first process, as a container runtime does.
    pub fn terminate(&mut self) {
        // One that has ended by itself has no process id any more.
        if self.has_ended().is_none() {
            let _ = kill_process(self.group, Signal::TERM);
        }
    }

    /// Waits until its first process has ended.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub async fn ended(&mut self) -> anyhow::Result<ExitStatus> {
        Ok(self.child.wait().await?)
    }

    /// Whether its first process has ended, and how.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills whatever is left of it, and says how many processes that were. A container's processes end with its first.
    pub fn kill(&mut self) -> usize {
        let left = self.processes();
        let _ = kill_process_group(self.group, Signal::KILL);
        for pid in &left {
            let _ = kill_process(*pid, Signal::KILL);
        }
        left.len()
    }

    /// Its processes that still run: those of its group, and those that have its mark.
    fn processes(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.mark);
        let is_ours = |pid: Pid| {
            let folder = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
            let environment = std::fs::read(folder.join("environ")).unwrap_or_default();
            let marked = environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == mark.as_bytes());
            let stat = std::fs::read_to_string(folder.join("stat")).unwrap_or_default();
            marked || group_of(&stat) == Some(self.group.as_raw_nonzero().get())
        };
        let folders = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        folders
            .filter_map(|entry| {
                entry
                    .file_name()
                    .to_str()?
                    .parse()
                    .ok()
                    .and_then(Pid::from_raw)
            })
            .filter(|pid| is_ours(*pid))
            .collect()
    }

    /// The end of its output, for an error.
    fn last_lines(&self) -> String {
        let text = std::fs::read(&self.output).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        match &lines[lines.len().saturating_sub(LAST_LINES)..] {
            [] => "; it printed nothing".to_owned(),
            last => ["; it printed:", &last.join("\n  ")].join("\n  "),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How a process ended, in words.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown status".to_owned(),
    }
}

/// The process group in a line of /proc/PID/stat, of a process that is no zombie. The name before it may have spaces.
fn group_of(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    let group = fields.nth(1)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_read_also_after_an_odd_name() {
        assert_eq!(group_of("7 (a) b)) S 1 42 7 0"), Some(42));
        assert_eq!(group_of("7 (a) Z 1 42 7 0"), None);
        assert_eq!(group_of(""), None);
    }
}

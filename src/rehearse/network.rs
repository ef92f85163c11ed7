//! A network of its own for the second instance of an app whose port is fixed, and a way in for the clients.
//!
//! util-linux's `unshare` makes the network namespace: as root, or in a user namespace where that is allowed. A program of
//! ours runs in it, `gracekeeper rehearse-network`, with a listening socket of this network as its standard input. A
//! socket stays in the network that it was made in: clients connect to it here, and the program connects to the app there.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// The name of the command.
const COMMAND: &str = "rehearse-network";

/// What it says when the network can be used.
const READY: &str = "ready";

/// How soon that is.
const START: Duration = Duration::from_secs(10);

/// How long an app that listens may take to close a connection on which nothing came, were it to refuse it.
const OPEN: Duration = Duration::from_millis(300);

/// What `unshare` and `nsenter` are told: as root, and in a user namespace in which the user keeps the id.
const ROOT: Means = Means {
    unshare: &["--net"],
    nsenter: &["--net"],
};
const USER: Means = Means {
    unshare: &["--net", "--user", "--map-current-user", "--keep-caps"],
    nsenter: &["--net", "--user", "--preserve-credentials"],
};

#[derive(Debug, Clone, Copy)]
struct Means {
    unshare: &'static [&'static str],
    nsenter: &'static [&'static str],
}

/// Flags of the program in the network.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The app's address there
    #[arg(long)]
    app: SocketAddr,
}

/// A network. Dropping it ends it once nothing runs in it any more.
#[derive(Debug)]
pub struct Network {
    /// Where clients reach the app.
    pub address: SocketAddr,
    /// The words before a command that runs in it.
    pub enter: Vec<String>,
    _program: Child,
}

impl Network {
    /// Makes one for an app that listens at this address in it.
    ///
    /// # Errors
    /// When there may be none, or the programs for it are not there.
    pub async fn make(app: SocketAddr) -> anyhow::Result<Self> {
        match Self::make_by(ROOT, app).await {
            Ok(network) => Ok(network),
            Err(_) => Self::make_by(USER, app).await,
        }
    }

    async fn make_by(means: Means, app: SocketAddr) -> anyhow::Result<Self> {
        let listener = StdListener::bind(SocketAddr::new(app.ip(), 0))?;
        let address = listener.local_addr()?;
        let ourselves = std::env::current_exe()?;
        let mut program = Command::new("unshare")
            .args(means.unshare)
            .arg("--")
            .arg(ourselves)
            .arg(COMMAND)
            .arg(format!("--app={app}"))
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("unshare, of util-linux, cannot be run")?;
        let (Some(output), Some(id)) = (program.stdout.take(), program.id()) else {
            bail!("no network of its own can be made: unshare ended at once");
        };
        let mut lines = BufReader::new(output).lines();
        let line = timeout(START, lines.next_line()).await;
        if !matches!(&line, Ok(Ok(Some(line))) if line == READY) {
            let _ = program.start_kill();
            let mut said = String::new();
            if let Some(mut errors) = program.stderr.take() {
                let _ = timeout(START, errors.read_to_string(&mut said)).await;
            }
            bail!("no network of its own can be made: {}", said.trim());
        }
        let mut enter = vec!["nsenter".to_owned(), format!("--target={id}")];
        enter.extend(means.nsenter.iter().map(|word| (*word).to_owned()));
        enter.push("--".to_owned());
        Ok(Self {
            address,
            enter,
            _program: program,
        })
    }

    /// Whether the app listens: a connection to one that does not is closed at once.
    pub async fn reaches_app(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(self.address).await else {
            return false;
        };
        let mut first = [0];
        match timeout(OPEN, stream.read(&mut first)).await {
            Ok(Ok(read)) => read > 0,
            Ok(Err(_)) => false,
            // It waits for a request.
            Err(_) => true,
        }
    }
}

/// Leads connections to the app, until the program that made the network ends.
///
/// # Errors
/// When the network has no loopback interface, or standard input is no listening socket.
pub async fn run(args: Args) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let listener = StdListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .stdin(Stdio::null())
        .output()
        .await
        .context("ip, of iproute2, cannot be run")?;
    if !up.status.success() {
        bail!(
            "ip link set lo up: {}",
            String::from_utf8_lossy(&up.stderr).trim()
        );
    }
    let mut out = io::stdout();
    writeln!(out, "{READY}")?;
    out.flush()?;
    loop {
        let (client, _) = listener.accept().await?;
        tokio::spawn(lead(client, args.app));
    }
}

/// One connection, to its end on both sides.
async fn lead(mut client: TcpStream, app: SocketAddr) {
    if let Ok(mut stream) = TcpStream::connect(app).await {
        let _ = (client.set_nodelay(true), stream.set_nodelay(true));
        let _ = copy_bidirectional(&mut client, &mut stream).await;
    }
}

//! `hook`: the app container's preStop hook as a command. It asks the sidecar over loopback and waits for the verdict;
//! where no sidecar answers, it drains by itself.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::drain::{Policy, Trigger, Verdict};
use crate::drainer::{Drainer, Task};
use crate::fetch::{self, Client, Url};
use crate::http::{HOOK_AGENT, Token};
use crate::report::{self, Aftermath};
use crate::run;
use crate::signal::Signals;
use crate::traffic::KubeletAddresses;

/// How soon a sidecar that lives answers.
const ALIVE: Duration = Duration::from_secs(1);

/// How often in a row it must not have answered to be taken for dead.
const MISSES: u32 = 3;

/// More than a verdict ever is.
const LONGEST: usize = 64 * 1024;

/// Where what the container's first process prints goes, and so the container's log.
const LOG: &str = "/proc/1/fd/1";

/// Waits until the app may stop, and says in one line why it may.
///
/// # Errors
/// When it cannot wait, or is told to stop: as a container's first process it would not hear SIGTERM otherwise.
pub async fn run(settings: run::Settings) -> anyhow::Result<String> {
    let mut signals = Signals::catch()?;
    tokio::select! {
        line = wait(settings) => line,
        _ = signals.next() => Err(anyhow!("told to stop before the drain was over")),
    }
}

async fn wait(mut settings: run::Settings) -> anyhow::Result<String> {
    let began = Instant::now();
    let sidecar = SocketAddr::from((Ipv4Addr::LOCALHOST, settings.http.listen.port()));
    let token = settings.http.token.as_ref();
    let kubelet = KubeletAddresses::default();
    for mistake in &settings.mistakes {
        tell(&format!(
            "{mistake}; the default is used, as --on-mistake says"
        ));
    }
    // Port 0 says that there is no sidecar.
    let why = match sidecar.port() {
        0 => None,
        _ => match ask(sidecar, token, &kubelet).await {
            Ok(verdict) => return Ok(verdict),
            Err(why) => Some(why),
        },
    };
    let auto = settings.inflight.auto.clone();
    if let Some(auto) = &auto {
        auto.leave_out(sidecar.port());
    }
    // The time that this took is gone.
    settings.drain = rest(settings.drain, began.elapsed());
    let verdict = drain(settings, &kubelet).await?;
    let mut line = report::line(&verdict, Aftermath::default());
    if let Some(ports) = auto.and_then(|auto| auto.found()) {
        let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
        line += &format!("; ports found: {}", ports.join(", "));
    }
    if let Some(why) = why {
        line += &format!("; without the sidecar: {why}");
    }
    Ok(line)
}

/// Prints the line for the caller, and to the container's log where that may be written.
pub fn tell(line: &str) {
    let line = format!("gracekeeper: {line}\n");
    let _ = io::stdout().write_all(line.as_bytes());
    // The first process itself has it already.
    if std::process::id() == 1 {
        return;
    }
    // A pipe that is not read must not hold the hook.
    let log = File::options()
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(LOG);
    if let Ok(mut log) = log {
        let _ = log.write_all(line.as_bytes());
    }
}

/// The sidecar's verdict in one line, or why there is none. It also says where the kubelet calls from, which is good to
/// know should it die before its verdict.
async fn ask(
    sidecar: SocketAddr,
    token: Option<&Token>,
    kubelet: &KubeletAddresses,
) -> Result<String, String> {
    let Ok(status) = timeout(ALIVE, get(sidecar, "/status", None)).await else {
        let limit = humantime::format_duration(ALIVE);
        return Err(format!("{sidecar} did not answer within {limit}"));
    };
    for address in report::kubelet_of(&status?).unwrap_or_default() {
        kubelet.called_from(address);
    }
    let body = tokio::select! {
        answer = get(sidecar, "/prestop/app", token) => answer?,
        why = stops_answering(sidecar) => return Err(why),
    };
    report::line_of(&body).ok_or_else(|| "what it said is no verdict".to_owned())
}

/// Waits until a sidecar has stopped answering, and says so. It knows how long its pod has, which may be longer than our
/// flags say, and so its verdict has no time limit here.
async fn stops_answering(sidecar: SocketAddr) -> String {
    let mut missed = 0;
    loop {
        sleep(ALIVE).await;
        match timeout(ALIVE, get(sidecar, "/status", None)).await {
            Ok(Ok(_)) => missed = 0,
            _ => missed += 1,
        }
        if missed == MISSES {
            return format!("{sidecar} has stopped answering");
        }
    }
}

/// The body of one answer, if that is a success.
async fn get(to: SocketAddr, path: &str, token: Option<&Token>) -> Result<Bytes, String> {
    let url = Url::parse(&format!("http://{to}{path}"))?;
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(HOOK_AGENT));
    if let Some(token) = token {
        let token = HeaderValue::from_bytes(token.header()).map_err(|e| e.to_string())?;
        headers.insert(Token::HEADER, token);
    }
    let client = Client::default();
    let sent = client.send_with(Method::GET, &url, headers).await;
    let exchange = sent.map_err(|e| match e {
        fetch::Error::Refused => format!("nothing listens on {to}"),
        fetch::Error::Broken(_) => format!("{to} went away: {e}"),
        _ => format!("{to}: {e}"),
    })?;
    match exchange.answer.status() {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(format!(
                "{to} wants its token; give the hook the same --token-file or GRACEKEEPER_TOKEN"
            ));
        }
        status => return Err(format!("{to} answered {status}")),
    }
    let body = Limited::new(exchange.answer.into_body(), LONGEST).collect();
    let body = body.await.map_err(|e| format!("{to} went away: {e}"))?;
    Ok(body.to_bytes())
}

/// The same policy, with less of everything that is counted from the beginning, of which so much has passed.
fn rest(policy: Policy, passed: Duration) -> Policy {
    let budget = policy.budget().saturating_sub(passed);
    Policy {
        min_wait: policy.min_wait.saturating_sub(passed),
        timeout: Some(budget),
        grace_period: policy.grace_period,
        ..policy
    }
}

/// Drains as the sidecar would.
async fn drain(
    settings: run::Settings,
    kubelet: &KubeletAddresses,
) -> anyhow::Result<Arc<Verdict>> {
    let drainer = Drainer::new(settings.inflight, settings.drain, None)?;
    let handle = drainer.shared.handle.clone();
    // The kubelet's probes are no traffic. It does not call us, so the gateway is taken for its address.
    for address in kubelet.addresses().into_iter().chain(gateway()) {
        drainer.shared.kubelet.called_from(address);
    }
    // A hook writes no Events, and the termination message is the app's own.
    let (report, _) = mpsc::unbounded_channel();
    let mut tasks: JoinSet<Task> = JoinSet::new();
    drainer.start(settings.notices.clone(), report, &mut tasks);
    let verdict = handle.drain(Trigger::AppHook).await.await;
    tasks.shutdown().await;
    // No sidecar will, and the app of the next start must not find it.
    settings.notices.remove_drain_file().await;
    verdict.map_err(|_| anyhow!("the drain ended without a verdict"))
}

/// The pod's way out, which with most networks is the kubelet's way in.
fn gateway() -> Option<IpAddr> {
    gateway_of(&std::fs::read_to_string("/proc/net/route").ok()?)
}

/// The gateway of a table of routes, as man 5 proc has it: addresses are hexadecimal, their first byte last.
fn gateway_of(routes: &str) -> Option<IpAddr> {
    let mut lines = routes.lines().map(str::split_whitespace);
    let gateway = lines.find_map(|mut line| {
        let (destination, gateway) = (line.nth(1)?, line.next()?);
        (destination == "00000000").then_some(gateway)
    })?;
    let number = u32::from_str_radix(gateway, 16).ok()?;
    let address = Ipv4Addr::from(number.swap_bytes());
    (!address.is_unspecified()).then_some(address.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateway_is_the_default_routes() {
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n";
        let local = "eth0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        let default = "eth0\t00000000\t0100F40A\t0003\t0\t0\t0\t00000000\t0\n";
        let table = format!("{head}{local}{default}");
        assert_eq!(gateway_of(&table), Some("10.244.0.1".parse().unwrap()));
        assert_eq!(gateway_of(&format!("{head}{local}")), None);
        assert_eq!(gateway_of(&default.replace("0100F40A", "00000000")), None);
        assert_eq!(gateway_of(""), None);
    }
}

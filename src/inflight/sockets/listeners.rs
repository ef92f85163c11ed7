//! The ports on which the pod listens, where the app's are not known by number: `--app-port=auto`.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Ports of known sidecars and admin pages, which are not the app's. An app that has one of them needs it by number.
pub const SIDECAR_PORTS: &[u16] = &[
    // gracekeeper itself, and where injection puts it instead.
    9903, 19903, 29903, 39903, //
    // Istio's agent and its Envoy (istio.io, "Ports used by Istio").
    15000, 15001, 15002, 15004, 15006, 15008, 15009, 15010, 15012, 15020, 15021, 15053,
    15090, //
    // Linkerd's proxy: inbound, outbound, admin, and its policy (linkerd.io, "Proxy configuration").
    4140, 4143, 4190, 4191, //
    // Envoy's admin page in Kuma, Contour and Consul.
    9901, 19000, 19001, 20000, //
    // Dapr: HTTP, API over gRPC, between sidecars, profiling (docs.dapr.io, "daprd").
    3500, 3501, 7777, 50001, 50002, //
    // The Cloud SQL proxy's health checks and admin page, and the Vault agent's listener.
    9090, 9091, 8200,
];

/// Where the kernel shows the listening sockets of this network namespace.
const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];

/// The state of a listening socket in these tables.
const LISTENS: &str = "0A";

/// The app's ports, found when a drain begins and kept until it is over: an app that is told of the drain may close them.
#[derive(Debug, Clone, Default)]
pub struct AutoPorts(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The sidecar's own port.
    own: Option<u16>,
    /// None while the pod serves.
    found: Option<Arc<BTreeSet<u16>>>,
}

impl AutoPorts {
    /// The sidecar's own port is not the app's.
    pub fn leave_out(&self, port: u16) {
        self.state().own = Some(port);
    }

    /// The ports: those that were found when the drain began, or where none runs, those of now.
    ///
    /// # Errors
    /// When the kernel's table cannot be read.
    pub fn ports(&self) -> io::Result<Arc<BTreeSet<u16>>> {
        match self.found() {
            Some(found) => Ok(found),
            None => self.look().map(Arc::new),
        }
    }

    /// Keeps the ports of now until [`Self::serving`].
    ///
    /// # Errors
    /// When the kernel's table cannot be read.
    pub fn drain_begins(&self) -> io::Result<Arc<BTreeSet<u16>>> {
        let found = self.ports()?;
        self.state().found = Some(Arc::clone(&found));
        Ok(found)
    }

    /// The drain is over, and the pod serves again.
    pub fn serving(&self) {
        self.state().found = None;
    }

    /// Those of the drain that runs, or of the last one.
    pub fn found(&self) -> Option<Arc<BTreeSet<u16>>> {
        self.state().found.clone()
    }

    fn look(&self) -> io::Result<BTreeSet<u16>> {
        let tables = TABLES.map(std::fs::read_to_string);
        // A machine without IPv6 has no table of it.
        if let [Err(e), _] = tables {
            return Err(e);
        }
        let own = self.state().own;
        let text: String = tables.into_iter().flatten().collect();
        let mut ports = app_ports(&text);
        ports.retain(|port| Some(*port) != own);
        Ok(ports)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports that clients may reach, known sidecars left out. What listens on loopback alone is the app's only where
/// nothing else listens: behind a proxy in the pod.
fn app_ports(table: &str) -> BTreeSet<u16> {
    let listeners: Vec<_> = (table.lines().filter_map(listener))
        .filter(|(_, port)| !SIDECAR_PORTS.contains(port))
        .collect();
    let beyond = listeners
        .iter()
        .filter(|(address, _)| !address.is_loopback());
    let reachable: BTreeSet<u16> = beyond.map(|&(_, port)| port).collect();
    match reachable.is_empty() {
        true => listeners.iter().map(|&(_, port)| port).collect(),
        false => reachable,
    }
}

/// The address of a line that is a listening socket's.
fn listener(line: &str) -> Option<(IpAddr, u16)> {
    let mut words = line.split_whitespace().skip(1);
    let (local, state) = (words.next()?, words.nth(1)?);
    if state != LISTENS {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    Some((ip(address)?, u16::from_str_radix(port, 16).ok()?))
}

/// An address as the table has it: words of 32 bits, each as the machine's own number.
fn ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(text.get(at..at + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";

    fn line(local: &str, state: &str) -> String {
        format!(
            "   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0\n"
        )
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listeners_are_told_from_connections_and_sidecars() {
        let any6 = "00000000000000000000000000000000:1F91";
        let table = [
            HEAD.to_owned(),
            line("00000000:1F90", "0A"),
            line(any6, "0A"),
            line("00000000:1F92", "01"),
            line("00000000:3A98", "0A"),
            line("0100007F:1F93", "0A"),
        ];
        assert_eq!(app_ports(&table.concat()), [8080, 8081].into());
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn loopback_counts_where_nothing_else_listens() {
        let mapped = "0000000000000000FFFF00000100007F:1F93";
        let table = [HEAD, &line(mapped, "0A"), &line("00000000:3A98", "0A")];
        assert_eq!(app_ports(&table.concat()), [8083].into());
        assert_eq!(app_ports(HEAD), BTreeSet::new());
    }

    #[test]
    fn a_drain_keeps_the_ports_that_were_open_when_it_began() {
        let ports = AutoPorts::default();
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let own = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        ports.leave_out(port(&own));
        let found = ports.drain_begins().unwrap();
        assert!(
            found.contains(&port(&listener)) && !found.contains(&port(&own)),
            "{found:?}"
        );
        let gone = port(&listener);
        drop(listener);
        assert!(ports.ports().unwrap().contains(&gone));
        ports.serving();
        assert!(!ports.ports().unwrap().contains(&gone));
    }
}

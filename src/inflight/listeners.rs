//! On which ports this pod listens, as the kernel's table has it: whether a port is the app's, or a typing mistake.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::sockets::SIDECAR_PORTS;

/// How long after an app's first sign of life all its ports should listen.
pub const APP_START: Duration = Duration::from_secs(10);

/// How often that is looked at.
const PAUSE: Duration = Duration::from_secs(1);

/// The state of a listening socket in /proc/net/tcp (`TCP_LISTEN` in include/net/tcp_states.h).
const LISTEN: &str = "0A";

/// The ports on which processes of this pod listen, our own left out.
pub fn listening() -> BTreeSet<u16> {
    let own = own_inodes();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    (tables.iter().flatten())
        .flat_map(|table| ports(table, &own))
        .collect()
}

/// What to say of ports of the app on which nothing listens, though the app is up and listens on others: asked again for
/// as long as an app may take to open all its ports.
pub async fn silent_ports(ports: &BTreeSet<u16>) -> Option<String> {
    let began = Instant::now();
    loop {
        let others = listening();
        let silent: Vec<u16> = ports.difference(&others).copied().collect();
        if silent.is_empty() {
            return None;
        }
        if began.elapsed() >= APP_START {
            return unheard(&silent, &others);
        }
        sleep(PAUSE).await;
    }
}

/// What to say where nothing listens on these ports, and the pod listens on others, known sidecars left out.
pub fn unheard(ports: &[u16], others: &BTreeSet<u16>) -> Option<String> {
    let list = |ports: &[u16]| {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        ports.join(", ")
    };
    let others: Vec<u16> = (others.iter().copied())
        .filter(|port| !SIDECAR_PORTS.contains(port))
        .collect();
    (!others.is_empty()).then(|| {
        format!(
            "nothing listens on port {}, but the pod listens on {}; write the app's own port",
            list(ports),
            list(&others)
        )
    })
}

/// The listening ports of a table but for those of these sockets.
fn ports(table: &str, own: &HashSet<String>) -> Vec<u16> {
    let lines = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (_, port) = address.rsplit_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        (*state == LISTEN && !own.contains(*inode)).then_some(port)
    });
    lines.collect()
}

/// The inodes of this process's sockets.
fn own_inodes() -> HashSet<String> {
    let files = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let links = files.filter_map(|file| fs::read_link(file.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn our_own_sockets_are_left_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(!listening().contains(&port));
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        assert!(ports(&table, &HashSet::new()).contains(&port));
    }

    #[test]
    fn only_listening_sockets_count() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let row = |port: &str, state: &str, inode: &str| {
            format!(
                "   0: 0100007F:{port} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 0 0 {inode} 1\n"
            )
        };
        let table = [
            head,
            &row("1F90", "0A", "7"),
            &row("1F91", "01", "8"),
            &row("1F92", "0A", "9"),
        ]
        .concat();
        assert_eq!(ports(&table, &["9".to_owned()].into()), [8080]);
    }
}

//! The app's ports where they are not known by number: `--app-port=auto`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Error, Listener, SIDECAR_PORTS, listeners};

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
    /// When the kernel cannot be asked.
    pub async fn ports(&self) -> Result<Arc<BTreeSet<u16>>, Error> {
        if let Some(found) = self.found() {
            return Ok(found);
        }
        let listeners = listeners().await?;
        Ok(Arc::new(app_ports(&listeners, self.state().own)))
    }

    /// Keeps the ports of now until [`Self::serving`].
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn drain_begins(&self) -> Result<Arc<BTreeSet<u16>>, Error> {
        let found = self.ports().await?;
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports that clients may reach, known sidecars and our `own` port left out. What listens on loopback alone is the
/// app's only where nothing else listens: behind a proxy in the pod.
fn app_ports(listeners: &[Listener], own: Option<u16>) -> BTreeSet<u16> {
    let ports = |loopback_too: bool| -> BTreeSet<u16> {
        (listeners.iter())
            .filter(|listener| loopback_too || !listener.address.is_loopback())
            .map(|listener| listener.port)
            .filter(|port| !SIDECAR_PORTS.contains(port) && Some(*port) != own)
            .collect()
    };
    let reachable = ports(false);
    match reachable.is_empty() {
        true => ports(true),
        false => reachable,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn listener(address: &str, port: u16) -> Listener {
        Listener {
            address: address.parse().unwrap(),
            port,
            inode: 7,
        }
    }

    #[test]
    fn the_apps_ports_are_told_from_those_of_sidecars() {
        let listeners = [
            listener("0.0.0.0", 8080),
            listener("::", 8081),
            listener("0.0.0.0", 15000),
            listener("0.0.0.0", 9911),
            listener("127.0.0.1", 8083),
        ];
        assert_eq!(app_ports(&listeners, Some(9911)), [8080, 8081].into());
    }

    #[test]
    fn loopback_counts_where_nothing_else_listens() {
        let proxy = [listener("127.0.0.1", 8083), listener("0.0.0.0", 15000)];
        assert_eq!(app_ports(&proxy, None), [8083].into());
        let sidecar = [listener("127.0.0.1", 8083), listener("::", 9911)];
        assert_eq!(app_ports(&sidecar, Some(9911)), [8083].into());
        assert_eq!(app_ports(&[], None), BTreeSet::new());
    }

    /// Whatever else listens on this machine is of no interest here.
    #[tokio::test]
    async fn a_drain_keeps_the_ports_that_were_open_when_it_began() {
        let ports = AutoPorts::default();
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let own = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = |listener: &TcpListener| listener.local_addr().unwrap().port();
        ports.leave_out(port(&own));
        let found = ports.drain_begins().await.unwrap();
        assert!(
            found.contains(&port(&listener)) && !found.contains(&port(&own)),
            "{found:?}"
        );
        let gone = port(&listener);
        drop(listener);
        assert!(ports.ports().await.unwrap().contains(&gone));
        ports.serving();
        assert!(ports.found().is_none());
    }
}

//! The sockets that take connections in the pod: whether the app was started again, and on which port it may listen
//! instead.

use std::collections::HashSet;

use crate::inflight::sockets::{Error, Listener, SIDECAR_PORTS, listeners_of_others};

/// The listeners of the app's ports when a drain began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    /// By their inodes.
    first: HashSet<u32>,
}

/// What listens now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listening {
    /// Something listens on the app's ports.
    pub listens: bool,
    /// Something listens on the app's ports, and nothing of it did when the drain began.
    pub replaced: bool,
    /// Where nothing listens on the app's ports: a port on which something may be the app.
    pub other_port: Option<u16>,
}

impl Listeners {
    /// These, as a read of the app's ports has them.
    pub fn new(of_app: &[Listener]) -> Self {
        Self {
            first: of_app.iter().map(|listener| listener.inode).collect(),
        }
    }

    /// What listens now on the app's ports, compared with these; where nothing does, the kernel is asked what else the pod
    /// listens on.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn compare(&self, of_app: &[Listener]) -> Result<Listening, Error> {
        if !of_app.is_empty() {
            return Ok(Listening {
                listens: true,
                replaced: of_app.iter().all(|it| !self.first.contains(&it.inode)),
                other_port: None,
            });
        }
        Ok(Listening {
            other_port: other_port(&listeners_of_others().await?),
            ..Listening::default()
        })
    }
}

/// The port on which something may be the app: the first that is no known sidecar's.
fn other_port(others: &[Listener]) -> Option<u16> {
    (others.iter())
        .map(|listener| listener.port)
        .filter(|port| !SIDECAR_PORTS.contains(port))
        .min()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn listener(inode: u32, port: u16) -> Listener {
        Listener {
            address: Ipv4Addr::UNSPECIFIED.into(),
            port,
            inode,
        }
    }

    #[tokio::test]
    async fn an_app_was_started_again_when_nothing_of_before_listens_any_more() {
        let replaced = async |first: &[Listener], now: &[Listener]| {
            let listening = Listeners::new(first).compare(now).await.unwrap();
            assert!(listening.listens);
            listening.replaced
        };
        let [one, two, three] = [1, 2, 3].map(|inode| listener(inode, 8000));
        assert!(!replaced(&[one, two], &[one, three]).await);
        assert!(replaced(&[one, two], &[three]).await);
        assert!(replaced(&[], &[three]).await);
    }

    #[test]
    fn another_port_may_be_the_apps_where_nothing_listens_on_its_own() {
        let others = [listener(4, 8443), listener(3, 8080), listener(5, 15090)];
        assert_eq!(other_port(&others), Some(8080));
        assert_eq!(other_port(&others[2..]), None);
        assert_eq!(other_port(&[]), None);
    }

    #[tokio::test]
    async fn our_own_listeners_are_no_app() {
        let own = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = own.local_addr().unwrap().port();
        let seen = Listeners::default().compare(&[]).await.unwrap();
        assert!(!seen.listens && !seen.replaced);
        assert_ne!(seen.other_port, Some(port));
    }
}

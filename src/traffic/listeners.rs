//! The sockets that take connections in the pod: whether the app was started again, and on which port it may listen
//! instead.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use crate::inflight::sockets::{Error, Listener, SIDECAR_PORTS, listeners};

/// The listeners of the app's ports when a drain began.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listeners {
    /// By the kernel's own number.
    first: HashSet<u64>,
}

/// What listens now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listening {
    /// Something listens on the app's ports, and nothing of it did when the drain began.
    pub replaced: bool,
    /// Where nothing listens on the app's ports: a port on which something may be the app.
    pub other_port: Option<u16>,
}

impl Listeners {
    /// Those of now.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn read(ports: &BTreeSet<u16>) -> Result<Self, Error> {
        let mut first = HashSet::new();
        listeners(|listener| {
            if ports.contains(&listener.port) {
                first.insert(listener.cookie);
            }
        })
        .await?;
        Ok(Self { first })
    }

    /// What listens now, compared with these.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn compare(&self, ports: &BTreeSet<u16>) -> Result<Listening, Error> {
        let mut all = Vec::new();
        listeners(|listener| all.push(listener)).await?;
        Ok(self.judge(ports, &all, own_inodes))
    }

    fn judge(
        &self,
        ports: &BTreeSet<u16>,
        all: &[Listener],
        own: impl FnOnce() -> HashSet<u32>,
    ) -> Listening {
        let mut of_app = (all.iter())
            .filter(|listener| ports.contains(&listener.port))
            .peekable();
        if of_app.peek().is_some() {
            let replaced = of_app.all(|listener| !self.first.contains(&listener.cookie));
            return Listening {
                replaced,
                other_port: None,
            };
        }
        let own = own();
        let other_port = (all.iter())
            .filter(|listener| !own.contains(&listener.inode))
            .map(|listener| listener.port)
            .filter(|port| !SIDECAR_PORTS.contains(port))
            .min();
        Listening {
            replaced: false,
            other_port,
        }
    }
}

/// The sockets that this process holds.
fn own_inodes() -> HashSet<u32> {
    let Ok(links) = std::fs::read_dir("/proc/self/fd") else {
        return HashSet::new();
    };
    links
        .flatten()
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .filter_map(|target| inode(&target))
        .collect()
}

/// The inode of a link such as `socket:[123]`.
fn inode(target: &Path) -> Option<u32> {
    let number = target.to_str()?.strip_prefix("socket:[")?;
    number.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(cookie: u64, port: u16) -> Listener {
        Listener {
            cookie,
            port,
            inode: cookie as u32 + 100,
        }
    }

    fn judge(first: &[u64], all: &[Listener]) -> Listening {
        let listeners = Listeners {
            first: first.iter().copied().collect(),
        };
        listeners.judge(&[8000].into(), all, || [109].into())
    }

    #[test]
    fn an_app_was_started_again_when_nothing_of_before_listens_any_more() {
        assert!(!judge(&[1, 2], &[listener(1, 8000), listener(3, 8000)]).replaced);
        assert!(judge(&[1, 2], &[listener(3, 8000)]).replaced);
        assert!(judge(&[], &[listener(3, 8000)]).replaced);
        assert!(!judge(&[1], &[listener(3, 9000)]).replaced);
    }

    #[test]
    fn another_port_may_be_the_apps_where_nothing_listens_on_its_own() {
        let other = |all: &[Listener]| judge(&[1], all).other_port;
        assert_eq!(other(&[listener(3, 8080), listener(4, 8443)]), Some(8080));
        assert_eq!(other(&[listener(1, 8000), listener(3, 8080)]), None);
        assert_eq!(other(&[listener(9, 8080), listener(5, 15090)]), None);
        assert_eq!(other(&[]), None);
    }

    #[tokio::test]
    async fn our_own_listeners_are_known_and_a_new_one_is_told_from_the_one_before() {
        let listen = |port| std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let first = listen(0);
        let port = first.local_addr().unwrap().port();
        let ports = BTreeSet::from([port]);
        let before = Listeners::read(&ports).await.unwrap();
        assert!(!before.compare(&ports).await.unwrap().replaced);
        drop(first);
        let _second = listen(port);
        assert!(before.compare(&ports).await.unwrap().replaced);
        assert!(own_inodes().len() > 1);
    }
}

//! Free ports, and the ports on which processes listen.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use rustix::process::Pid;

use crate::inflight::sockets;

/// A port that is free now.
///
/// # Errors
/// When there is none.
pub fn free(address: IpAddr) -> io::Result<u16> {
    Ok(TcpListener::bind(SocketAddr::new(address, 0))?
        .local_addr()?
        .port())
}

/// The ports on which these processes listen; none where the kernel does not say.
pub async fn listening(processes: &[Pid]) -> BTreeSet<u16> {
    let ids = processes.iter().map(|pid| pid.as_raw_nonzero().to_string());
    let theirs: HashSet<u32> = ids.flat_map(|id| sockets::inodes(&id)).collect();
    let all = sockets::listeners().await.unwrap_or_default();
    all.iter()
        .filter(|listener| theirs.contains(&listener.inode))
        .map(|listener| listener.port)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_listens_on_its_own_ports_and_not_on_those_that_it_is_connected_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let me = [rustix::process::getpid()];
        let ports = listening(&me).await;
        assert!(ports.contains(&port), "{ports:?}");
        assert!(!ports.contains(&client.local_addr().unwrap().port()));
        assert_eq!(listening(&[]).await, BTreeSet::new());
    }
}

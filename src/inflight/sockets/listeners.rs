//! The sockets on which processes of the pod take connections.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use super::{Error, netlink, procfs};

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

/// A socket that listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// Where clients reach it. An IPv4 address is one also where the socket is an IPv6 one.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The socket's own number, as the links of `/proc/PID/fd` have it. The kernel counts on through all its 32 bits
    /// before it gives one twice.
    pub inode: u32,
}

/// Every TCP socket of this pod that listens. Where netlink does not tell, `/proc` has them too.
///
/// # Errors
/// When the kernel cannot be asked, or does not answer.
pub async fn listeners() -> Result<Vec<Listener>, Error> {
    match netlink::listeners().await {
        Err(e) => procfs::listeners().await.map_err(|_| e),
        told => told,
    }
}

/// The same, without the sockets of this process.
///
/// # Errors
/// When the kernel cannot be asked, or does not answer.
pub async fn listeners_of_others() -> Result<Vec<Listener>, Error> {
    let mut all = listeners().await?;
    let own = inodes("self");
    all.retain(|listener| !own.contains(&listener.inode));
    Ok(all)
}

/// The sockets that a process holds, as its folder in `/proc` is named; none where that cannot be read.
pub fn inodes(process: &str) -> HashSet<u32> {
    let Ok(links) = std::fs::read_dir(format!("/proc/{process}/fd")) else {
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
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn netlink_and_proc_tell_the_same_of_a_listener_and_it_is_known_as_our_own() {
        for address in ["127.0.0.1:0", "[::1]:0", "0.0.0.0:0"] {
            let socket = TcpListener::bind(address).unwrap();
            let local = socket.local_addr().unwrap();
            let of_it = |all: Vec<Listener>| {
                all.into_iter()
                    .find(|it| (it.address, it.port) == (local.ip(), local.port()))
            };
            let seen = of_it(netlink::listeners().await.unwrap());
            assert!(seen.is_some(), "{address}");
            assert_eq!(of_it(procfs::listeners().await.unwrap()), seen);
            assert_eq!(of_it(listeners().await.unwrap()), seen);
            assert_eq!(of_it(listeners_of_others().await.unwrap()), None);
            let _client = std::net::TcpStream::connect(local).unwrap();
            assert_eq!(
                of_it(procfs::listeners().await.unwrap()),
                seen,
                "a connection does not listen"
            );
        }
    }
}

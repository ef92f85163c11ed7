//! Free ports, and the ports on which processes listen.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use rustix::process::Pid;

/// The state of a listener in the kernel's table.
const LISTEN: &str = "0A";

/// A port that is free now.
///
/// # Errors
/// When there is none.
pub fn free(address: IpAddr) -> io::Result<u16> {
    Ok(TcpListener::bind(SocketAddr::new(address, 0))?
        .local_addr()?
        .port())
}

/// The ports on which these processes listen.
pub fn listening(processes: &[Pid]) -> BTreeSet<u16> {
    let inodes: BTreeSet<String> = processes.iter().flat_map(|pid| sockets(*pid)).collect();
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|table| listeners(&std::fs::read_to_string(table).unwrap_or_default()))
        .filter(|(_, inode)| inodes.contains(inode))
        .map(|(port, _)| port)
        .collect()
}

/// The inodes of a process's sockets.
fn sockets(pid: Pid) -> Vec<String> {
    let folder = PathBuf::from(format!("/proc/{}/fd", pid.as_raw_nonzero()));
    let links = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = links.filter_map(|entry| std::fs::read_link(entry.path()).ok());
    names
        .filter_map(|name| {
            let name = name.to_str()?.strip_prefix("socket:[")?;
            name.strip_suffix(']').map(str::to_owned)
        })
        .collect()
}

/// The ports and inodes of the listeners in a table, as man 5 proc has it.
fn listeners(table: &str) -> Vec<(u16, String)> {
    let lines = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    lines
        .filter_map(|fields| {
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let port = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
            (*state == LISTEN).then(|| (port, (*inode).to_owned()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_are_read_from_the_kernels_table() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let listener = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n";
        let connection = listener.replace(" 0A ", " 01 ");
        assert_eq!(
            listeners(&format!("{head}{listener}{connection}")),
            [(8000, "4242".to_owned())]
        );
    }
}

//! The table as `/proc/net/tcp` and `tcp6` show it (man 5 proc_net): the connections and listeners, for where netlink is
//! refused, and the one thing that netlink does not tell, whether the app has replied.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::LazyLock;

use super::Listener;

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// How many lines are read before other work has its turn.
const LINES_AT_ONCE: usize = 128;

const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Counts the established connections of these local ports, `ours` left out; and whether something listens.
///
/// # Errors
/// When neither table can be read.
pub async fn count(
    ports: &BTreeSet<u16>,
    ours: impl Fn(SocketAddr) -> bool,
) -> io::Result<(u64, bool)> {
    let (mut count, mut listens) = (0, false);
    read(|_, entry| {
        if ports.contains(&entry.local.port()) {
            listens |= entry.state == LISTEN;
            count += u64::from(entry.state == ESTABLISHED && !ours(entry.peer));
        }
    })
    .await?;
    Ok((count, listens))
}

/// Every TCP socket of this network namespace that listens.
///
/// # Errors
/// When neither table can be read.
pub async fn listeners() -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    read(|line, entry| {
        if entry.state == LISTEN
            && let Some(inode) = inode(line)
        {
            listeners.push(Listener {
                address: entry.local.ip(),
                port: entry.local.port(),
                inode,
            });
        }
    })
    .await?;
    Ok(listeners)
}

/// By port and peer, whether the app has replied.
pub type Replies = HashMap<(u16, SocketAddr), bool>;

/// Of the connections of these local ports, by port and peer: whether the app has replied to what came last, if that has
/// had half a second.
///
/// The kernel calls a connection interactive (`icsk_ack.pingpong`) from a reply that followed close upon what had come,
/// until something has come that it had to acknowledge by itself, since no reply did so within its delay.
///
/// # Errors
/// When neither table can be read.
pub async fn replies(ports: &BTreeSet<u16>) -> io::Result<Replies> {
    let mut replies = Replies::new();
    read(|line, entry| {
        let port = entry.local.port();
        if ports.contains(&port)
            && let Some(interactive) = interactive(line)
        {
            replies.insert((port, entry.peer), interactive);
        }
    })
    .await?;
    Ok(replies)
}

/// Whether one quick reply makes a connection interactive for this kernel: since 5.19, and later if it was not told
/// otherwise. Between that and 5.1 it took three, unless that was mended as well, which does not show.
pub fn tells_replies() -> bool {
    static TELLS: LazyLock<bool> = LazyLock::new(|| {
        let said = |path: &str| std::fs::read_to_string(Path::new("/proc/sys").join(path));
        match said("net/ipv4/tcp_pingpong_thresh") {
            Ok(threshold) => threshold.trim() == "1",
            Err(_) => said("kernel/osrelease").is_ok_and(|release| is_since_5_19(&release)),
        }
    });
    *TELLS
}

fn is_since_5_19(release: &str) -> bool {
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= (5, 19),
        _ => false,
    }
}

/// Reads the lines of both tables, each with its [`Entry`]. The kernel writes some 200,000 lines a second, for all sockets
/// of the network namespace: probes want an answer in between.
async fn read(mut each: impl FnMut(&str, Entry<'_>)) -> io::Result<()> {
    let mut read = Err(io::ErrorKind::NotFound.into());
    for table in TABLES {
        // Without IPv6 there is no second one.
        let file = match std::fs::File::open(table) {
            Ok(file) => file,
            Err(e) => {
                read = read.or(Err(e));
                continue;
            }
        };
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line?;
            if let Some(entry) = entry(&line) {
                each(&line, entry);
            }
            if number % LINES_AT_ONCE == LINES_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
        }
        read = Ok(());
    }
    read
}

/// The ends and the state of each socket in a table's text: for the fuzz target.
pub fn sockets_of(table: &str) -> Vec<(SocketAddr, SocketAddr, String)> {
    let sockets = table.lines().filter_map(|line| {
        let _ = (inode(line), interactive(line));
        let entry = entry(line)?;
        Some((entry.local, entry.peer, entry.state.to_owned()))
    });
    sockets.collect()
}

/// The last bit of what a line says of quick acknowledgements. Sockets that listen or die have no such word.
fn interactive(line: &str) -> Option<bool> {
    let word = line.split_ascii_whitespace().nth(14)?;
    let quick: u32 = word.parse().ok()?;
    Some(quick & 1 == 1)
}

/// The socket's inode.
fn inode(line: &str) -> Option<u32> {
    line.split_ascii_whitespace().nth(9)?.parse().ok()
}

/// What a line begins with.
#[derive(Debug, PartialEq, Eq)]
struct Entry<'a> {
    local: SocketAddr,
    peer: SocketAddr,
    state: &'a str,
}

/// Reads a line's beginning; nothing for the heading.
fn entry(line: &str) -> Option<Entry<'_>> {
    let mut words = line.split_ascii_whitespace().skip(1);
    Some(Entry {
        local: address(words.next()?)?,
        peer: address(words.next()?)?,
        state: words.next()?,
    })
}

/// `ADDRESS:PORT` in hexadecimal, the address in words of the machine's own byte order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut bytes = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address: IpAddr = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => v4.into(),
        Err(_) => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
    };
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddr::new(address.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_the_kernel_writes_it() {
        if cfg!(target_endian = "big") {
            return; // The examples are from the other kind of machine.
        }
        let entry_of = |local: &str, peer: &str, state| {
            let (local, peer) = (local.parse().unwrap(), peer.parse().unwrap());
            Some(Entry { local, peer, state })
        };
        let four = "   1: 0100007F:1F40 0200000A:D431 01 00000000:00000000 00:00000000 00000000  1000 0 7 1 0";
        assert_eq!(
            entry(four),
            entry_of("127.0.0.1:8000", "10.0.0.2:54321", ESTABLISHED)
        );
        assert_eq!(inode(four), Some(7));
        let six = "   0: 00000000000000000000000000000000:26AF 00000000000000000000000000000000:0000 0A 00000000";
        assert_eq!(entry(six), entry_of("[::]:9903", "[::]:0", LISTEN));
        let mapped =
            "  2: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:8000 01 0";
        assert_eq!(
            entry(mapped),
            entry_of("127.0.0.1:8000", "127.0.0.1:32768", ESTABLISHED)
        );
        assert_eq!(
            entry("  sl  local_address rem_address   st tx_queue rx_queue"),
            None
        );
    }

    #[test]
    fn kernels_since_5_19_tell_replies() {
        for (release, since) in [("5.19.0-1-cloud", true), ("6.1.0", true), ("6-rc1", false)] {
            assert_eq!(is_since_5_19(release), since, "{release}");
        }
        assert!(!is_since_5_19("5.15.0-1051-aws") && !is_since_5_19("4.19.0"));
    }

    #[tokio::test]
    async fn connections_are_counted_and_ours_are_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let clients: Vec<_> = (0..3)
            .map(|_| std::net::TcpStream::connect(("127.0.0.1", port)).unwrap())
            .collect();
        let own = clients[0].local_addr().unwrap();
        let ports = BTreeSet::from([port]);
        assert_eq!(count(&ports, |_| false).await.unwrap(), (3, true));
        assert_eq!(count(&ports, |peer| peer == own).await.unwrap(), (2, true));
    }
}

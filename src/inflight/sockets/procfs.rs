//! The table as `/proc/net/tcp` and `tcp6` show it, for where netlink is refused: who is connected, and nothing more.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, BufReader};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

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
    let (mut count, mut listens, mut read) = (0, false, Err(io::ErrorKind::NotFound.into()));
    for table in TABLES {
        // Without IPv6 there is no second one.
        let file = match std::fs::File::open(table) {
            Ok(file) => file,
            Err(e) => {
                read = read.or(Err(e));
                continue;
            }
        };
        for line in BufReader::new(file).lines() {
            let line = line?;
            let Some((port, peer, state)) = entry(&line) else {
                continue;
            };
            if ports.contains(&port) {
                listens |= state == LISTEN;
                count += u64::from(state == ESTABLISHED && !ours(peer));
            }
        }
        read = Ok(());
        tokio::task::yield_now().await;
    }
    read.map(|()| (count, listens))
}

/// A line's local port, peer and state; nothing for the heading.
fn entry(line: &str) -> Option<(u16, SocketAddr, &str)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (_, port) = words.next()?.rsplit_once(':')?;
    let peer = address(words.next()?)?;
    Some((u16::from_str_radix(port, 16).ok()?, peer, words.next()?))
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
        let four = "   1: 0100007F:1F40 0200000A:D431 01 00000000:00000000 00:00000000 00000000  1000 0 7 1 0";
        let peer: SocketAddr = "10.0.0.2:54321".parse().unwrap();
        assert_eq!(entry(four), Some((8000, peer, ESTABLISHED)));
        let six = "   0: 00000000000000000000000000000000:26AF 00000000000000000000000000000000:0000 0A 00000000";
        assert_eq!(entry(six), Some((9903, "[::]:0".parse().unwrap(), LISTEN)));
        let mapped =
            "  2: 0000000000000000FFFF00000100007F:1F40 0000000000000000FFFF00000100007F:8000 01 0";
        assert_eq!(
            entry(mapped),
            Some((8000, "127.0.0.1:32768".parse().unwrap(), ESTABLISHED))
        );
        assert_eq!(
            entry("  sl  local_address rem_address   st tx_queue rx_queue"),
            None
        );
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

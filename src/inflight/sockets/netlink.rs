//! The kernel's answers over netlink's `sock_diag` (man 7 sock_diag; layouts in `linux/inet_diag.h` and `linux/tcp.h`).
//!
//! Read at fixed offsets as the kernel writes them: of some sixty fields of `tcp_info` seven are needed, and kernels differ
//! in how many more they send.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket};

use super::{Connection, Error, Listener, State};

/// Asks for the sockets of all families, and marks the answers. To ask for each family by itself is the newer way, but
/// takes the kernel twice through a table that has the sockets of the whole machine.
const TCPDIAG_GETSOCK: u16 = 18;
/// Marks the notices.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;
const AF_INET: u8 = 2;

/// A connection that both ends have closed, the app's first.
const TIME_WAIT_STATE: u8 = 6;

/// `INET_DIAG_INFO`, the attribute that holds `tcp_info`, and the bit that asks for it.
const INFO: u16 = 2;
const WANT_INFO: u8 = 1 << (INFO - 1);
/// `INET_DIAG_REQ_BYTECODE`, the attribute that holds a filter.
const BYTECODE: u16 = 1;
/// Operations of a filter: go on at another place; the local port is at least, or at most, the next word.
const BC_JMP: u8 = 1;
const BC_S_GE: u8 = 2;
const BC_S_LE: u8 = 3;

/// `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY`.
const CLOSE_GROUPS: [u32; 2] = [1, 3];

const HEADER: usize = 16;
const INET_DIAG_REQ: usize = 60;
const INET_DIAG_MSG: usize = 72;

/// How much of `tcp_info` has to be there of an open connection: up to the bytes that came and went, which kernels have
/// told since 4.1.
const LEAST_INFO: usize = 136;

/// More than the kernel ever sends at once (32 KiB).
const BUFFER: usize = 64 * 1024;

/// How long the kernel remembers a connection that the app has closed first (`TCP_TIMEWAIT_LEN` in `include/net/tcp.h`).
const TIME_WAIT: Duration = Duration::from_secs(60);

/// A connection that the app has closed first within the last minute. The kernel keeps nothing else of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecentlyClosed {
    /// The app's port.
    pub port: u16,
    /// The other end.
    pub peer: SocketAddr,
    /// How long ago both ends had closed it.
    pub ago: Duration,
}

/// Hands out every TCP connection of these local ports, and says which sockets listen there.
pub async fn dump(
    ports: &BTreeSet<u16>,
    mut each: impl FnMut(Connection),
) -> Result<Vec<Listener>, Error> {
    let states = [
        State::Established,
        State::FinWait1,
        State::FinWait2,
        State::CloseWait,
        State::LastAck,
        State::Closing,
        State::Listen,
    ];
    let states = states.into_iter().map(State::bit).sum();
    let mut listeners = Vec::new();
    ask(ports, states, |message| match message.get(1).copied() {
        Some(state) if State::new(state) == State::Listen => {
            listener(message).map(|listener| listeners.push(listener))
        }
        _ => connection(message).map(&mut each),
    })
    .await?;
    Ok(listeners)
}

/// Every TCP socket of this network namespace that listens.
///
/// # Errors
/// When the kernel cannot be asked, or does not answer.
pub async fn listeners() -> Result<Vec<Listener>, Error> {
    let mut listeners = Vec::new();
    ask(&BTreeSet::new(), State::Listen.bit(), |message| {
        listener(message).map(|listener| listeners.push(listener))
    })
    .await?;
    Ok(listeners)
}

/// Hands out what the kernel remembers of connections to these local ports that the app has closed first.
pub async fn recently_closed(
    ports: &BTreeSet<u16>,
    mut each: impl FnMut(RecentlyClosed),
) -> Result<(), Error> {
    ask(ports, 1 << TIME_WAIT_STATE, |message| {
        closed_before(message).map(|closed| closed.into_iter().for_each(&mut each))
    })
    .await
}

/// Hands out each of the kernel's messages on sockets in these states; `each` gives nothing where one is too short.
async fn ask(
    ports: &BTreeSet<u16>,
    states: u32,
    mut each: impl FnMut(&[u8]) -> Option<()>,
) -> Result<(), Error> {
    let socket = open(&[])?;
    let mut buffer = BytesMut::with_capacity(BUFFER);
    let sent = socket.socket_ref().send(&request(ports, states), 0);
    sent.map_err(Error::Refused)?;
    loop {
        receive(&socket, &mut buffer).await.map_err(Error::Broken)?;
        if is_last(&buffer, &mut each)? {
            return Ok(());
        }
        // A long table is read in many pieces, and probes want an answer in between.
        tokio::task::yield_now().await;
    }
}

/// Hands out a datagram's messages on sockets; whether the answer ends with it.
fn is_last(datagram: &[u8], mut each: impl FnMut(&[u8]) -> Option<()>) -> Result<bool, Error> {
    for message in Messages(datagram) {
        match message?.kind()? {
            Kind::Done => return Ok(true),
            Kind::Socket(payload) => each(payload).ok_or_else(short)?,
            Kind::Other => {}
        }
    }
    Ok(false)
}

/// Hands out the connections of a datagram, those in TIME_WAIT too: for the fuzz target.
pub fn connections_of(
    datagram: &[u8],
    mut each: impl FnMut(Connection, Option<RecentlyClosed>),
) -> Result<bool, Error> {
    is_last(datagram, |message| {
        let _ = listener(message);
        each(connection(message)?, closed_before(message)?);
        Some(())
    })
}

/// The end of a TCP connection, on any port.
#[derive(Debug)]
pub enum CloseNotice {
    /// This one, as it was at its end.
    Closed(Connection),
    /// There were more at once than the kernel kept for us.
    Lost,
}

/// The kernel's notices of TCP connections that end, from when this is made.
pub struct CloseNotices {
    socket: TokioSocket,
    buffer: BytesMut,
}

impl CloseNotices {
    /// Asks for the notices.
    ///
    /// # Errors
    /// When the kernel, or a policy such as seccomp, refuses.
    pub fn listen() -> Result<Self, Error> {
        let socket = open(&CLOSE_GROUPS)?;
        // A burst must wait somewhere. The kernel may grant less.
        let _ = socket.socket_ref().set_rx_buf_sz(4_i32 << 20);
        Ok(Self {
            socket,
            buffer: BytesMut::with_capacity(BUFFER),
        })
    }

    /// Hands out the next notices, when there are any. May be dropped and called again without loss.
    ///
    /// # Errors
    /// When there will be no more.
    pub async fn next(&mut self, each: impl FnMut(CloseNotice)) -> Result<(), Error> {
        let received = receive(&self.socket, &mut self.buffer).await;
        self.hand_out(received, each)
    }

    /// Hands out the notices that are there.
    ///
    /// # Errors
    /// When there will be no more.
    pub fn pending(&mut self, mut each: impl FnMut(CloseNotice)) -> Result<(), Error> {
        loop {
            self.buffer.clear();
            match self.socket.socket_ref().recv(&mut self.buffer, 0) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                received => self.hand_out(received.map(drop), &mut each)?,
            }
        }
    }

    fn hand_out(
        &self,
        received: io::Result<()>,
        mut each: impl FnMut(CloseNotice),
    ) -> Result<(), Error> {
        match received {
            Ok(()) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOBUFS) => {
                each(CloseNotice::Lost);
                return Ok(());
            }
            Err(e) => return Err(Error::Broken(e)),
        }
        for message in Messages(&self.buffer) {
            if let Kind::Socket(payload) = message?.kind()? {
                each(CloseNotice::Closed(ended(payload).ok_or_else(short)?));
            }
        }
        Ok(())
    }
}

fn open(groups: &[u32]) -> Result<TokioSocket, Error> {
    let open = || {
        let mut socket = TokioSocket::new(NETLINK_SOCK_DIAG)?;
        socket.socket_mut().bind_auto()?;
        for &group in groups {
            socket.socket_mut().add_membership(group)?;
        }
        Ok(socket)
    };
    open().map_err(Error::Refused)
}

async fn receive(socket: &TokioSocket, buffer: &mut BytesMut) -> io::Result<()> {
    buffer.clear();
    socket.recv(buffer).await
}

/// A request for all sockets in these states, of these ports or, where there are none, of all.
fn request(ports: &BTreeSet<u16>, states: u32) -> Vec<u8> {
    let filter = filter(ports);
    let attribute = if filter.is_empty() {
        0
    } else {
        4 + filter.len()
    };
    let length = HEADER + INET_DIAG_REQ + attribute;
    let mut out = Vec::with_capacity(length);
    out.put_u32_ne(length as u32);
    out.put_u16_ne(TCPDIAG_GETSOCK);
    out.put_u16_ne(NLM_F_REQUEST | NLM_F_DUMP);
    out.put_u32_ne(1); // Sequence.
    out.put_u32_ne(0); // The sender: the kernel knows.
    out.put_slice(&[0, 0, 0, WANT_INFO]);
    out.put_bytes(0, 48); // Any socket.
    out.put_u32_ne(states);
    out.put_u32_ne(0);
    if attribute > 0 {
        out.put_u16_ne(attribute as u16);
        out.put_u16_ne(BYTECODE);
        out.extend(filter);
    }
    out
}

/// A filter that the kernel runs on each socket: its local port is one of these.
///
/// A filter that is run to its exact end takes the socket, one that leaves it four bytes further on does not. For each
/// port there are five words: at least this port, the port, at most this port, the port, and a jump to the end; a port
/// that is not the one goes past the jump.
fn filter(ports: &BTreeSet<u16>) -> Vec<u8> {
    const EACH: u16 = 20;
    let mut out = Vec::with_capacity(ports.len() * usize::from(EACH));
    let mut operation = |code: u8, yes: u8, no: u16| {
        out.put_slice(&[code, yes]);
        out.put_u16_ne(no);
    };
    for (n, &port) in ports.iter().enumerate() {
        let left = (ports.len() - n) as u16 * EACH;
        let past = if left == EACH { EACH + 4 } else { EACH };
        operation(BC_S_GE, 8, past);
        operation(0, 0, port);
        operation(BC_S_LE, 8, past - 8);
        operation(0, 0, port);
        operation(BC_JMP, 4, left - 16);
    }
    out
}

/// One netlink message.
struct Message<'a> {
    kind: u16,
    payload: &'a [u8],
}

enum Kind<'a> {
    Socket(&'a [u8]),
    Done,
    Other,
}

impl<'a> Message<'a> {
    fn kind(self) -> Result<Kind<'a>, Error> {
        match self.kind {
            TCPDIAG_GETSOCK | SOCK_DIAG_BY_FAMILY => Ok(Kind::Socket(self.payload)),
            NLMSG_DONE | NLMSG_ERROR => match self.payload.get(..4).map(ne_i32) {
                Some(code @ ..0) => {
                    let number = code.saturating_neg();
                    Err(Error::Refused(io::Error::from_raw_os_error(number)))
                }
                _ => Ok(Kind::Done),
            },
            _ => Ok(Kind::Other),
        }
    }
}

/// The messages of a datagram.
struct Messages<'a>(&'a [u8]);

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let message = || {
            let length = ne_u32(self.0.get(..4)?) as usize;
            let kind = ne_u16(self.0.get(4..6)?);
            let payload = self.0.get(HEADER..length)?;
            Some((Message { kind, payload }, aligned(length)))
        };
        Some(match message() {
            Some((message, length)) => {
                self.0 = self.0.get(length..).unwrap_or_default();
                Ok(message)
            }
            None => {
                self.0 = &[];
                Err(short())
            }
        })
    }
}

/// Reads the `inet_diag_msg` of a socket that listens.
fn listener(message: &[u8]) -> Option<Listener> {
    let fixed = message.get(..INET_DIAG_MSG)?;
    let Ends { local, port, .. } = Ends::new(fixed)?;
    Some(Listener {
        address: local,
        port,
        inode: ne_u32(&fixed[68..72]),
    })
}

/// Which connection a message is about, as its `inet_diag_msg` says.
struct Ends {
    /// The app's address and port.
    local: IpAddr,
    port: u16,
    peer: SocketAddr,
    from_pod: bool,
}

impl Ends {
    fn new(fixed: &[u8]) -> Option<Self> {
        let address = |at: usize| -> Option<IpAddr> {
            let address: IpAddr = match fixed[0] {
                AF_INET => Ipv4Addr::from(<[u8; 4]>::try_from(&fixed[at..at + 4]).ok()?).into(),
                _ => Ipv6Addr::from(<[u8; 16]>::try_from(&fixed[at..at + 16]).ok()?).into(),
            };
            Some(address.to_canonical())
        };
        let (local, peer) = (address(8)?, address(24)?);
        let peer_port = u16::from_be_bytes([fixed[6], fixed[7]]);
        Some(Self {
            local,
            port: u16::from_be_bytes([fixed[4], fixed[5]]),
            peer: SocketAddr::new(peer, peer_port),
            from_pod: peer.is_loopback() || peer == local,
        })
    }
}

/// Reads an `inet_diag_msg` and the `tcp_info` that follows it.
fn connection(message: &[u8]) -> Option<Connection> {
    let fixed = message.get(..INET_DIAG_MSG)?;
    let Ends {
        port,
        peer,
        from_pod,
        ..
    } = Ends::new(fixed)?;
    let info = attribute(&message[INET_DIAG_MSG..], INFO).unwrap_or_default();
    let state = State::new(fixed[1]);
    // What is not told is not zero: a connection of which nothing is known must not count as idle.
    if matches!(state, State::Established | State::CloseWait) && info.len() < LEAST_INFO {
        return None;
    }
    let word = |at: usize| info.get(at..at + 4).map_or(0, ne_u32);
    let long = |at: usize| {
        let bytes = info.get(at..at + 8).and_then(|b| b.try_into().ok());
        bytes.map_or(0, u64::from_ne_bytes)
    };
    Some(Connection {
        cookie: u64::from(ne_u32(&fixed[44..48])) | u64::from(ne_u32(&fixed[48..52])) << 32,
        port,
        peer,
        from_pod,
        state,
        unread: ne_u32(&fixed[56..60]),
        unacknowledged: ne_u32(&fixed[60..64]),
        last_sent: word(44),
        last_received: word(52),
        last_acknowledgement: word(56),
        acknowledged: long(120),
        received: long(128),
        segments: word(152),
        replied: None,
        judged: None,
        last_request: None,
        only_control: false,
        segments_sent: word(156),
        largest_segment: word(20),
        round_trip: Duration::from_micros(word(68).into()),
    })
}

/// Reads a notice. Of a connection that ended the kernel tells its bytes too; without them it would seem to have brought
/// none.
fn ended(message: &[u8]) -> Option<Connection> {
    let info = attribute(message.get(INET_DIAG_MSG..)?, INFO)?;
    connection(message).filter(|_| info.len() >= LEAST_INFO)
}

/// Reads what is left of a connection in TIME_WAIT. Nothing where it is in another state: one that waits for its client's
/// end has a timer of its own.
fn closed_before(message: &[u8]) -> Option<Option<RecentlyClosed>> {
    let fixed = message.get(..INET_DIAG_MSG)?;
    let ends = Ends::new(fixed)?;
    let left = Duration::from_millis(ne_u32(&fixed[52..56]).into());
    let closed = RecentlyClosed {
        port: ends.port,
        peer: ends.peer,
        ago: TIME_WAIT.saturating_sub(left),
    };
    Some((fixed[1] == TIME_WAIT_STATE).then_some(closed))
}

/// The content of the first attribute of this kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(ne_u16(attributes.get(..2)?));
        let kind = ne_u16(attributes.get(2..4)?);
        let content = attributes.get(4..length)?;
        if kind == wanted {
            return Some(content);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn ne_u16(bytes: &[u8]) -> u16 {
    u16::from_ne_bytes([bytes[0], bytes[1]])
}

fn ne_u32(bytes: &[u8]) -> u32 {
    u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn ne_i32(bytes: &[u8]) -> i32 {
    i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn short() -> Error {
    let message = "the kernel's answer ends too early";
    Error::Broken(io::Error::new(io::ErrorKind::UnexpectedEof, message))
}

#[cfg(test)]
mod recorded;

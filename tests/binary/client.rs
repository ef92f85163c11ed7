//! A client of HTTP/1.1 that keeps its connection, and shows what a library would hide: who closed it, and when.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use super::support::PATIENCE;

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// It says that the connection ends with it.
    pub goodbye: bool,
    pub body: String,
}

/// How a body ends.
enum End {
    After(u64),
    Chunked,
    Close,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// Connects from an address of this machine.
    pub fn connect_from(own: IpAddr, address: SocketAddr) -> Self {
        let domain = socket2::Domain::for_address(address);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(own, 0).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        Self::on(socket.into())
    }

    /// Takes a connection that is there.
    pub fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request without a body.
    pub fn request(&mut self, path: &str) -> Result<()> {
        self.send(
            format!(
                "GET {path} HTTP/1.1\r\nHost: shop\r\nUser-Agent: a customer\r\nAccept: */*\r\n\r\n"
            )
            .as_bytes(),
        )
    }

    /// Sends a request and takes in its whole answer.
    pub fn ask(&mut self, path: &str) -> Result<Reply> {
        self.request(path)?;
        self.reply()
    }

    /// Takes in a whole answer.
    pub fn reply(&mut self) -> Result<Reply> {
        let (mut reply, end) = self.head()?;
        let mut body = Vec::new();
        match end {
            End::After(length) => {
                (&mut self.stream).take(length).read_to_end(&mut body)?;
                if (body.len() as u64) < length {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            End::Chunked => while self.chunk(&mut body)? {},
            End::Close => drop(self.stream.read_to_end(&mut body)?),
        }
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    /// Takes in the beginning of an answer in chunks, the first one included.
    pub fn begin_reply(&mut self) -> Result<Reply> {
        let (mut reply, end) = self.head()?;
        assert!(matches!(end, End::Chunked), "a stream has no length");
        let mut body = Vec::new();
        self.chunk(&mut body)?;
        reply.body = String::from_utf8_lossy(&body).into_owned();
        Ok(reply)
    }

    /// Takes in the rest of such an answer.
    pub fn end_reply(&mut self) -> Result<()> {
        while self.chunk(&mut Vec::new())? {}
        Ok(())
    }

    /// The other end has not closed it, and has sent nothing that was not asked for.
    pub fn is_open(&self) -> bool {
        let stream = self.stream.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        peeked.is_err_and(|e| e.kind() == ErrorKind::WouldBlock)
    }

    fn head(&mut self) -> Result<(Reply, End)> {
        let first = self.line()?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status =
            status.ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("{first:?}")))?;
        let (mut goodbye, mut end) = (false, End::Close);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line
                .split_once(':')
                .map(|(name, value)| (name, value.trim()))
            {
                Some(("connection", value)) => goodbye |= value == "close",
                Some(("content-length", value)) => end = End::After(value.parse().unwrap()),
                Some(("transfer-encoding", "chunked")) => end = End::Chunked,
                Some(_) => {}
                None if line.is_empty() => break,
                None => return Err(Error::new(ErrorKind::InvalidData, line)),
            }
        }
        let reply = Reply {
            status,
            goodbye,
            body: String::new(),
        };
        Ok((reply, end))
    }

    /// Takes in a chunk, and says whether it was not the last one.
    fn chunk(&mut self, into: &mut Vec<u8>) -> Result<bool> {
        let line = self.line()?;
        let length = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16)
            .map_err(|e| Error::new(ErrorKind::InvalidData, format!("{line:?}: {e}")))?;
        (&mut self.stream).take(length).read_to_end(into)?;
        self.line()?;
        Ok(length > 0)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

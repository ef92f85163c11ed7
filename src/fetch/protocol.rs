//! What a port speaks where it does not speak HTTP/1.1 without TLS, found by trying.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tokio_rustls::rustls::pki_types::ServerName;

use super::url::Endpoint;
use super::{Client, Url};

/// How long one try may take.
const TRY_LIMIT: Duration = Duration::from_secs(1);

/// What a client of HTTP/2 sends first: its preface and empty SETTINGS (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The type of a SETTINGS frame, the first frame of either side.
const SETTINGS: u8 = 4;

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tls,
    /// HTTP/2 without TLS, and without HTTP/1.1 before it.
    Http2,
}

impl Client {
    /// What the port of a URL without TLS speaks instead of HTTP/1.1; none where that is not known.
    pub async fn protocol(&self, url: &Url) -> Option<Protocol> {
        let Endpoint::Tcp(host) = &url.endpoint else {
            return None;
        };
        let tls = async {
            let name = ServerName::try_from(host.name.clone()).ok()?;
            // Its certificate does not matter: nothing is sent over this connection.
            let connector = self.0.tls.connector(true).ok()?;
            let stream = self.tcp(host).await.ok()?;
            connector.connect(name, stream).await.ok()
        };
        if timeout(TRY_LIMIT, tls).await.ok().flatten().is_some() {
            return Some(Protocol::Tls);
        }
        let http2 = async {
            let mut stream = self.tcp(host).await.ok()?;
            stream.write_all(PREFACE).await.ok()?;
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            Some(head[3] == SETTINGS && head[5..] == [0; 4])
        };
        let is_http2 = timeout(TRY_LIMIT, http2).await.ok().flatten();
        (is_http2 == Some(true)).then_some(Protocol::Http2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_server_of_http2_alone_is_known_by_its_settings() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut first = [0; 24];
                if stream.read_exact(&mut first).await.is_ok() && first.starts_with(b"PRI") {
                    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
                }
            }
        };
        let client = Client::default();
        tokio::select! {
            () = server => {}
            protocol = client.protocol(&url) => assert_eq!(protocol, Some(Protocol::Http2)),
        }
    }

    #[tokio::test]
    async fn what_answers_http_1_is_neither() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let server = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                    .await
                    .unwrap();
            }
        };
        let client = Client::default();
        tokio::select! {
            () = server => {}
            protocol = client.protocol(&url) => assert_eq!(protocol, None),
        }
    }
}

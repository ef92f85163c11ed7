//! What clients ask for, as `--url` has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use http::{Method, Uri};

/// Stands for a free port.
pub const PORT: &str = "{port}";

/// What a target speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http,
    /// A unary call over HTTP/2.
    Grpc,
}

/// A request that clients send again and again.
#[derive(Debug, Clone)]
pub struct Target {
    /// How often, beside others.
    pub weight: u32,
    pub protocol: Protocol,
    pub method: Method,
    /// As it was written, without weight and method.
    pub url: String,
    uri: Uri,
    port: Option<u16>,
}

impl Target {
    /// The port, where it is fixed.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The host, without brackets, and the port, where it is fixed.
    pub fn authority(&self) -> (&str, u16) {
        let host = self.uri.host().unwrap_or_default();
        (host.trim_matches(['[', ']']), self.port.unwrap_or_default())
    }

    /// The host and port as a request's head has them.
    pub fn host_header(&self) -> String {
        let authority = self.uri.authority();
        authority.map_or_else(String::new, |authority| authority.to_string())
    }

    /// Whether a connection for one serves the other too.
    pub fn shares_connections(&self, other: &Self) -> bool {
        self.protocol == other.protocol && self.authority() == other.authority()
    }

    /// Where an app on this machine that listens on this port is reached; none where the URL names another machine.
    pub fn address(&self, port: u16) -> Option<SocketAddr> {
        let ip = match self.authority().0 {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().ok()?,
        };
        ip.is_loopback().then(|| SocketAddr::new(ip, port))
    }

    /// The path and query.
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (weight, words) = match words.split_first() {
            Some((first, rest)) if first.bytes().all(|byte| byte.is_ascii_digit()) => {
                let weight = first.parse().ok().filter(|weight| *weight > 0);
                (
                    weight.ok_or("its weight is no number from 1 up; write 3 URL")?,
                    rest,
                )
            }
            _ => (1, words.as_slice()),
        };
        let (method, url) = match words {
            [url] => (Method::GET, *url),
            ["GET", url] => (Method::GET, *url),
            ["POST", url] => (Method::POST, *url),
            _ => return Err("write URL, POST URL or 3 POST URL".to_owned()),
        };
        let form = "write http://HOST/PATH, or grpc://HOST:PORT/PACKAGE.SERVICE/METHOD";
        // A port that is not chosen yet, so that the rest can be parsed.
        let chosen = url.contains(PORT);
        let uri: Uri = (url.replace(PORT, "1").parse()).map_err(|e| format!("{e}; {form}"))?;
        let protocol = match uri.scheme_str() {
            Some("http") => Protocol::Http,
            Some("grpc") => Protocol::Grpc,
            _ => return Err(format!("only http and grpc are spoken; {form}")),
        };
        if protocol == Protocol::Grpc && uri.path().matches('/').count() != 2 {
            return Err(format!(
                "a gRPC method has two parts, as /grpc.health.v1.Health/Check; {form}"
            ));
        }
        let port = match (chosen, protocol) {
            (true, _) => None,
            (false, Protocol::Http) => Some(uri.port_u16().unwrap_or(80)),
            (false, Protocol::Grpc) => Some(uri.port_u16().ok_or("it has no port")?),
        };
        Ok(Self {
            weight,
            protocol,
            method,
            url: url.to_owned(),
            uri,
            port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_may_have_a_weight_and_a_method() {
        let target: Target = "3 POST http://127.0.0.1:{port}/orders?a=1".parse().unwrap();
        assert_eq!((target.weight, target.method.as_str()), (3, "POST"));
        assert_eq!((target.path(), target.port()), ("/orders?a=1", None));
        let target: Target = "http://localhost:8000".parse().unwrap();
        assert_eq!(
            (target.weight, target.path(), target.port()),
            (1, "/", Some(8000))
        );
        assert_eq!(target.address(8000).unwrap().to_string(), "127.0.0.1:8000");
        let target: Target = "grpc://127.0.0.1:{port}/grpc.health.v1.Health/Check"
            .parse()
            .unwrap();
        assert_eq!((target.protocol, target.port()), (Protocol::Grpc, None));
        let target: Target = "http://web.shop/work".parse().unwrap();
        assert_eq!(target.authority(), ("web.shop", 80));
        assert_eq!(
            (target.address(80), target.host_header().as_str()),
            (None, "web.shop")
        );
    }

    #[test]
    fn what_cannot_be_asked_here_is_refused() {
        for text in [
            "",
            "8000",
            "https://127.0.0.1:{port}/",
            "grpc://127.0.0.1/a.B/C",
            "grpc://127.0.0.1:1/Check",
            "0 http://127.0.0.1/",
            "PUT http://127.0.0.1/",
            "a b c d",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}

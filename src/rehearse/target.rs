//! What clients ask for, as `--url` has it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use http::{Method, Uri};

/// Stands for a free port.
pub const PORT: &str = "{port}";

/// A request that clients send again and again.
#[derive(Debug, Clone)]
pub struct Target {
    /// How often, beside others.
    pub weight: u32,
    pub method: Method,
    /// As it was written, without weight and method.
    pub url: String,
    uri: Uri,
    address: IpAddr,
    port: Option<u16>,
}

impl Target {
    /// The port, where it is fixed.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// Where an app that listens on this port is reached.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.address, port)
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
        let form = "write http://127.0.0.1:{port}/PATH";
        // A port that no one chooses, so that the rest can be parsed.
        let chosen = url.contains(PORT);
        let uri: Uri = (url.replace(PORT, "1").parse()).map_err(|e| format!("{e}; {form}"))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("only http is spoken; {form}"));
        }
        let host = uri.host().unwrap_or_default();
        let address = match host.trim_matches(['[', ']']) {
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => host.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
        };
        if !address.is_loopback() {
            return Err(format!(
                "{host} is not this machine, and the app is started here; {form}"
            ));
        }
        let port = match chosen {
            true => None,
            false => Some(uri.port_u16().unwrap_or(80)),
        };
        Ok(Self {
            weight,
            method,
            url: url.to_owned(),
            uri,
            address,
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
        assert_eq!(target.address(8000).to_string(), "127.0.0.1:8000");
    }

    #[test]
    fn what_cannot_be_asked_here_is_refused() {
        for text in [
            "",
            "8000",
            "https://127.0.0.1:{port}/",
            "http://example.com/",
            "0 http://127.0.0.1/",
            "PUT http://127.0.0.1/",
            "a b c d",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}

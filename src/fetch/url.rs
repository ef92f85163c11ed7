//! Where a request goes: over TCP, over TLS or to a Unix socket.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use tokio_rustls::rustls::pki_types::ServerName;

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Url {
    pub(super) endpoint: Endpoint,
    pub(super) path: PathAndQuery,
    /// What the `Host` header says.
    pub(super) authority: HeaderValue,
    pub(super) credentials: Option<HeaderValue>,
}

/// What a connection is made to.
#[derive(Debug, Clone)]
pub(super) enum Endpoint {
    Tcp(Host),
    Tls(Host, ServerName<'static>),
    Unix(PathBuf),
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Host {
    pub name: String,
    pub port: u16,
}

/// How a page is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Http,
    Https,
    Unix,
}

impl Transport {
    /// The transport of this name.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "http" => Some(Transport::Http),
            "https" => Some(Transport::Https),
            "unix" => Some(Transport::Unix),
            _ => None,
        }
    }
}

impl Url {
    /// Parses `http://[USER:PASSWORD@]HOST[:PORT][/PATH]`, the same with `https`, or `unix:///SOCKET[:/PATH]`.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORMS: &str =
            "write http://HOST:PORT/PATH, https://HOST:PORT/PATH or unix:///SOCKET:/PATH";
        let (scheme, rest) = text
            .split_once("://")
            .ok_or_else(|| format!("it has no scheme; {FORMS}"))?;
        let transport = Transport::named(scheme)
            .ok_or_else(|| format!("\"{scheme}\" is not a supported scheme; {FORMS}"))?;
        Self::parse_rest(transport, rest)
    }

    /// Parses what follows the scheme's `://`.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse_rest(transport: Transport, rest: &str) -> Result<Self, String> {
        match transport {
            Transport::Http => Self::tcp(rest, 80),
            Transport::Https => {
                let mut url = Self::tcp(rest, 443)?;
                if let Endpoint::Tcp(host) = url.endpoint {
                    let name = ServerName::try_from(host.name.clone())
                        .map_err(|e| format!("{:?} is no name of a host: {e}", host.name))?;
                    url.endpoint = Endpoint::Tls(host, name);
                }
                Ok(url)
            }
            Transport::Unix => Self::unix(rest),
        }
    }

    fn tcp(rest: &str, default_port: u16) -> Result<Self, String> {
        let uri: Uri = format!("http://{rest}")
            .parse()
            .map_err(|e| format!("{e}; write HOST:PORT/PATH"))?;
        let authority = uri
            .authority()
            .ok_or("it names no host; write HOST:PORT/PATH")?;
        let (credentials, shown) = match authority.as_str().rsplit_once('@') {
            Some((user, shown)) => {
                let user: Vec<u8> = percent_decode_str(user).collect();
                (
                    Some(format!("Basic {}", BASE64_STANDARD.encode(user))),
                    shown,
                )
            }
            None => (None, authority.as_str()),
        };
        let value = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
        let mut credentials = credentials.as_deref().map(value).transpose()?;
        if let Some(secret) = &mut credentials {
            secret.set_sensitive(true);
        }
        let name = host(authority.host())
            .ok_or("its host is not a valid name or address; write HOST:PORT/PATH, an IPv6 address in brackets")?;
        let port = match shown
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'))
        {
            None => default_port,
            Some((_, port)) => (port.parse().ok().filter(|&port| port != 0))
                .ok_or_else(|| format!("{port:?} is not a port; write a number from 1 to 65535"))?,
        };
        Ok(Self {
            endpoint: Endpoint::Tcp(Host {
                name: name.to_owned(),
                port,
            }),
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
            authority: value(shown)?,
            credentials,
        })
    }

    fn unix(rest: &str) -> Result<Self, String> {
        // The first colon ends the socket's path: an HTTP path may have more of them, a socket's path rarely has one.
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
        if !socket.starts_with('/') {
            return Err(format!(
                "{socket:?} does not begin with /; write the socket's whole path, such as unix:///run/app.sock:/PATH"
            ));
        }
        if !path.starts_with('/') {
            return Err(format!(
                "{path:?} does not begin with /; write the page's path after the socket's and a colon, such as \
                 unix:///run/app.sock:/PATH"
            ));
        }
        SocketAddr::from_pathname(socket).map_err(|e| {
            format!("{socket:?} is no path of a socket: {e}; a socket's path has at most 107 bytes")
        })?;
        Ok(Self {
            endpoint: Endpoint::Unix(socket.into()),
            path: (path.parse()).map_err(|e| format!("{path:?} is no path of a page: {e}"))?,
            authority: HeaderValue::from_static("localhost"),
            credentials: None,
        })
    }
}

impl Url {
    /// The whole URL, without credentials.
    pub fn whole(&self) -> String {
        self.with_path(self.path.as_str())
    }

    /// The URL with another path.
    pub fn with_path(&self, path: &str) -> String {
        let authority = String::from_utf8_lossy(self.authority.as_bytes());
        match &self.endpoint {
            Endpoint::Tcp(_) => format!("http://{authority}{path}"),
            Endpoint::Tls(..) => format!("https://{authority}{path}"),
            Endpoint::Unix(socket) => format!("unix://{}:{path}", socket.display()),
        }
    }

    /// The same place with another path and the same credentials, to ask there.
    pub fn at(&self, path: &'static str) -> Self {
        Self {
            path: PathAndQuery::from_static(path),
            ..self.clone()
        }
    }

    /// Where a `Location` of an answer leads (RFC 3986, section 5.2, without its dots).
    pub fn resolve(&self, location: &str) -> String {
        let location = location.split('#').next().unwrap_or_default();
        if location.contains("://") {
            return location.to_owned();
        }
        if let Some(rest) = location.strip_prefix("//") {
            let scheme = match self.endpoint {
                Endpoint::Tls(..) => "https",
                _ => "http",
            };
            return format!("{scheme}://{rest}");
        }
        if location.starts_with('/') {
            return self.with_path(location);
        }
        let path = self.path.path();
        let folder = path.rfind('/').map_or("/", |end| &path[..=end]);
        self.with_path(&format!("{folder}{location}"))
    }

    /// The path of the page.
    pub fn path(&self) -> &str {
        self.path.as_str()
    }

    /// What the `Host` header says.
    pub fn host_header(&self) -> String {
        String::from_utf8_lossy(self.authority.as_bytes()).into_owned()
    }

    /// The port, where only this pod can answer.
    pub fn loopback_port(&self) -> Option<u16> {
        match &self.endpoint {
            Endpoint::Tcp(host) | Endpoint::Tls(host, _) if host.is_loopback() => Some(host.port),
            _ => None,
        }
    }

    /// The Unix socket that it asks.
    pub fn socket(&self) -> Option<&Path> {
        match &self.endpoint {
            Endpoint::Unix(socket) => Some(socket),
            _ => None,
        }
    }
}

/// A host without the brackets of an IPv6 address, in which alone there may be any.
fn host(written: &str) -> Option<&str> {
    match written.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(address) => {
            let (address_alone, _zone) = address.split_once('%').unwrap_or((address, ""));
            address_alone.parse::<Ipv6Addr>().ok().map(|_| address)
        }
        None => Some(written).filter(|name| !name.is_empty() && !name.contains(['[', ']', '@'])),
    }
}

/// Without credentials.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Unix(socket) => write!(f, "{}:{}", socket.display(), self.path),
            Endpoint::Tcp(_) | Endpoint::Tls(..) => {
                let authority = String::from_utf8_lossy(self.authority.as_bytes());
                write!(f, "{authority}{}", self.path)
            }
        }
    }
}

impl Host {
    /// Whether it is the name localhost, for which no resolver is asked.
    pub fn is_localhost(&self) -> bool {
        self.name.eq_ignore_ascii_case("localhost")
    }

    /// Whether only this pod can answer there.
    pub fn is_loopback(&self) -> bool {
        self.is_localhost()
            || (self.name.parse::<IpAddr>()).is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn host(url: &Url) -> (&str, u16) {
        match &url.endpoint {
            Endpoint::Tcp(host) | Endpoint::Tls(host, _) => (&host.name, host.port),
            Endpoint::Unix(socket) => (socket.to_str().unwrap(), 0),
        }
    }

    #[test]
    fn urls_are_read_as_written() {
        for (text, name, port, shown) in [
            (
                "http://127.0.0.1:8000/metrics?x=1",
                "127.0.0.1",
                8000,
                "127.0.0.1:8000/metrics?x=1",
            ),
            ("http://[::1]:81", "::1", 81, "[::1]:81/"),
            ("http://localhost/x", "localhost", 80, "localhost/x"),
            ("http://me:secret@app:9/x", "app", 9, "app:9/x"),
            ("https://app/x", "app", 443, "app/x"),
            ("https://me:secret@[::1]:8443/", "::1", 8443, "[::1]:8443/"),
            ("unix:///run/a.sock", "/run/a.sock", 0, "/run/a.sock:/"),
            (
                "unix:///run/a.sock:/x?y=a:b",
                "/run/a.sock",
                0,
                "/run/a.sock:/x?y=a:b",
            ),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (host(&url), url.to_string().as_str()),
                ((name, port), shown)
            );
        }
        let url = Url::parse("http://Aladdin:open sesame@app/").is_err();
        assert!(url, "a blank has no place in a URL");
        let url = Url::parse("http://me:se%63ret@app/").unwrap();
        assert_eq!(url.credentials.unwrap(), "Basic bWU6c2VjcmV0");
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_remedy() {
        let long = format!("unix:///{}.sock", "x".repeat(108));
        for (text, part) in [
            ("127.0.0.1:8000", "no scheme"),
            ("https:", "no scheme"),
            ("ftp://x/", "\"ftp\""),
            ("http://", "HOST:PORT"),
            ("http://:80/", "HOST:PORT"),
            ("http://127.0.[::user:pw@1]/", "not a valid name or address"),
            ("http://[127.0.0.1]/", "not a valid name or address"),
            ("http://[::1/", "HOST:PORT"),
            ("http://x:99999/", "not a port"),
            ("http://x:0/", "not a port"),
            ("http://x:/", "not a port"),
            ("https://-x-/", "no name of a host"),
            ("unix://run/app.sock", "does not begin with /"),
            ("unix://", "does not begin with /"),
            ("unix:///run/app.sock:", "after the socket's"),
            ("unix:///run/app.sock:stats", "after the socket's"),
            ("unix:///run/app.sock:/a b", "no path of a page"),
            (&long, "at most 107 bytes"),
        ] {
            let refusal = Url::parse(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn a_redirect_is_resolved_as_a_browser_does_it() {
        for (url, location, whole) in [
            (
                "http://127.0.0.1:80/a/b?c",
                "/login?next=/a#top",
                "http://127.0.0.1:80/login?next=/a",
            ),
            ("http://h:81/a/b", "c?d", "http://h:81/a/c?d"),
            ("http://h:81/", "c", "http://h:81/c"),
            ("https://h/a", "//other/x", "https://other/x"),
            ("http://h/a", "https://h:8443/a", "https://h:8443/a"),
            ("unix:///run/a.sock:/a", "/b", "unix:///run/a.sock:/b"),
        ] {
            assert_eq!(Url::parse(url).unwrap().resolve(location), whole);
        }
    }

    #[test]
    fn loopback_is_what_only_this_pod_can_be() {
        for (name, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("localhost", true),
            ("LocalHost", true),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("localhost.example", false),
            ("127.0.0.1.example", false),
        ] {
            let host = Host {
                name: name.to_owned(),
                port: 1,
            };
            assert_eq!(host.is_loopback(), expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn reading_a_url_never_panics(
            scheme in "(http|https|unix)",
            rest in "[a-z0-9:/@\\[\\]%.?# -]{0,40}|\\PC{0,40}",
        ) {
            let _ = Url::parse(&format!("{scheme}://{rest}"));
            let _ = Url::parse(&rest);
        }
    }
}

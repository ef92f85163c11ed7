//! What is wrong with a source that cannot be read, and what to write instead: looked into at start, never in a drain.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use http::StatusCode;

use super::Error;
use super::body::{Body, Place};
use super::exposition::{Names, Scanner};
use super::nearest::{ALIKE, Nearest};
use super::opening::{Expected, Opening};
use super::page::{ACCEPT_METRICS, Format, Page};
use super::promql::Query;
use crate::fetch::{self, Client, Protocol, Url};

/// Where apps serve their metrics.
const METRICS_PATHS: [&str; 9] = [
    "/metrics",
    "/metrics/",
    "/actuator/prometheus",
    "/q/metrics",
    "/stats/prometheus",
    "/prometheus",
    "/api/metrics",
    "/internal/metrics",
    "/-/metrics",
];

/// Where nginx's status page is as a rule.
const NGINX_PATHS: [&str; 4] = ["/stub_status", "/nginx_status", "/basic_status", "/status"];

/// The most names of files in a message.
const MOST_NAMES: usize = 3;

impl Page {
    /// What else there is to say of an error of this page, if anything.
    pub async fn diagnose(&self, client: &Client, error: &Error) -> Option<String> {
        match (&self.place, error) {
            (_, Error::Missing(_)) => self.nearest_series(client).await,
            (Place::Url(url), Error::Status(refusal))
                if refusal.status() == StatusCode::NOT_FOUND =>
            {
                self.nearest_path(client, url).await
            }
            (Place::Url(url), Error::Status(refusal))
                if refusal.status() == StatusCode::BAD_REQUEST =>
            {
                self.protocol(client, url).await
            }
            (Place::Url(url), Error::Http(fetch::Error::Broken(_) | fetch::Error::Timeout(_))) => {
                self.protocol(client, url).await
            }
            (Place::Url(url), Error::Http(e)) => path_problem(url.socket()?, e, "socket"),
            (Place::File(path), Error::Http(e)) => path_problem(path, e, "file"),
            _ => None,
        }
    }

    /// What a page that lacks what the selector names has that looks like it, and what to write where the series come
    /// with the first request.
    async fn nearest_series(&self, client: &Client) -> Option<String> {
        let Format::Prometheus(query) = &self.format else {
            return None;
        };
        let nearest = nearest(&self.place, client, query).await;
        let first = query.with_zeros().map(|selector| {
            format!(
                "if it appears only with the first request, write {}",
                self.flag_with_selector(&selector)
            )
        });
        match (nearest, first) {
            (Some(nearest), Some(first)) => Some(format!("{nearest}; {first}")),
            (nearest, first) => nearest.or(first),
        }
    }

    /// The first of the usual paths that has such a page.
    async fn nearest_path(&self, client: &Client, url: &Url) -> Option<String> {
        let paths: &[&str] = match &self.format {
            Format::Prometheus(_) => &METRICS_PATHS,
            Format::Nginx | Format::NginxRequests => &NGINX_PATHS,
            Format::Json(_) | Format::Text => &[],
        };
        for path in paths {
            let place = Place::Url(url.at(path));
            let answers = match &self.format {
                Format::Nginx | Format::NginxRequests => self.at(&place, client).await,
                _ => is_metrics(&place, client).await,
            };
            if answers {
                return Some(format!(
                    "{path} answers; write {}",
                    self.flag(&url.with_path(path))
                ));
            }
        }
        None
    }

    async fn at(&self, place: &Place, client: &Client) -> bool {
        let Ok(mut body) = Body::open(place, client, "text/plain").await else {
            return false;
        };
        matches!(body.next().await, Ok(Some(piece)) if super::nginx::parse(&piece).is_ok())
    }

    async fn protocol(&self, client: &Client, url: &Url) -> Option<String> {
        match client.protocol(url).await? {
            Protocol::Tls => {
                let whole = url.whole().replacen("http://", "https://", 1);
                Some(format!("the port speaks TLS; write {}", self.flag(&whole)))
            }
            Protocol::Http2 => Some(
                "the port speaks HTTP/2 alone, as gRPC does; write the port that serves the page over HTTP/1.1, or \
                 --app-port alone"
                    .to_owned(),
            ),
        }
    }
}

/// The names on a page that are nearest to what an expression names, in words.
async fn nearest(place: &Place, client: &Client, query: &Query) -> Option<String> {
    let mut body = Body::open(place, client, ACCEPT_METRICS).await.ok()?;
    let mut nearest = Nearest::new(query.wanted());
    let mut scanner = Scanner::new(&Names::Any, body.is_open_metrics());
    while let Some(piece) = body.next().await.ok()? {
        scanner
            .feed(&piece, &mut |sample| nearest.take(&sample))
            .ok()?;
    }
    nearest.message()
}

/// Whether there is a page, and it is metrics.
async fn is_metrics(place: &Place, client: &Client) -> bool {
    let Ok(mut body) = Body::open(place, client, ACCEPT_METRICS).await else {
        return false;
    };
    let mut opening = Opening::new(body.content_type());
    while let Ok(Some(piece)) = body.next().await {
        if opening.take(&piece) {
            break;
        }
    }
    opening.objection(Expected::Metrics).is_none() && opening.doubt().is_none()
}

/// Why there is no such socket or file, or no access to it; nothing where the app may simply not have made it yet.
fn path_problem(path: &Path, e: &fetch::Error, what: &str) -> Option<String> {
    match e {
        fetch::Error::NotThere => {
            let folder = path.parent()?;
            match fs::read_dir(folder) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => Some(format!(
                    "there is no folder {}; mount the volume there that the app shares, or correct the path",
                    folder.display()
                )),
                Err(_) => None,
                Ok(entries) => {
                    let names = alike(path, entries, what == "socket");
                    (!names.is_empty()).then(|| {
                        format!(
                            "there is no {}; {} has {}",
                            path.display(),
                            folder.display(),
                            names.join(", ")
                        )
                    })
                }
            }
        }
        fetch::Error::Unreachable(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            let me = fs::metadata("/proc/self").map_or(0, |own| own.uid());
            let owner = fs::metadata(path).map_or(String::new(), |there| {
                let mode = there.permissions().mode() & 0o777;
                format!(
                    " (of user {}, group {}, mode {mode:o})",
                    there.uid(),
                    there.gid()
                )
            });
            let to_do = if what == "socket" { "write to" } else { "read" };
            Some(format!(
                "user {me} may not open the {what} {}{owner}; run both containers as one user, or give them a common group \
                 (fsGroup) that may {to_do} it",
                path.display()
            ))
        }
        fetch::Error::Refused => {
            let is_socket = fs::metadata(path).ok()?.file_type().is_socket();
            (!is_socket).then(|| format!("{} is no socket; correct the path", path.display()))
        }
        _ => None,
    }
}

/// The names in a folder that are like a path's; of sockets all.
fn alike(path: &Path, entries: fs::ReadDir, sockets: bool) -> Vec<String> {
    let wanted = path.file_name().unwrap_or_default().to_string_lossy();
    let mut names: Vec<(f64, String)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let alike = strsim::jaro_winkler(&wanted, &name);
            let is_socket = sockets && entry.file_type().is_ok_and(|kind| kind.is_socket());
            (is_socket || alike >= ALIKE).then_some((alike, name))
        })
        .collect();
    names.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    names
        .into_iter()
        .take(MOST_NAMES)
        .map(|(_, name)| name)
        .collect()
}

//! One request, and its answer.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than whatever answers at once takes.
const LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Args {
    method: String,
    /// Each is asked in turn
    #[arg(required = true)]
    urls: Vec<String>,
    /// As NAME: VALUE; repeatable
    #[arg(long)]
    header: Vec<String>,
}

/// Prints a line for each: its status and the body's length, then the body.
pub async fn run(args: Args) -> anyhow::Result<()> {
    for url in &args.urls {
        let answer = timeout(LIMIT, once(&args.method, url, &args.header)).await;
        let line = match answer {
            Ok(Ok((status, body))) => {
                format!("{status} {}", String::from_utf8_lossy(&body).trim_end())
            }
            Ok(Err(e)) => format!("000 {e:#}"),
            Err(_) => format!("000 no answer within {LIMIT:?}"),
        };
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(())
}

/// The status and the body.
pub async fn once(method: &str, url: &str, headers: &[String]) -> anyhow::Result<(u16, Bytes)> {
    let uri: Uri = url.parse().with_context(|| url.to_owned())?;
    let authority = uri
        .authority()
        .with_context(|| format!("{url}: no host in it"))?;
    let stream = TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONNECTION, "close");
    for line in headers {
        let (name, value) = line
            .split_once(": ")
            .with_context(|| format!("{line}: write NAME: VALUE"))?;
        request = request.header(
            name.parse::<HeaderName>()?,
            HeaderValue::from_bytes(value.as_bytes())?,
        );
    }
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?);
    let answer = answer.await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, body))
}

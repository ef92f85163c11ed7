//! How requests go to the API server: each over a connection of its own, with the token and the roots that are on disk at
//! that moment.
//!
//! A pod makes a few calls in its life, for which a pool of connections is no use; and a connection that hangs holds up
//! only its own call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use crate::threads::{apart_if_possible, connect};

/// How the requests name themselves in the API server's audit log.
const AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gracekeeper/", env!("CARGO_PKG_VERSION")));

/// Why a request failed, in words.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests to one API server.
#[derive(Debug, Clone)]
pub struct Transport(Arc<ApiServer>);

#[derive(Debug)]
struct ApiServer {
    host: String,
    port: u16,
    /// Where `token` and `ca.crt` are.
    service_account: PathBuf,
}

impl Transport {
    /// To that host and port, as that service account.
    pub fn new(host: String, port: u16, service_account: PathBuf) -> Self {
        Self(Arc::new(ApiServer {
            host,
            port,
            service_account,
        }))
    }
}

impl Service<Request<Body>> for Transport {
    type Response = Response<Incoming>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let server = self.0.clone();
        Box::pin(async move { server.send(request).await })
    }
}

impl ApiServer {
    async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Failure> {
        let token = read(&self.service_account.join("token")).await?;
        let mut bearer = HeaderValue::try_from([b"Bearer ", token.trim_ascii()].concat())?;
        bearer.set_sensitive(true);
        let roots = read(&self.service_account.join("ca.crt")).await?;
        let connector = TlsConnector::from(Arc::new(trusting(&roots)?));
        let name = ServerName::try_from(self.host.clone())?;
        let stream = connect(&self.host, self.port).await?;
        let stream = connector.connect(name, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer, or when the request is dropped.
        tokio::spawn(connection);

        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.map(Uri::from).unwrap_or_default();
        let headers = request.headers_mut();
        let host = match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        };
        headers.insert(HOST, host.try_into()?);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(USER_AGENT, AGENT);
        Ok(sender.send_request(request).await?)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = path.to_owned();
    let read = apart_if_possible(move || std::fs::read(&file)).await;
    read.map_err(|e| format!("{} cannot be read: {e}", path.display()))
}

fn trusting(roots: &[u8]) -> Result<ClientConfig, Failure> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(roots) {
        store.add(certificate?)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    Ok(config)
}

//! TLS, for pages that are there over https alone.
//!
//! On loopback only this pod can answer, and few certificates name it, so any certificate is accepted there.
//! Elsewhere it has to be valid for the host. Nothing of this is built before the first request that needs it.

use std::io;
use std::sync::{Arc, OnceLock};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, InvalidMessage, RootCertStore,
    SignatureScheme,
};

/// Makes TLS connections.
#[derive(Default)]
pub(super) struct Tls {
    loopback: OnceLock<Arc<ClientConfig>>,
    elsewhere: OnceLock<Arc<ClientConfig>>,
}

impl Tls {
    /// What connects to this pod, or to a host whose certificate has to be valid.
    ///
    /// # Errors
    /// When the system has no root certificates.
    pub fn connector(&self, loopback: bool) -> Result<TlsConnector, String> {
        let (slot, make): (_, fn() -> _) = match loopback {
            true => (&self.loopback, trusting_any),
            false => (&self.elsewhere, trusting_roots),
        };
        // What fails is tried again: the roots may be mounted later.
        let config = match slot.get() {
            Some(config) => config,
            None => {
                let made = Arc::new(make()?);
                slot.get_or_init(|| made)
            }
        };
        Ok(config.clone().into())
    }
}

fn trusting_any() -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let any = Arc::new(AnyCertificate(provider.clone()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(any)
        .with_no_client_auth();
    Ok(config)
}

fn trusting_roots() -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = (found.errors.first())
            .map(|e| format!(" ({e})"))
            .unwrap_or_default();
        return Err(format!(
            "there are no root certificates{why}; set SSL_CERT_FILE to a PEM file that has them"
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// What went wrong in a handshake, and what to do where that is known.
pub(super) fn explain(e: &io::Error) -> String {
    let cause = e.get_ref().and_then(|e| e.downcast_ref::<Error>());
    let remedy = match cause {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; set SSL_CERT_FILE to a PEM file that has the certificate's issuer"
        }
        Some(Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            "; what listens there may speak plain HTTP"
        }
        _ => "",
    };
    format!("{e}{remedy}")
}

/// Takes any certificate, even one too old or odd to be parsed. A signature says only that the peer has the
/// certificate's key, which is worth nothing where every certificate will do.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

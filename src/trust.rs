//! Whom this machine trusts to say who a server is.

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// The system's authorities, or those in the file that `SSL_CERT_FILE` names. One that cannot be read is one that is not
/// trusted. Reads files: some milliseconds.
pub fn authorities() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// How an HTTP client makes sure that it speaks to the server it means.
pub fn https() -> TlsConfig {
    // It may have been chosen already.
    let _ = ring::default_provider().install_default();
    let authorities: Vec<_> = authorities().iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    TlsConfig::builder().root_certs(RootCerts::new_with_certs(&authorities)).build()
}

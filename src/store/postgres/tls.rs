//! How a connection begins: in the clear or encrypted, as `sslmode` says, and always in time.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::link::Link;
use super::stream::Watched;
use crate::config::SslMode;
use crate::trust;

/// Asks the server whether it encrypts: the length, and a number that is no version of the protocol.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
/// Stands for a host whose name cannot stand in a certificate, where nobody compares it.
const NOBODY: &str = "database.invalid";

type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;
type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;

/// How connections are encrypted. The driver is told that all of them are, so that it hands over the bare socket: whether
/// they really are is between this and the server.
#[derive(Clone)]
pub(super) struct Tls {
    mode: SslMode,
    rustls: MakeRustlsConnect,
}

impl Tls {
    /// Reads the system's authorities if `mode` needs them.
    pub(super) fn new(mode: SslMode) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring knows the ciphers of the protocols that rustls has");
        let config = if mode == SslMode::VerifyFull {
            let mut authorities = RootCertStore::empty();
            authorities.add_parsable_certificates(trust::authorities());
            builder.with_root_certificates(authorities).with_no_client_auth()
        } else {
            let anybody = Arc::new(Anybody(provider));
            builder.dangerous().with_custom_certificate_verifier(anybody).with_no_client_auth()
        };
        Self { mode, rustls: MakeRustlsConnect::new(config) }
    }

    /// Connects one stream, in the time that `link` allows.
    pub(super) fn connector(&self, link: &Arc<Link>) -> Connector {
        Connector { tls: self.clone(), link: Arc::clone(link) }
    }

    /// The same without encryption.
    pub(super) fn in_the_clear(&self) -> Self {
        Self { mode: SslMode::Disable, ..self.clone() }
    }

    pub(super) fn is_optional(&self) -> bool {
        self.mode == SslMode::Prefer
    }
}

/// Begins one connection.
#[derive(Clone)]
pub(super) struct Connector {
    tls: Tls,
    link: Arc<Link>,
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = Watched<Transport>;
    type TlsConnect = Handshake;
    type Error = InvalidDnsNameError;

    fn make_tls_connect(&mut self, host: &str) -> Result<Handshake, InvalidDnsNameError> {
        let make = |host| MakeTlsConnect::<Socket>::make_tls_connect(&mut self.tls.rustls.clone(), host);
        let rustls = match make(host) {
            Err(_) if self.tls.mode != SslMode::VerifyFull => make(NOBODY)?,
            handshake => handshake?,
        };
        Ok(Handshake { mode: self.tls.mode, rustls, link: Arc::clone(&self.link) })
    }
}

/// Agrees with one server on how to talk.
pub(super) struct Handshake {
    mode: SslMode,
    rustls: RustlsConnect,
    link: Arc<Link>,
}

impl TlsConnect<Socket> for Handshake {
    type Stream = Watched<Transport>;
    type Error = HandshakeError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, HandshakeError>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let within: Duration = self.link.silence_max();
            let link = Arc::clone(&self.link);
            let transport = tokio::time::timeout(within, self.agree(socket)).await;
            Ok(Watched::new(transport.map_err(|_| HandshakeError::Late)??, link))
        })
    }
}

impl Handshake {
    async fn agree(self, mut socket: Socket) -> Result<Transport, HandshakeError> {
        if self.mode == SslMode::Disable {
            return Ok(Transport::Clear(socket));
        }
        socket.write_all(&SSL_REQUEST).await?;
        // Not one byte more: whatever somebody has slipped in behind it has to pass as TLS.
        match socket.read_u8().await? {
            b'S' => {
                self.link.set_encrypted();
                Ok(Transport::Encrypted(Box::new(self.rustls.connect(socket).await.map_err(HandshakeError::of_tls)?)))
            }
            b'N' if self.mode == SslMode::Prefer => Ok(Transport::Clear(socket)),
            b'N' => Err(HandshakeError::NotOffered),
            // A server that cannot even start a process for us says so in the first version of the protocol.
            _ => Err(HandshakeError::Io(io::ErrorKind::ConnectionRefused.into())),
        }
    }
}

/// Why there is no agreement.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    /// The server has no TLS.
    #[error("the server does not offer TLS")]
    NotOffered,
    /// Nobody whom the system trusts says who the server is.
    #[error("the server's certificate is not trusted")]
    Untrusted,
    /// It is another server's certificate.
    #[error("the server's certificate is for another host")]
    OtherHost,
    /// The server speaks another TLS, or none.
    #[error("TLS failed")]
    Tls,
    /// The server says nothing.
    #[error("the server does not answer")]
    Late,
    /// The connection broke.
    #[error("the connection broke")]
    Io(#[from] io::Error),
}

impl HandshakeError {
    fn of_tls(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Self::OtherHost,
            Some(rustls::Error::InvalidCertificate(_)) => Self::Untrusted,
            Some(_) => Self::Tls,
            None => Self::Io(error),
        }
    }
}

/// A server's socket, or what is encrypted over it.
pub(super) enum Transport {
    Clear(Socket),
    Encrypted(Box<RustlsStream>),
}

impl TlsStream for Watched<Transport> {
    fn channel_binding(&self) -> ChannelBinding {
        match self.get_ref() {
            Transport::Clear(_) => ChannelBinding::none(),
            Transport::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Clear(socket) => Pin::new(socket).poll_read(cx, buf),
            Transport::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Transport::Clear(socket) => Pin::new(socket).poll_write(cx, buf),
            Transport::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Clear(socket) => Pin::new(socket).poll_flush(cx),
            Transport::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Transport::Clear(socket) => Pin::new(socket).poll_shutdown(cx),
            Transport::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Believes every certificate, as libpq does unless it is asked to verify: who listens is kept out, who pretends is not.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig,
        crypto::{CryptoProvider, aws_lc_rs},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::{
    edge::watched::{FileError, Watched},
    pem::{self, InvalidPair},
};

/// The gateway's certificate, and the authorities of callers' certificates; the `[edge.tls]` table of the configuration
/// file. All files are PEM. They are loaded again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway's certificate, followed by those that lead to its authority.
    pub cert: PathBuf,
    /// The private key of the certificate.
    pub key: PathBuf,
    /// The authorities whose client certificates authenticate callers; absent, no caller is asked for a certificate.
    pub client_ca: Option<PathBuf>,
    /// Whether a caller without a client certificate is refused during the handshake, whatever token it has.
    #[serde(default)]
    pub require_client_cert: bool,
}

/// Accepts connections over TLS 1.2 or 1.3.
#[derive(Debug)]
pub(super) struct Tls(Watched<ServerConfig>);

impl Config {
    /// Loads the files, and again whenever they have changed, for which it looks `every` so often.
    ///
    /// # Errors
    /// [`FileError`] if a file cannot be read or cannot be used for TLS.
    pub(super) async fn load(self, every: Duration) -> Result<Tls, FileError> {
        let files = [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect();
        Watched::load(files, every, move |contents| self.server(contents)).await.map(Tls)
    }

    fn server(&self, contents: &[Vec<u8>]) -> Result<ServerConfig, FileError> {
        let [cert, key, rest @ ..] = contents else { return Err(wrong(&self.cert, "is missing")) };
        let (certs, key) = pem::pair(cert, key).map_err(|error| match error {
            InvalidPair::Cert(error) => wrong(&self.cert, error),
            InvalidPair::Key(error) => wrong(&self.key, error),
        })?;
        let validity = certs.first().and_then(|cert| Some(X509Certificate::from_der(cert).ok()?.1.validity().clone()));
        if let Some(validity) = validity.filter(|validity| !validity.is_valid()) {
            let rule = format!("it is valid from {} to {} only", validity.not_before, validity.not_after);
            return Err(wrong(&self.cert, rule));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions();
        let builder = builder.map_err(|_unsupported| wrong(&self.cert, "neither TLS 1.2 nor TLS 1.3 is available"))?;
        let builder = match (&self.client_ca, rest) {
            (Some(file), [authorities]) => {
                builder.with_client_cert_verifier(self.verifier(file, authorities, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(certs, key).map_err(|error| self.mismatch(&error))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(server)
    }

    /// Returns why a certificate and a key that could be read cannot be used, in words without any of the files'.
    fn mismatch(&self, error: &rustls::Error) -> FileError {
        match error {
            rustls::Error::InconsistentKeys(_) => {
                let reason = format!(
                    "its first certificate is not that of the key in {}: the gateway's own comes first, and both are \
                     replaced together",
                    self.key.display()
                );
                wrong(&self.cert, reason)
            }
            rustls::Error::InvalidCertificate(_) => wrong(&self.cert, "its first certificate cannot be used for TLS"),
            _ => wrong(&self.key, "its key cannot be used for TLS, as RSA of 2048 bits or more, ECDSA and Ed25519 can"),
        }
    }

    fn verifier(
        &self,
        file: &Path,
        authorities: &[u8],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
        let mut roots = RootCertStore::empty();
        for authority in pem::authorities(authorities).map_err(|error| wrong(file, error))? {
            roots
                .add(authority)
                .map_err(|_unusable| wrong(file, "one of its certificates cannot be an authority's"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if self.require_client_cert { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map_err(|_unusable| wrong(file, "it holds no authority that can be used"))
    }
}

fn wrong(file: &Path, what: impl Display) -> FileError {
    FileError::Content { file: file.to_owned(), reason: what.to_string() }
}

impl Tls {
    /// Returns an acceptor that uses the files as they were loaded last.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.get())
    }
}

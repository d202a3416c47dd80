use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, ServerConnection,
        crypto::{CryptoProvider, aws_lc_rs},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer as _, ParsedExtension},
};

use super::{
    credential::Credential,
    watched::{FileError, Watched},
};
use crate::model::Principal;

/// The gateway's certificate, and whose certificates prove a caller; the `[edge.tls]` table of the configuration file. All
/// files are PEM, and used anew when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The gateway's certificate, and those that lead from it to its authority.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities whose client certificates prove who calls; absent, no caller is asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a caller without a client certificate is refused at once, whatever token it has.
    #[serde(default)]
    pub require_client_cert: bool,
}

/// Takes connections in TLS 1.2 or 1.3.
#[derive(Debug)]
pub(super) struct Tls(Watched<ServerConfig>);

impl Config {
    /// Reads the files, and again when they change.
    pub(super) async fn load(self, every: Duration) -> Result<Tls, FileError> {
        let files = [&self.cert, &self.key].into_iter().chain(&self.client_ca).cloned().collect();
        Watched::load(files, every, move |contents| self.server(contents)).await.map(Tls)
    }

    fn server(&self, contents: &[Vec<u8>]) -> Result<ServerConfig, FileError> {
        let [cert, key, rest @ ..] = contents else { return Err(wrong(&self.cert, "is missing")) };
        let key = PrivateKeyDer::from_pem_slice(key);
        let key = key.map_err(|_none| wrong(&self.key, "it holds no private key in PEM"))?;
        let certs = certificates(&self.cert, cert)?;
        let validity = certs.first().and_then(|cert| Some(X509Certificate::from_der(cert).ok()?.1.validity().clone()));
        if let Some(validity) = validity.filter(|validity| !validity.is_valid()) {
            let rule = format!("it is valid from {} to {} only", validity.not_before, validity.not_after);
            return Err(wrong(&self.cert, rule));
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| wrong(&self.cert, error))?;
        let builder = match (&self.client_ca, rest) {
            (Some(file), [authorities]) => {
                builder.with_client_cert_verifier(self.verifier(file, authorities, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut server = builder.with_single_cert(certs, key).map_err(|error| wrong(&self.cert, error))?;
        server.alpn_protocols = vec![b"h2".to_vec()];
        Ok(server)
    }

    fn verifier(
        &self,
        file: &Path,
        authorities: &[u8],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(file, authorities)? {
            roots.add(authority).map_err(|error| wrong(file, error))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        let verifier = if self.require_client_cert { verifier } else { verifier.allow_unauthenticated() };
        verifier.build().map_err(|error| wrong(file, error))
    }
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| wrong(file, error))?;
    if certificates.is_empty() { Err(wrong(file, "it holds no certificate in PEM")) } else { Ok(certificates) }
}

fn wrong(file: &Path, what: impl Display) -> FileError {
    FileError::Content { file: file.to_owned(), reason: what.to_string() }
}

impl Tls {
    /// Takes a connection by the files as they are now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.get())
    }
}

/// Who is at the other end, by its certificate: its SPIFFE ID, or else its first DNS name. A certificate with neither
/// proves nobody.
pub(super) fn peer(connection: &ServerConnection) -> Option<Credential> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let principal = principal(&certificate)?;
    Some(Credential { principal, expires: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) })
}

fn principal(certificate: &X509Certificate<'_>) -> Option<Principal> {
    let names = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    })?;
    let spiffe = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(Principal::spiffe(uri)),
        _ => None,
    });
    spiffe.or_else(|| {
        names.iter().find_map(|name| match name {
            GeneralName::DNSName(name) => Some(Principal::dns(name)),
            _ => None,
        })
    })
}

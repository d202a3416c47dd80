use std::{
    fmt::Display,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, RootCertStore, ServerConfig, ServerConnection,
        crypto::{CryptoProvider, aws_lc_rs},
        server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    },
};
use tracing::warn;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer as _, ParsedExtension},
};

use super::{
    credential::Credential,
    log_limiter::LogLimiter,
    watched::{FileError, Watched},
};
use crate::{
    access::Principal,
    pem::{self, InvalidPair},
};

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
        let builder = builder.map_err(|_unsupported| wrong(&self.cert, "neither TLS 1.2 nor TLS 1.3 can be spoken"))?;
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

    /// Why a certificate and a key that could be read cannot be used, in words of our own.
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
    /// Takes a connection by the files as they are now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.get())
    }
}

/// Returns who is at the other end, by its certificate: its SPIFFE ID, or else its first DNS name. A certificate with neither,
/// or with a SPIFFE ID against the rules, proves nobody; why it does not is logged.
pub(super) fn peer(connection: &ServerConnection, limiter: &LogLimiter) -> Option<Credential> {
    let certificate = connection.peer_certificates()?.first()?;
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    let principal = principal(&certificate).unwrap_or_else(|reason| {
        if let Some(left_out) = limiter.admit() {
            warn!(reason, serial = certificate.raw_serial_as_string(), left_out, "a client certificate proves nobody");
        }
        None
    })?;
    Some(Credential { principal, expires: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) })
}

/// The tag of a URI among the names of a certificate (RFC 5280, section 4.2.1.6).
const URI_TAG: u32 = 6;

/// Returns whom a certificate proves. As an X509-SVID has it, a certificate with a SPIFFE ID has no other URI; one that cannot be
/// read may be either, and proves nobody.
fn principal(certificate: &X509Certificate<'_>) -> Result<Option<Principal>, &'static str> {
    let names = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
        _ => None,
    });
    let names = names.map(Vec::as_slice).unwrap_or_default();
    if names.iter().any(|name| matches!(name, GeneralName::Invalid(tag, _) if tag.0 == URI_TAG)) {
        return Err("one of its URIs is not text");
    }
    let uris: Vec<&str> =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None }).collect();
    if uris.iter().any(|uri| has_spiffe_scheme(uri)) {
        let [id] = uris[..] else { return Err("it has a SPIFFE ID and another URI, where an X509-SVID has one URI") };
        let principal =
            Principal::spiffe(id).ok_or("its SPIFFE ID is none by the grammar of the SPIFFE-ID standard")?;
        return Ok(Some(principal));
    }
    let dns = names.iter().find_map(|name| if let GeneralName::DNSName(name) = name { Some(*name) } else { None });
    Ok(dns.map(Principal::dns))
}

fn has_spiffe_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("spiffe"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CustomExtension, KeyPair};

    use super::*;

    /// Whom a certificate for these names proves, each given with its tag.
    fn proven(names: &[(u8, &[u8])]) -> Result<Option<String>, &'static str> {
        let tlv = |tag: u8, value: &[u8]| [&[tag, u8::try_from(value.len()).unwrap()], value].concat();
        let names: Vec<u8> = names.iter().flat_map(|(tag, name)| tlv(0x80 | tag, name)).collect();
        let mut params = CertificateParams::default();
        params.custom_extensions = vec![CustomExtension::from_oid_content(&[2, 5, 29, 17], tlv(0x30, &names))];
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let (_, certificate) = X509Certificate::from_der(certificate.der()).unwrap();
        principal(&certificate).map(|principal| principal.map(|principal| principal.as_str().to_owned()))
    }

    #[test]
    fn a_certificate_with_a_uri_that_is_not_text_proves_nobody() {
        let (uri, dns) = (6, 2);
        let id: &[u8] = b"spiffe://acme/admin";
        assert_eq!(proven(&[(uri, id), (dns, b"a.internal")]), Ok(Some("spiffe://acme/admin".to_owned())));
        assert_eq!(proven(&[(dns, b"a.internal")]), Ok(Some("dns:a.internal".to_owned())));
        for names in [
            &[(uri, id), (uri, b"spiffe://acme/\xff")][..],
            &[(uri, b"https://acme/\xff"), (uri, id)],
            &[(uri, b"spiffe://acme/\xff"), (dns, b"a.internal")],
        ] {
            assert_eq!(proven(names), Err("one of its URIs is not text"), "{names:?}");
        }
    }
}

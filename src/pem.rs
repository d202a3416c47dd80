//! Reads PEM files strictly: uses everything in a file, or rejects the file with a line and a reason. The parser of
//! `rustls-pki-types` was rejected: it skips blocks that it does not know, so that an authority or an intermediate
//! certificate is silently missing, and its errors print bytes of the file, even those of private keys.
//!
//! The reader accepts a byte order mark, indentation, any line ends, blocks that share a line (files concatenated
//! without a line end), and comments outside of blocks, as `openssl x509 -text` and bundles of authorities write them.

mod blocks;
mod invalid;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use self::blocks::{Block, Kind, blocks};
pub use self::invalid::{InvalidPair, InvalidPem};

/// A certificate or a key, and the first line of its block.
type Placed<T> = (usize, T);

/// The content of a file.
#[derive(Default)]
struct Contents {
    certificates: Vec<Placed<CertificateDer<'static>>>,
    keys: Vec<Placed<PrivateKeyDer<'static>>>,
}

/// Returns the certificates of a file, in their order.
///
/// # Errors
/// [`InvalidPem`], if the file contains no certificate, a private key, or anything invalid.
///
/// # Examples
/// ```
/// use ssm_gateway::pem::{InvalidPem, certificates};
///
/// let swapped = certificates(b"-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n");
/// assert!(matches!(swapped, Err(InvalidPem::Line { line: 1, .. })));
/// ```
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    Contents::of_certificates(pem)?.into_certificates()
}

/// Returns the certificates of a file that contains only authorities.
///
/// # Errors
/// As for [`certificates`], and if a certificate is neither an authority's nor self-signed: it would never be used.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    let contents = Contents::of_certificates(pem)?;
    let is_authority = |der: &[u8]| {
        let parsed = X509Certificate::from_der(der);
        parsed.is_ok_and(|(_, certificate)| certificate.is_ca() || certificate.subject() == certificate.issuer())
    };
    match contents.certificates.iter().find(|(_, certificate)| !is_authority(certificate)) {
        Some(&(line, _)) => {
            let reason = "the certificate is not an authority's: use the certificate of its issuer";
            Err(InvalidPem::Line { line, reason })
        }
        None => contents.into_certificates(),
    }
}

/// Returns the private key of a file. Besides the key, the file may contain only its parameters.
///
/// # Errors
/// [`InvalidPem`], if the file contains no key, several keys, an encrypted key, a certificate, or anything invalid.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, InvalidPem> {
    let contents = Contents::read(pem)?;
    match contents.certificates.first() {
        Some(&(line, _)) => {
            let reason = "a certificate in the file of the private key: are two files swapped?";
            Err(InvalidPem::Line { line, reason })
        }
        None => contents.into_key(),
    }
}

/// Returns the certificates of one file and the private key of another. Both arguments may be the same file, with
/// certificates and key.
///
/// # Errors
/// [`InvalidPair`], as for [`certificates`] and [`private_key`].
pub fn pair(cert: &[u8], key: &[u8]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), InvalidPair> {
    if cert != key {
        let certificates = certificates(cert).map_err(InvalidPair::Cert)?;
        return Ok((certificates, private_key(key).map_err(InvalidPair::Key)?));
    }
    let Contents { certificates, keys } = Contents::read(cert).map_err(InvalidPair::Cert)?;
    let certificates = Contents { certificates, keys: Vec::new() }.into_certificates().map_err(InvalidPair::Cert)?;
    Ok((certificates, Contents { certificates: Vec::new(), keys }.into_key().map_err(InvalidPair::Key)?))
}

/// Writes certificates as PEM that every parser accepts.
#[must_use]
pub fn write_certificates(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| write("CERTIFICATE", certificate)).collect()
}

/// Writes a private key as PEM that every parser accepts.
#[must_use]
pub fn write_key(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    write(label, key.secret_der())
}

fn write(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

impl Contents {
    /// Reads a file of certificates, which must not contain keys.
    fn of_certificates(pem: &[u8]) -> Result<Self, InvalidPem> {
        let contents = Self::read(pem)?;
        match contents.keys.first() {
            Some(&(line, _)) => {
                let reason = "a private key in a file of certificates: are two files swapped?";
                Err(InvalidPem::Line { line, reason })
            }
            None => Ok(contents),
        }
    }

    fn read(pem: &[u8]) -> Result<Self, InvalidPem> {
        let mut contents = Self::default();
        for Block { line, kind, der } in blocks(pem)? {
            let key = match kind {
                Kind::Certificate => {
                    if !X509Certificate::from_der(&der).is_ok_and(|(rest, _)| rest.is_empty()) {
                        let reason = "the block is labelled CERTIFICATE but contains none";
                        return Err(InvalidPem::Line { line, reason });
                    }
                    contents.certificates.push((line, der.into()));
                    continue;
                }
                Kind::Parameters => continue,
                Kind::Pkcs8Key => PrivatePkcs8KeyDer::from(der).into(),
                Kind::Pkcs1Key => PrivatePkcs1KeyDer::from(der).into(),
                Kind::Sec1Key => PrivateSec1KeyDer::from(der).into(),
            };
            contents.keys.push((line, key));
        }
        Ok(contents)
    }

    fn into_certificates(self) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
        if self.certificates.is_empty() {
            return Err(InvalidPem::File("the file contains no PEM certificate"));
        }
        Ok(self.certificates.into_iter().map(|(_, certificate)| certificate).collect())
    }

    fn into_key(self) -> Result<PrivateKeyDer<'static>, InvalidPem> {
        let mut keys = self.keys.into_iter();
        match (keys.next(), keys.next()) {
            (Some((_, key)), None) => Ok(key),
            (None, _) => Err(InvalidPem::File("the file contains no PEM private key")),
            (Some(_), Some((line, _))) => {
                Err(InvalidPem::Line { line, reason: "a second private key: the file must contain only one" })
            }
        }
    }
}

#[cfg(test)]
mod tests;

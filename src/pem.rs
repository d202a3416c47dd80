//! PEM files, read strictly: everything in a file is understood, or the file is refused by line and reason. The reader of
//! `rustls-pki-types` passes over what it does not know, so that an authority or an intermediate certificate is missing
//! without a word, and its errors print the bytes that it stumbles on, those of private keys included.
//!
//! Understood are a byte order mark, indentation, any line ends, blocks that follow each other on one line (files glued without
//! a line end), and remarks outside of blocks, as `openssl x509 -text` and bundles of authorities have them.

mod blocks;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use self::blocks::{Block, Kind, blocks};

/// Why a PEM file cannot be used. Its reasons are fixed texts, so that no byte of the file can get into them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPem {
    /// Something in the file is wrong.
    #[error("line {line}: {reason}")]
    Line {
        /// Where: the line, from 1.
        line: usize,
        /// What is wrong there, and what to do.
        reason: &'static str,
    },
    /// The file as a whole is wrong.
    #[error("{0}")]
    File(&'static str),
}

/// Which of two files cannot be used, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPair {
    /// That of the certificates.
    #[error(transparent)]
    Cert(InvalidPem),
    /// That of the private key.
    #[error(transparent)]
    Key(InvalidPem),
}

/// A certificate or a key, and the line that its block begins in.
type Placed<T> = (usize, T);

/// All that a file holds.
#[derive(Default)]
struct Contents {
    certificates: Vec<Placed<CertificateDer<'static>>>,
    keys: Vec<Placed<PrivateKeyDer<'static>>>,
}

/// Returns the certificates of a file that holds nothing else, in their order.
///
/// # Errors
/// [`InvalidPem`] where the file holds none, a private key, or anything that is not understood.
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

/// Returns the certificates of a file that holds authorities alone.
///
/// # Errors
/// As of [`certificates`], and where a certificate is neither an authority's nor issued by itself: it would never be used.
pub fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, InvalidPem> {
    let contents = Contents::of_certificates(pem)?;
    let is_authority = |der: &[u8]| {
        let parsed = X509Certificate::from_der(der);
        parsed.is_ok_and(|(_, certificate)| certificate.is_ca() || certificate.subject() == certificate.issuer())
    };
    match contents.certificates.iter().find(|(_, certificate)| !is_authority(certificate)) {
        Some(&(line, _)) => {
            let reason = "a certificate that is no authority's, where authorities belong: give that of its issuer";
            Err(InvalidPem::Line { line, reason })
        }
        None => contents.into_certificates(),
    }
}

/// Returns the private key of a file that holds one, and nothing else but its parameters.
///
/// # Errors
/// [`InvalidPem`] where the file holds no key, several keys, an encrypted key, a certificate, or anything that is not understood.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, InvalidPem> {
    let contents = Contents::read(pem)?;
    match contents.certificates.first() {
        Some(&(line, _)) => {
            let reason = "a certificate, where only the private key belongs: are two files swapped?";
            Err(InvalidPem::Line { line, reason })
        }
        None => contents.into_key(),
    }
}

/// Returns the certificates of one file and the private key of another. One file that holds both may stand for each.
///
/// # Errors
/// [`InvalidPair`], as of [`certificates`] and [`private_key`].
pub fn pair(cert: &[u8], key: &[u8]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), InvalidPair> {
    if cert != key {
        let certificates = certificates(cert).map_err(InvalidPair::Cert)?;
        return Ok((certificates, private_key(key).map_err(InvalidPair::Key)?));
    }
    let Contents { certificates, keys } = Contents::read(cert).map_err(InvalidPair::Cert)?;
    let certificates = Contents { certificates, keys: Vec::new() }.into_certificates().map_err(InvalidPair::Cert)?;
    Ok((certificates, Contents { certificates: Vec::new(), keys }.into_key().map_err(InvalidPair::Key)?))
}

/// Writes certificates as PEM that every other reader understands.
#[must_use]
pub fn write_certificates(certificates: &[CertificateDer<'_>]) -> String {
    certificates.iter().map(|certificate| write("CERTIFICATE", certificate)).collect()
}

/// Writes a private key as PEM that every other reader understands.
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
    /// Of a file where keys do not belong.
    fn of_certificates(pem: &[u8]) -> Result<Self, InvalidPem> {
        let contents = Self::read(pem)?;
        match contents.keys.first() {
            Some(&(line, _)) => {
                let reason =
                    "a private key, where certificates belong: are two files swapped, or is it in the wrong one?";
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
                        let reason = "the block is called a certificate, and what it holds is none";
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
            return Err(InvalidPem::File("it holds no certificate in PEM"));
        }
        Ok(self.certificates.into_iter().map(|(_, certificate)| certificate).collect())
    }

    fn into_key(self) -> Result<PrivateKeyDer<'static>, InvalidPem> {
        let mut keys = self.keys.into_iter();
        match (keys.next(), keys.next()) {
            (Some((_, key)), None) => Ok(key),
            (None, _) => Err(InvalidPem::File("it holds no private key in PEM")),
            (Some(_), Some((line, _))) => {
                Err(InvalidPem::Line { line, reason: "a second private key, where one belongs: which is meant?" })
            }
        }
    }
}

#[cfg(test)]
mod tests;

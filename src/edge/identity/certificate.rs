//! The client certificate of a connection, and whom it proves.

use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::ServerConnection;
use tracing::warn;
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{FromDer as _, ParsedExtension},
};

use crate::{
    access::Principal,
    edge::{credential::Credential, log_limiter::LogLimiter},
};

/// The tag of a URI among the names of a certificate (RFC 5280, section 4.2.1.6).
const URI_TAG: u32 = 6;

impl Credential {
    /// Returns the credential of a connection whose peer has shown a certificate: for its SPIFFE ID, or else for its
    /// first DNS name. A certificate with neither, or with a SPIFFE ID against the rules, proves nobody; the log says
    /// why.
    pub(in crate::edge) fn of_peer(connection: &ServerConnection, limiter: &LogLimiter) -> Option<Self> {
        let certificate = connection.peer_certificates()?.first()?;
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
        let principal = principal(&certificate).unwrap_or_else(|reason| {
            if let Some(left_out) = limiter.admit() {
                let serial = certificate.raw_serial_as_string();
                warn!(reason, serial, left_out, "a client certificate proves nobody");
            }
            None
        })?;
        Some(Self { principal, expires: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)) })
    }
}

/// Returns the principal that a certificate proves, if it proves one. As the X509-SVID standard demands, a certificate
/// with a SPIFFE ID has no other URI. A certificate with a URI that cannot be read proves nobody: the URI may be
/// either.
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

    /// Returns the principal of a certificate for these names, each with its tag.
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
        let uri = 6;
        let dns = 2;
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

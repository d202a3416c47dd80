//! Explains why a gateway was not reached, in a sentence that says what to do. The messages of hyper, rustls and tonic
//! do not.

use std::{error::Error, io, iter};

use tokio_rustls::rustls::{self, CertificateError};

use crate::display::ErrorChain;

/// How many names of a certificate a message lists.
const NAMES: usize = 5;

/// The state of a connection when it failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) is_tls: bool,
    /// Whether the connection was established, including the TLS handshake.
    pub(super) is_connected: bool,
}

/// Explains why a connection failed or broke.
pub(super) fn diagnose(error: &(dyn Error + 'static), stage: Stage) -> String {
    let causes = ErrorChain(error).to_string();
    // Of an alert in place of an answer, the h2 crate keeps only the text.
    if let Some((_, alert)) = causes.rsplit_once("received fatal alert: ") {
        return of_alert(alert);
    }
    for cause in iter::successors(Some(error), |&error| error.source()) {
        let known = if let Some(error) = cause.downcast_ref::<io::Error>() {
            // The `source` of an I/O error skips the error that it wraps.
            let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
            inner.map_or_else(|| of_io(error.kind(), stage), |inner| Some(of_tls(inner)))
        } else if let Some(error) = cause.downcast_ref::<hyper::Error>() {
            (error.is_canceled() || error.is_closed()).then(|| closed(stage))
        } else {
            cause.downcast_ref().map(of_tls)
        };
        if let Some(sentence) = known {
            return sentence;
        }
    }
    if causes.contains("dns error") {
        return "the host name cannot be resolved: is the address right?".to_owned();
    }
    if causes.contains("TLS handshake timeout") {
        return "the TLS handshake timed out: is the address right, and does the server use TLS?".to_owned();
    }
    // The answer is not HTTP/2.
    if causes.contains("connection error detected") && !stage.is_tls {
        return "the answer is not plaintext HTTP/2: if the server uses TLS, use https://".to_owned();
    }
    causes
}

fn of_io(kind: io::ErrorKind, stage: Stage) -> Option<String> {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkUnreachable,
        NotFound, PermissionDenied, TimedOut, UnexpectedEof,
    };
    let sentence = match kind {
        ConnectionRefused => {
            "nothing listens there (connection refused): is the gateway running, and is the address right?"
        }
        HostUnreachable | NetworkUnreachable => "there is no route to it from this machine: is the address right?",
        NotFound => "there is no such socket: is the gateway running, and is the address right?",
        PermissionDenied => "permission denied: may this user access the socket?",
        TimedOut => "the connection timed out: is the address right, and does every firewall on the way allow it?",
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => return Some(closed(stage)),
        _ => return None,
    };
    Some(sentence.to_owned())
}

/// Explains a connection that the peer closed without an error.
fn closed(Stage { is_tls, is_connected }: Stage) -> String {
    let advice = match (is_tls, is_connected) {
        (false, _) => "if the server uses TLS, use https://",
        (true, false) => "does the server use TLS? If not, use http://",
        (true, true) => "if the server requires a client certificate, give one that it trusts with --cert and --key",
    };
    format!("the connection was closed: {advice}")
}

fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::NoApplicationProtocol => of_alert("NoApplicationProtocol"),
        rustls::Error::InvalidMessage(_) => {
            "the server does not speak TLS: if it uses plaintext, use http://".to_owned()
        }
        error => format!("TLS failed ({error})"),
    }
}

/// Explains an alert of the peer, given its name in `rustls::AlertDescription`.
fn of_alert(alert: &str) -> String {
    match alert {
        "CertificateRequired" => "the server requires a client certificate: give --cert and --key".to_owned(),
        "AccessDenied"
        | "BadCertificate"
        | "CertificateExpired"
        | "CertificateRevoked"
        | "CertificateUnknown"
        | "DecryptError"
        | "UnknownCA"
        | "UnsupportedCertificate" => {
            format!("the server rejects the certificate that --cert names ({alert})")
        }
        "NoApplicationProtocol" => "the server speaks TLS, but not HTTP/2: is the address right?".to_owned(),
        alert => format!("the server rejects the TLS handshake ({alert})"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidForName,
        NotValidForNameContext, NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    let sentence = match error {
        // rustls reports `BadSignature` if a trusted authority has the same name.
        UnknownIssuer | BadSignature => {
            "no trusted authority has signed the server's certificate: give the authority's certificate with --tls-ca"
        }
        NotValidForNameContext { expected, presented } => {
            // Such as `DnsName("localhost")`.
            let name = |name: &String| {
                name.split_once('(').map_or(&**name, |(_, name)| name.trim_matches([')', '"'])).to_owned()
            };
            let names = presented.iter().take(NAMES).map(name).collect::<Vec<_>>().join(", ");
            let names = match presented.len() {
                0 => "no name".to_owned(),
                1..=NAMES => names,
                _ => names + " and others",
            };
            return format!(
                "the server's certificate is not for {} but for {names}: use a name of the certificate in --server",
                expected.to_str()
            );
        }
        NotValidForName => "the server's certificate is for other names: use a name of the certificate in --server",
        Expired | ExpiredContext { .. } => {
            "the server's certificate has expired: renew it, if the clock of this machine is right"
        }
        NotValidYet | NotValidYetContext { .. } => {
            "the server's certificate is not valid yet: is the clock of this machine right?"
        }
        InvalidPurpose | InvalidPurposeContext { .. } => {
            "the server's certificate does not permit its use by a server (serverAuth)"
        }
        Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => {
            "the server's certificate is an authority's own (CA:TRUE): the server needs one that an authority signed"
        }
        error => return format!("the server's certificate is invalid ({error})"),
    };
    sentence.to_owned()
}

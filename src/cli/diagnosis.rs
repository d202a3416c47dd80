//! Why a gateway was not reached, in a sentence that says what to do. What the crates below say is for those who wrote them.

use std::{error::Error, io, iter};

use tokio_rustls::rustls::{self, CertificateError};

use crate::display::ErrorChain;

/// How many names of a certificate are listed.
const NAMES: usize = 5;

/// When a connection failed, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage {
    pub(super) is_tls: bool,
    /// Whether the connection was there: TLS, if there is any, was agreed.
    pub(super) is_connected: bool,
}

/// Explains why a connection could not be made, or broke.
pub(super) fn diagnose(error: &(dyn Error + 'static), stage: Stage) -> String {
    let causes = ErrorChain(error).to_string();
    // The HTTP/2 library keeps the text alone of an alert that came in place of an answer.
    if let Some((_, alert)) = causes.rsplit_once("received fatal alert: ") {
        return of_alert(alert);
    }
    for cause in iter::successors(Some(error), |&error| error.source()) {
        let known = if let Some(error) = cause.downcast_ref::<io::Error>() {
            // An I/O error hides what it was made from: its source is the source of that.
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
        return "the name of its host cannot be resolved: is the address right?".to_owned();
    }
    if causes.contains("TLS handshake timeout") {
        return "what listens there did not agree on TLS in time: is the address right, and is TLS spoken there?"
            .to_owned();
    }
    // HTTP/2 that this end cannot read.
    if causes.contains("connection error detected") && !stage.is_tls {
        return "what answers there does not speak HTTP/2 in plaintext: if TLS is spoken there, give https://"
            .to_owned();
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
        HostUnreachable | NetworkUnreachable => "no route from this machine leads there: is the address right?",
        NotFound => "there is no such socket: is the gateway running, and is the address right?",
        PermissionDenied => "the system does not permit it: has this user access to the socket?",
        TimedOut => "nobody answered in time: is the address right, and does every firewall on the way let it pass?",
        ConnectionReset | ConnectionAborted | BrokenPipe | UnexpectedEof => return Some(closed(stage)),
        _ => return None,
    };
    Some(sentence.to_owned())
}

/// Of a peer that closed the connection without a word.
fn closed(Stage { is_tls, is_connected }: Stage) -> String {
    let advice = match (is_tls, is_connected) {
        (false, _) => "if TLS is spoken there, give https://",
        (true, false) => "is TLS spoken there? If not, give http://",
        (true, true) => "if it requires a certificate of whoever calls, give one that it trusts with --cert and --key",
    };
    format!("the connection was closed: {advice}")
}

fn of_tls(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => of_certificate(error),
        rustls::Error::NoApplicationProtocol => of_alert("NoApplicationProtocol"),
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS: if it is spoken to in plaintext, give http://".to_owned()
        }
        error => format!("TLS failed ({error})"),
    }
}

/// Of a refusal by the peer, by its name in `rustls::AlertDescription`.
fn of_alert(alert: &str) -> String {
    match alert {
        "CertificateRequired" => "it requires a certificate of whoever calls: give --cert and --key".to_owned(),
        "AccessDenied"
        | "BadCertificate"
        | "CertificateExpired"
        | "CertificateRevoked"
        | "CertificateUnknown"
        | "DecryptError"
        | "UnknownCA"
        | "UnsupportedCertificate" => {
            format!("it refuses the certificate that --cert names ({alert})")
        }
        "NoApplicationProtocol" => "what answers there speaks TLS, but not HTTP/2: is the address right?".to_owned(),
        alert => format!("it refuses TLS ({alert})"),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError::{
        BadSignature, Expired, ExpiredContext, InvalidPurpose, InvalidPurposeContext, NotValidForName,
        NotValidForNameContext, NotValidYet, NotValidYetContext, Other, UnknownIssuer,
    };
    let sentence = match error {
        // The latter where an authority of the same name is trusted.
        UnknownIssuer | BadSignature => {
            "its certificate is not signed by an authority that is trusted here: give the authority's certificate with --tls-ca"
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
                "its certificate is not for {} but for {names}: give a name of the certificate in --server",
                expected.to_str()
            );
        }
        NotValidForName => "its certificate is for other names: give a name of the certificate in --server",
        Expired | ExpiredContext { .. } => {
            "its certificate has expired: it must be renewed, if the clock here is right"
        }
        NotValidYet | NotValidYetContext { .. } => "its certificate is not valid yet: is the clock here right?",
        InvalidPurpose | InvalidPurposeContext { .. } => "its certificate is not one for servers (serverAuth)",
        Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => {
            "its certificate is an authority's own (CA:TRUE), which is none for servers: it needs one that an authority signed"
        }
        error => return format!("its certificate cannot be used ({error})"),
    };
    sentence.to_owned()
}

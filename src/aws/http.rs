//! The HTTP client below the SDK's: bounded answers, the proxies that the environment names, and the authorities to
//! trust.

use std::{
    error::Error,
    fs, io, iter,
    net::IpAddr,
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_sdk_ssm::config::SharedAsyncSleep;
use aws_smithy_http_client::{
    Connector,
    proxy::ProxyConfig,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http::Uri;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time;
use tokio_rustls::rustls::{self, CertificateError, RootCertStore};

use crate::{
    display::FileName,
    pem::{self, InvalidPem},
};

/// A client for AWS's endpoints. Clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Http(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    trust: Option<CaBundle>,
    max_answer_size: usize,
    attempt_timeout: Duration,
    connector: OnceLock<SharedHttpConnector>,
    /// The HTTP status of the last answer; 0 before there is one, and after an attempt without an answer.
    status: AtomicU16,
}

/// The authorities to trust in place of the system's, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct CaBundle(Arc<[u8]>);

/// Authorities to trust that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CaBundleError {
    /// The file cannot be read.
    #[error("cannot read the CA bundle {}", FileName(.0))]
    Read(PathBuf, #[source] io::Error),
    /// The file holds something else than certificates of authorities.
    #[error("the CA bundle {} cannot be used", FileName(.0))]
    Content(PathBuf, #[source] InvalidPem),
}

/// An answer that goes on beyond its bound.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer is larger than {0} bytes")]
pub(super) struct AnswerTooLarge(usize);

/// An answer that is not whole in time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("no whole answer within {0:?}")]
struct NoAnswer(Duration);

/// A certificate of the endpoint that is not accepted, and will not be the next time.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the endpoint's certificate {0}")]
pub(super) struct InvalidCertificate(&'static str);

impl InvalidCertificate {
    fn of(error: &CertificateError) -> Self {
        Self(match error {
            CertificateError::UnknownIssuer => {
                "is of an authority that is not trusted: set upstream.ca_bundle or AWS_CA_BUNDLE to its certificate in PEM"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "is for another name: is endpoint_url right?"
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => "is expired or not valid yet: is the clock right?",
            _ => "cannot be verified",
        })
    }
}

/// A failure on the way through a proxy.
#[derive(Debug, thiserror::Error)]
#[error("through the proxy {0}")]
struct ThroughProxy(String, #[source] Box<dyn Error + Send + Sync>);

impl CaBundle {
    /// Reads the file.
    ///
    /// # Errors
    /// [`CaBundleError`], if it holds anything but certificates.
    pub(super) fn read(file: PathBuf) -> Result<Self, CaBundleError> {
        let pem = match fs::read(&file) {
            Ok(pem) => pem,
            Err(error) => return Err(CaBundleError::Read(file, error)),
        };
        let authorities = match pem::authorities(&pem) {
            Ok(authorities) => authorities,
            Err(error) => return Err(CaBundleError::Content(file, error)),
        };
        // The SDK's client panics at what rustls does not take.
        let mut roots = RootCertStore::empty();
        if authorities.iter().any(|authority| roots.add(authority.clone()).is_err()) {
            return Err(CaBundleError::Content(
                file,
                InvalidPem::File("one of its certificates cannot be an authority's"),
            ));
        }
        Ok(Self(pem::write_certificates(&authorities).into_bytes().into()))
    }
}

impl Http {
    /// A client that trusts these authorities, or else the system's, and whose answers must be whole within that time.
    pub(super) fn new(trust: Option<CaBundle>, max_answer_size: usize, attempt_timeout: Duration) -> Self {
        let connector = OnceLock::new();
        let status = AtomicU16::new(0);
        Self(Arc::new(Shared { trust, max_answer_size, attempt_timeout, connector, status }))
    }

    /// The HTTP status of the last answer, if the last attempt had one.
    pub(super) fn status(&self) -> Option<u16> {
        Some(self.0.status.load(Relaxed)).filter(|status| *status > 0)
    }

    fn connector(
        &self,
        settings: &HttpConnectorSettings,
        sleep: Option<SharedAsyncSleep>,
        proxies: ProxyConfig,
    ) -> Connector {
        let mut builder = Connector::builder().connector_settings(settings.clone()).proxy_config(proxies);
        builder.set_sleep_impl(sleep);
        let trust = self.0.trust.as_ref().map(|CaBundle(pem)| TrustStore::empty().with_pem_certificate(pem.to_vec()));
        let context = TlsContext::builder().with_trust_store(trust.unwrap_or_default()).build();
        let builder = builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        match context {
            Ok(context) => builder.tls_context(context).build(),
            // By its source it never fails; the system's authorities are the stricter choice.
            Err(_never) => builder.build(),
        }
    }

    async fn collect(&self, mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
        let most = self.0.max_answer_size;
        match Limited::new(answer.take_body(), most).collect().await {
            Ok(body) => {
                *answer.body_mut() = SdkBody::from(body.to_bytes());
                Ok(answer)
            }
            Err(error) if error.is::<LengthLimitError>() => {
                Err(ConnectorError::other(AnswerTooLarge(most).into(), None))
            }
            Err(error) => Err(ConnectorError::io(error)),
        }
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        let bounded = || {
            SharedHttpConnector::new(Bounded {
                client: self.clone(),
                settings: settings.clone(),
                sleep: components.sleep_impl(),
                direct: OnceLock::new(),
                proxied: OnceLock::new(),
            })
        };
        self.0.connector.get_or_init(bounded).clone()
    }
}

/// A connector whose answers come whole, or not at all, and that goes through a proxy where the environment names one.
#[derive(Debug)]
struct Bounded {
    client: Http,
    settings: HttpConnectorSettings,
    sleep: Option<SharedAsyncSleep>,
    direct: OnceLock<Connector>,
    proxied: OnceLock<Connector>,
}

impl HttpConnector for Bounded {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.client.clone();
        let proxy = proxy(request.uri());
        let connector = if proxy.is_some() {
            self.proxied.get_or_init(|| client.connector(&self.settings, self.sleep.clone(), ProxyConfig::from_env()))
        } else {
            self.direct.get_or_init(|| client.connector(&self.settings, self.sleep.clone(), ProxyConfig::disabled()))
        };
        client.0.status.store(0, Relaxed);
        let answer = connector.call(request);
        HttpConnectorFuture::new(async move {
            let attempt = async {
                let answer = answer.await?;
                client.0.status.store(answer.status().as_u16(), Relaxed);
                client.collect(answer).await
            };
            let most = client.0.attempt_timeout;
            let attempt = time::timeout(most, attempt).await;
            let attempt = attempt.unwrap_or_else(|_elapsed| Err(ConnectorError::timeout(NoAnswer(most).into())));
            attempt.map_err(|error| failed(error, proxy))
        })
    }
}

/// Says what went wrong on the way to an answer.
fn failed(error: ConnectorError, proxy: Option<String>) -> ConnectorError {
    let refused = chain(&error).find_map(|error| match error.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(error)) => Some(InvalidCertificate::of(error)),
        _ => None,
    });
    if let Some(refused) = refused {
        return ConnectorError::user(refused.into());
    }
    match proxy {
        Some(proxy) if error.is_timeout() => ConnectorError::timeout(ThroughProxy(proxy, error.into()).into()),
        Some(proxy) => ConnectorError::io(ThroughProxy(proxy, error.into()).into()),
        None => error,
    }
}

/// Returns an error and those below it, the error that an I/O error wraps included: its `source` skips that one.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// Returns the proxy that the environment names for an endpoint, as `HOST:PORT`; none for this machine and for
/// metadata.
fn proxy(endpoint: &str) -> Option<String> {
    let endpoint: Uri = endpoint.parse().ok()?;
    if is_near(endpoint.host()?) {
        return None;
    }
    let intercepted = Matcher::from_env().intercept(&endpoint)?;
    let proxy = intercepted.uri();
    let port = proxy.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{}{port}", proxy.host()?))
}

/// Returns whether a host is this machine or a metadata address, which no proxy must see.
fn is_near(host: &str) -> bool {
    match host.trim_matches(['[', ']']).parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_link_local(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.segments().starts_with(&[0xfd00, 0x0ec2]),
        Err(_name) => host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_stands_before_this_machine_and_metadata() {
        for host in [
            "localhost",
            "127.0.0.1",
            "[::1]",
            "169.254.170.2",
            "169.254.169.254",
            "[fd00:ec2::254]",
            "[::ffff:127.0.0.1]",
        ] {
            assert!(is_near(host), "{host}");
        }
        for host in ["ssm.eu-west-1.amazonaws.com", "10.0.0.1", "[fd00:ec3::1]", "localhost.example"] {
            assert!(!is_near(host), "{host}");
        }
    }

    #[test]
    fn a_bundle_holds_authorities_and_nothing_else() {
        let file = |content: &str| {
            let file =
                std::env::temp_dir().join(format!("ssm-gateway-ca-{}-{:x}", std::process::id(), fastrand::u64(..)));
            fs::write(&file, content).unwrap();
            let read = CaBundle::read(file.clone());
            fs::remove_file(file).unwrap();
            read
        };
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        assert!(file(&pem).is_ok());
        for wrong in
            ["", "not PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", &key.serialize_pem()]
        {
            assert!(matches!(file(wrong), Err(CaBundleError::Content(..))), "{wrong}");
        }
        assert!(matches!(CaBundle::read("/nowhere".into()), Err(CaBundleError::Read(..))));
    }
}

//! A client of ssm-gateway, to be copied into a service.

use std::{collections::HashMap, error::Error, sync::Arc, time::Duration};

use async_stream::try_stream;
use futures_core::Stream;
use tokio::time::Instant;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};
use tonic_types::StatusExt as _;

use self::{
    proto::{
        DescribeInstanceInformationRequest, InstanceInformation, StreamInstanceInformationRequest,
        StreamInstanceInformationResponse, instance_information_service_client::InstanceInformationServiceClient,
    },
    retry::{RetryPolicy, in_time, is_unavailable},
};

mod retry;

/// The contract.
pub mod proto {
    tonic::include_proto!("ssm_gateway.v1");
}

/// A connection to a gateway. Clones share the connection.
#[derive(Debug, Clone)]
pub struct Gateway {
    client: InstanceInformationServiceClient<InterceptedService<Channel, Bearer>>,
    policy: Arc<RetryPolicy>,
}

/// Authenticates each call with a token.
#[derive(Debug, Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.0 {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

impl Gateway {
    /// Connects at the first call. With `ca` or a token it uses TLS and trusts `ca`, or else the system's authorities; a token
    /// authenticates each call. With neither, the connection is not encrypted.
    ///
    /// # Errors
    /// If the address, the certificate or the token is invalid.
    pub fn new(address: &str, ca: Option<&[u8]>, token: Option<&str>) -> Result<Self, Box<dyn Error>> {
        let endpoint = if ca.is_some() || token.is_some() {
            let tls = ClientTlsConfig::new();
            let tls = match ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
                None => tls.with_native_roots(),
            };
            Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?
        } else {
            Endpoint::from_shared(format!("http://{address}"))?
        };
        // Detects a connection that no longer answers.
        let endpoint =
            endpoint.http2_keep_alive_interval(Duration::from_mins(1)).keep_alive_timeout(Duration::from_secs(20));
        let token = token.map(|token| format!("Bearer {token}").parse()).transpose()?;
        let client = InstanceInformationServiceClient::with_interceptor(endpoint.connect_lazy(), Bearer(token));
        Ok(Self { client, policy: Arc::new(RetryPolicy::published()?) })
    }

    /// Yields all nodes that the request selects. Makes one call per page, each with this timeout.
    pub fn pages(
        &self,
        timeout: Duration,
        mut request: DescribeInstanceInformationRequest,
    ) -> impl Stream<Item = Result<InstanceInformation, Status>> + Send + use<> {
        let Self { client, policy } = self.clone();
        request.max_results.get_or_insert(50);
        try_stream! {
            loop {
                let describe = |request| {
                    let mut client = client.clone();
                    async move { client.describe_instance_information(request).await }
                };
                let page = policy.call(Instant::now() + timeout, &request, describe).await?.into_inner();
                for node in page.instance_information_list {
                    yield node;
                }
                request.next_token = page.next_token;
                if request.next_token.is_none() {
                    return;
                }
            }
        }
    }

    /// Yields all pages of all targets that the request selects, within `timeout`, and resumes a stream that breaks off. Sets the
    /// request's resume tokens itself.
    ///
    /// A slow reader slows the walk: the gateway sends, and fetches from AWS, little more than what the reader reads. A page may have
    /// the reason why its target is unreachable in place of nodes.
    pub fn stream(
        &self,
        timeout: Duration,
        mut request: StreamInstanceInformationRequest,
    ) -> impl Stream<Item = Result<StreamInstanceInformationResponse, Status>> + Send + use<> {
        let Self { client, policy } = self.clone();
        try_stream! {
            let end = Instant::now() + timeout;
            let mut tokens = HashMap::new();
            loop {
                request.resume_tokens = tokens.values().cloned().collect();
                let stream = |request| {
                    let mut client = client.clone();
                    async move { client.stream_instance_information(request).await }
                };
                let answer = policy.call(end, &request, stream).await;
                let mut pages = match answer {
                    // A stream that has begun waits for a gateway.
                    Err(status) if !tokens.is_empty() && is_unavailable(&status) => continue,
                    answer => answer?.into_inner(),
                };
                let mut has_begun = false;
                loop {
                    match in_time(end, pages.message()).await {
                        Ok(Some(page)) => {
                            has_begun = true;
                            tokens.insert(page.target.clone(), page.resume_token.clone());
                            yield page;
                        }
                        Ok(None) => return,
                        Err(status) if has_begun && is_unavailable(&status) => break,
                        Err(status) => Err(status)?,
                    }
                }
            }
        }
    }
}

/// The details of an error.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason, one word.
    pub reason: String,
    /// The invalid fields.
    pub fields: Vec<String>,
    /// How long to wait before a retry.
    pub retry_delay: Option<Duration>,
}

/// Decodes the details of an error. An error that does not come from the gateway has none.
#[must_use]
pub fn explain(status: &Status) -> Problem {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    Problem {
        reason: details.error_info().map(|info| info.reason.clone()).unwrap_or_default(),
        fields: violations.into_iter().map(|violation| violation.field).collect(),
        retry_delay: details.retry_info().and_then(|info| info.retry_delay),
    }
}

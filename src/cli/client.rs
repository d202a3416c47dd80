use std::{
    error::Error as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

use super::{
    diagnosis::{Stage, diagnose},
    error::CliError,
    gateway::Gateway,
};
use crate::{
    edge::Address,
    pem::{self, InvalidPair},
};

/// The longest wait for a TCP connection, and again for the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The gateway to call, and the credentials to call it with.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Server {
    /// The gateway's address: https://HOST:PORT, http://HOST:PORT, HOST:PORT without TLS, or unix:PATH.
    #[arg(long = "server", value_name = "URL", default_value = "http://127.0.0.1:50051", env = "SSM_GATEWAY_SERVER")]
    gateway: Gateway,
    /// The authorities to trust for the gateway's certificate, in PEM [default: the system's].
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_TLS_CA")]
    tls_ca: Option<PathBuf>,
    /// The client certificate to authenticate with, in PEM.
    #[arg(long, value_name = "FILE", requires = "key", env = "SSM_GATEWAY_CERT")]
    cert: Option<PathBuf>,
    /// The private key of the client certificate, in PEM.
    #[arg(long, value_name = "FILE", requires = "cert", env = "SSM_GATEWAY_KEY")]
    key: Option<PathBuf>,
    /// A file with the bearer token to authenticate with.
    #[arg(long, value_name = "FILE", env = "SSM_GATEWAY_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// A connection whose calls are authenticated.
pub(super) type Connection = InterceptedService<Channel, Authorization>;

/// Adds the bearer token, if there is one, to every call.
#[derive(Debug, Clone)]
pub(super) struct Authorization(Option<MetadataValue<Ascii>>);

impl Interceptor for Authorization {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(authorization) = &self.0 {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        Ok(request)
    }
}

impl Server {
    /// Returns the gateway at a local address that needs no credentials.
    pub(super) fn at(addr: &Address) -> Self {
        Self { gateway: addr.into(), tls_ca: None, cert: None, key: None, token_file: None }
    }

    /// Connects to the gateway.
    pub(super) async fn connect(&self) -> Result<Connection, CliError> {
        let server = &self.gateway;
        let unreached =
            |error: &tonic::transport::Error, stage| CliError::Connect(server.clone(), diagnose(error, stage));
        let stage = Stage { is_tls: server.is_tls(), is_connected: false };
        let endpoint = Endpoint::from_shared(server.url()).map_err(|error| unreached(&error, stage))?;
        let mut endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT);
        let is_tls = server.is_tls();
        if is_tls {
            endpoint = endpoint.tls_config(self.tls()?).map_err(CliError::Tls)?;
        } else if self.tls_ca.is_some() || self.cert.is_some() {
            return Err(CliError::NotTls(server.clone()));
        }
        let authorization = self.token_file.as_deref().map(|file| authorization("--token-file", file)).transpose()?;
        if authorization.is_some()
            && !is_tls
            && !server.is_unix()
            && !is_local(endpoint.uri().host().unwrap_or_default())
        {
            return Err(CliError::PlaintextToken(server.clone()));
        }
        let channel = endpoint.connect().await.map_err(|error| unreached(&error, stage))?;
        Ok(InterceptedService::new(channel, Authorization(authorization)))
    }

    /// Converts the status of a failed call: the gateway's error, or the reason why the connection broke.
    pub(super) fn failed(&self, status: Status) -> CliError {
        // tonic reports an HTTP/2 answer that is not gRPC by this message.
        if let Some((_, http)) = status.message().split_once("grpc-status header missing, mapped from ") {
            let why = format!("the server is not a gateway ({http}): is the address right?");
            return CliError::Connect(self.gateway.clone(), why);
        }
        match status.source() {
            Some(error) => {
                CliError::Broken(diagnose(error, Stage { is_tls: self.gateway.is_tls(), is_connected: true }))
            }
            None => CliError::Call(status.into()),
        }
    }

    fn tls(&self) -> Result<ClientTlsConfig, CliError> {
        let tls = match &self.tls_ca {
            Some(file) => {
                let authorities =
                    pem::authorities(&read("--tls-ca", file)?).map_err(|error| CliError::Pem(file.clone(), error))?;
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem::write_certificates(&authorities)))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let tls = tls.timeout(CONNECT_TIMEOUT);
        let (Some(cert_file), Some(key_file)) = (&self.cert, &self.key) else { return Ok(tls) };
        let (certs, key) =
            pem::pair(&read("--cert", cert_file)?, &read("--key", key_file)?).map_err(|error| match error {
                InvalidPair::Cert(error) => CliError::Pem(cert_file.clone(), error),
                InvalidPair::Key(error) => CliError::Pem(key_file.clone(), error),
            })?;
        Ok(tls.identity(Identity::from_pem(pem::write_certificates(&certs), pem::write_key(&key))))
    }
}

/// Returns whether the host is this machine, so that nobody else can read the connection.
pub(super) fn is_local(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Reads the bearer token from the file that `flag` names, and returns the `authorization` header for it.
pub(super) fn authorization(flag: &'static str, file: &Path) -> Result<MetadataValue<Ascii>, CliError> {
    let token = String::from_utf8(read(flag, file)?).unwrap_or_default();
    let value = format!("Bearer {}", token.trim()).parse::<MetadataValue<Ascii>>();
    let value =
        value.ok().filter(|_| !token.trim().is_empty() && token.trim().bytes().all(|byte| byte.is_ascii_graphic()));
    let mut value = value.ok_or_else(|| CliError::Token(file.to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Reads a file. The error names only the flag: its value may be a token, given by mistake in place of a file name.
fn read(flag: &'static str, file: &Path) -> Result<Vec<u8>, CliError> {
    fs::read(file).map_err(|error| CliError::File(flag, error))
}

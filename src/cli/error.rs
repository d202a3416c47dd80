use std::{error::Error, io, path::PathBuf};

use super::{gateway::Gateway, terminal::harmless};
use crate::{
    app::AppError,
    config::ConfigError,
    edge::ListenError,
    pem::InvalidPem,
    telemetry::{LogError, TraceError},
};

/// Why a command failed. Its message and those of its sources make one sentence.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Trace(#[from] TraceError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error("cannot bind the address that {0} sets")]
    Bind(&'static str, #[source] AppError),
    #[error("cannot bind the address that --listen sets: could not simulate SSM on {0}")]
    Simulate(std::net::SocketAddr, #[source] io::Error),
    #[error("could not register the signal handlers")]
    Signal(#[source] io::Error),
    #[error("{0} is a plaintext address: use https://…, or omit --tls-ca, --cert and --key")]
    NotTls(Gateway),
    #[error("cannot load the TLS files of --tls-ca, --cert and --key")]
    Tls(#[source] tonic::transport::Error),
    #[error("{0} is a plaintext address, where others could read the token: use https://…")]
    PlaintextToken(Gateway),
    #[error("could not read the file that {0} names")]
    File(&'static str, #[source] io::Error),
    #[error("{} cannot be used", .0.display())]
    Pem(PathBuf, #[source] InvalidPem),
    #[error("{} contains no bearer token: a token is one word of visible ASCII", .0.display())]
    Token(PathBuf),
    #[error("could not reach a gateway at {0}: {1}")]
    Connect(Gateway, String),
    #[error("the gateway answered {code:?}: {message}", code = .0.code(), message = harmless(.0.message()))]
    Call(Box<tonic::Status>),
    #[error("the connection to the gateway broke: {0}")]
    Broken(String),
    #[error("cannot read the gateway's status at {0}")]
    Admin(http::uri::Authority, #[source] Box<dyn Error + Send + Sync>),
    #[error("{0} is another machine, and others could read the token on its way: forward a local port to it instead")]
    PlaintextAdminToken(http::uri::Authority),
    #[error("the gateway did not answer in time")]
    Timeout,
    #[error("could not read the gateway's answer")]
    Answer(#[from] prost::DecodeError),
    #[error("the contract in this program is malformed")]
    Descriptors(#[from] prost_reflect::DescriptorError),
    #[error("the contract in this program has no InstanceInformation")]
    Contract,
    #[error("could not write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("could not write the output")]
    Output(#[from] io::Error),
    #[error("{} could not be reached", .0.join(", "))]
    Unreachable(Vec<String>),
    #[error("the gateway reports {0}")]
    NotServing(String),
}

impl CliError {
    /// Converts an error of `App::build`. If an address cannot be bound, the error names the flag that sets it.
    pub(super) fn naming(listen: &'static str, admin_listen: &'static str) -> impl FnOnce(AppError) -> Self {
        move |error| match error {
            AppError::Listen(ListenError::Bind(..)) => Self::Bind(listen, error),
            AppError::Admin(_) => Self::Bind(admin_listen, error),
            error => Self::App(error),
        }
    }
}

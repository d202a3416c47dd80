use crate::{
    admin, aws,
    config::ConfigError,
    edge::{FileError, ListenError},
    model::TargetName,
};

/// A failure to build or to reload a gateway.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration contradicts settings that are fixed while the gateway runs.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client of a target could not be built.
    #[error("target {0}: {1}")]
    Upstream(TargetName, aws::BuildError),
    /// The address for callers could not be bound, or its TLS files not loaded.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The address for administrators could not be bound.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The metrics have names that Prometheus does not accept.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The keys that JWTs are verified with could not be loaded.
    #[error("cannot load the authentication keys")]
    Authenticator(#[from] FileError),
    /// The descriptors of the contract could not be read.
    #[error("could not read the descriptors of the contract")]
    Descriptors(#[from] prost_reflect::DescriptorError),
}

//! The adapter that asks AWS's SSM for a target's pages: client, credentials, conversion, and the classification of the
//! SDK's errors.

mod build_error;
mod classify;
mod client;
mod config;
mod convert;
mod credential_source;
mod credentials;
mod environment;
mod http;
mod process;
mod provide;
mod repair;
mod ssm;

pub use self::{
    build_error::{AwsFilesError, BuildError},
    config::Config,
    credentials::CredentialsCache,
    http::CaBundleError,
    ssm::Ssm,
};

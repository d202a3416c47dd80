//! What proves a caller: bearer tokens, JWTs and client certificates.

mod authenticator;
mod certificate;
mod jwks;
mod jwt;

pub use self::{
    authenticator::{Authenticator, Config as AuthConfig, Token},
    jwt::{Config as JwtConfig, SigningAlgorithm},
};

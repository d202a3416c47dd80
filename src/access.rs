//! Who calls and what the policy lets them do, as plain values: principals, rules, globs and hashes of tokens.

pub(crate) mod glob;
mod method;
mod policy;
mod principal;
mod token_hash;

pub use self::{
    method::Method,
    policy::{Allow, Denied, Policy},
    principal::Principal,
    token_hash::{InvalidTokenHash, TokenHash},
};

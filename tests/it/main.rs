//! Drives the running gateway over real sockets, in front of the simulator or of somebody else's SSM.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::float_cmp,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test that meets what it does not expect must fail"
)]

mod admin;
mod alerts;
mod answers;
mod architecture;
mod aws;
mod chaos;
mod commands;
mod compression;
mod configuration;
mod connections;
mod contract;
mod credentials;
mod crowds;
mod deploy;
mod describe;
mod drain;
mod envoy;
mod fleets;
mod http;
mod limits;
mod list;
mod logs;
mod malformed;
mod outages;
mod peers;
mod policy;
mod program;
mod proofs;
mod provenance;
mod raw;
mod reload;
mod rollout;
mod secrets;
mod seeds;
mod server;
mod sharing;
mod signing;
mod stalls;
mod status;
mod stream;
mod support;
mod targets;
mod tls;
mod top;
mod tour;
mod traces;
mod unreached;
mod upstream;

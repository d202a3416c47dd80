//! Drives the running gateway over real sockets, in front of the simulator or of somebody else's SSM.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that meets what it does not expect must fail"
)]

mod architecture;
mod chaos;
mod contract;
mod describe;
mod fleets;
mod logs;
mod outages;
mod peers;
mod program;
mod provenance;
mod server;
mod sharing;
mod status;
mod stream;
mod support;
mod targets;
mod upstream;

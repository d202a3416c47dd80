//! Drives the running gateway over real sockets, in front of the simulator or of somebody else's SSM.

mod architecture;
mod contract;
mod describe;
mod logs;
mod peers;
mod program;
mod server;
mod status;
mod stream;
mod support;
mod upstream;

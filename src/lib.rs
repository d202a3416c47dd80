//! lib
pub mod app;
pub mod cli;
pub mod config;
pub mod edge;
pub mod listing;
pub mod model;
pub mod proto;
pub mod service;
pub mod simulator;
pub mod telemetry;
pub mod upstream;

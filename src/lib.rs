//! lib
pub mod edge;
pub mod listing;
pub mod model;
pub mod proto;
pub mod service;
pub mod simulator;
pub mod upstream;

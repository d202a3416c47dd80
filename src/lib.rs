//! lib
pub mod listing;
pub mod model;
pub mod proto;
pub mod service;
pub mod upstream;

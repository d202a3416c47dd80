//! The public contract as Rust types: generated from `proto/ssm_gateway/v1` at build time.

#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]

mod descriptors;

pub use self::descriptors::descriptors;

macro_rules! source {
    ($name:literal) => {
        (concat!("ssm_gateway/v1/", $name), include_str!(concat!("../proto/ssm_gateway/v1/", $name)))
    };
}

tonic::include_proto!("ssm_gateway.v1");

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, comments included: for reflection and for JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The contract as it is written, and a service config for its clients: names and contents, as in `proto/`.
pub const FILES: [(&str, &str); 4] = [
    source!("instance_information.proto"),
    source!("instance_information_service.proto"),
    source!("target_service.proto"),
    source!("service_config.json"),
];

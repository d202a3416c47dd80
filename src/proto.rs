//! The public contract as Rust types: generated from `proto/ssm_gateway/v1` at build time.

#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction, reason = "generated code")]

tonic::include_proto!("ssm_gateway.v1");
tonic::include_proto!("ssm_gateway.v1.TargetService");

/// The contract as an encoded `google.protobuf.FileDescriptorSet`, comments included: for reflection and for JSON.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

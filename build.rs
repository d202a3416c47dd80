//! Compiles `proto/` with protox (no protoc): messages and clients for `src/proto.rs`.
//! The server of instance information is `src/service.rs`, by hand: its answers are ready bytes, not messages. That of
//! targets is generated.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;
use tonic_prost_build::manual::{Builder, Method, Service};

const FILES: [&str; 3] = [
    "ssm_gateway/v1/instance_information.proto",
    "ssm_gateway/v1/instance_information_service.proto",
    "ssm_gateway/v1/target_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure().build_server(false).btree_map(".").compile_fds(descriptors)?;
    let list_targets = Method::builder()
        .name("list_targets")
        .route_name("ListTargets")
        .input_type("crate::proto::ListTargetsRequest")
        .output_type("crate::proto::ListTargetsResponse")
        .codec_path("tonic_prost::ProstCodec")
        .comment("Answers all targets, in the order of their names.")
        .build();
    let service = Service::builder().package("ssm_gateway.v1").name("TargetService").method(list_targets).build();
    Builder::new().build_client(false).compile(&[service]);
    Ok(())
}

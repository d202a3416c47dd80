//! Compiles `proto/` with protox (no protoc): messages and clients for `src/proto.rs`.
//! No servers: those are by hand (`src/service.rs`), since most answers are ready bytes, not messages.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

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
    Ok(())
}

//! Generates the client from the contract, without protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const PROTO: &str = "../../proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let contract = protox::compile(["ssm_gateway/v1/instance_information_service.proto"], [PROTO])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::copy(format!("{PROTO}/ssm_gateway/v1/service_config.json"), out.join("service_config.json"))?;
    // For the tests, which write ProtoJSON.
    fs::write(out.join("descriptors.binpb"), contract.encode_to_vec())?;
    tonic_prost_build::configure().build_server(false).compile_fds(contract)?;
    Ok(())
}

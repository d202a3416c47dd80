//! Compiles `proto/` with protox (no protoc): messages and client for `src/proto.rs`, the server for `src/service.rs`.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const FILES: [&str; 2] =
    ["ssm_gateway/v1/instance_information.proto", "ssm_gateway/v1/instance_information_service.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, ["proto"])?;
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;

    tonic_prost_build::configure().build_server(false).btree_map(".").compile_fds(descriptors.clone())?;

    // The server's answers are ready bytes, not messages: its own codec, and one type in place of both answers.
    let server = out.join("server");
    fs::create_dir_all(&server)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(server)
        .codec_path("crate::service::answer::AnswerCodec")
        .extern_path(".ssm_gateway.v1.DescribeInstanceInformationResponse", "crate::service::answer::Answer")
        .extern_path(".ssm_gateway.v1.StreamInstanceInformationResponse", "crate::service::answer::Answer")
        .extern_path(".ssm_gateway.v1", "crate::proto")
        .compile_fds(descriptors)?;
    Ok(())
}

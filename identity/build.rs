//! Compiles the Workload API's proto with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by the environment where to write"
)]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/workload.proto"], ["proto"])?;
    let folder = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    std::fs::write(folder.join("workload.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(false)
        .codec_path("crate::workload_api::codec::CompactCodec")
        .compile_fds(descriptors)?;
    Ok(())
}

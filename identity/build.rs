//! Compiles the protos of the Workload API and of SPIRE's server API with protox, so that no
//! `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

/// What of SPIRE's server API is used.
const SPIRE: [&str; 5] = [
    "proto/spire/types.proto",
    "proto/spire/agent.proto",
    "proto/spire/bundle.proto",
    "proto/spire/entry.proto",
    "proto/spire/svid.proto",
];

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
    tonic_prost_build::configure()
        // Tests play the server.
        .server_mod_attribute(".", "#[cfg(test)]")
        .include_file("spire.rs")
        .compile_fds(protox::compile(SPIRE, ["proto"])?)?;
    Ok(())
}

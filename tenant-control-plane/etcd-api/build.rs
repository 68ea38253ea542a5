//! Compiles the protocol with protox (no `protoc` needed).

use protox::prost::Message;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["rpc.proto", "lock.proto", "election.proto"], ["proto"])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors"), files.encode_to_vec())?;
    tonic_prost_build::configure()
        // Keys, values and snapshot blobs become `bytes::Bytes`: decoding a request then
        // borrows from the buffer that was received instead of copying each value.
        .bytes(".")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}

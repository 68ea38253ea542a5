//! Compiles the interface's proto files with protox: no `protoc` needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = protox::compile(["proto/images.proto", "proto/runtime.proto"], ["proto"])?;
    tonic_prost_build::configure().build_transport(true).compile_fds(files)?;
    Ok(())
}

//! Compiles the protocol without needing `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/host.proto");
    let descriptors = protox::compile(["host.proto"], ["proto"])?;
    // Maps sorted by key, so that equal states have equal bytes.
    tonic_prost_build::configure().btree_map(".").compile_fds(descriptors)?;
    Ok(())
}

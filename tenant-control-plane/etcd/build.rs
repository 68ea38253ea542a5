//! Compiles the messages that members exchange and store (`proto/peer.proto`).

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    println!("cargo::rerun-if-changed=../etcd-api/proto");
    let files = protox::compile(["peer.proto"], ["proto", "../etcd-api/proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        .extern_path(".etcdserverpb", "::etcd_api::pb::etcdserverpb")
        .extern_path(".mvccpb", "::etcd_api::pb::mvccpb")
        .extern_path(".authpb", "::etcd_api::pb::authpb")
        .emit_rerun_if_changed(false)
        .compile_fds(files)?;
    Ok(())
}

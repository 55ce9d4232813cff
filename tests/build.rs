//! Says where the bench's kernel programs are: the build script of `lb-user` compiled them.

fn main() {
    let object = std::env::var("DEP_LB_EBPF_BENCH").unwrap_or_default();
    println!("cargo:rustc-env=LB_BENCH_OBJECT={object}");
    println!("cargo:rerun-if-changed=build.rs");
}

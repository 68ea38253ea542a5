//! Some crates look libc's functions up by name at run time: ours must be found there too.

fn main() {
    for symbol in ["getrandom", "clock_gettime"] {
        println!("cargo::rustc-link-arg-bins=-Wl,--export-dynamic-symbol={symbol}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}

//! Checks and code generation for the workspace: `cargo xtask codegen [--check]`, `cargo xtask deps`.

mod codegen;
mod deps;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["codegen"] => codegen::write(),
        ["codegen", "--check"] => codegen::check(),
        ["deps"] => deps::check(),
        _ => bail!("usage: cargo xtask codegen [--check] | deps"),
    }
}

/// The workspace's root folder.
fn root() -> std::path::PathBuf {
    // Cargo says it again when it runs this: work trees that share a target folder may share the program.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    std::path::Path::new(&own).parent().expect("xtask lies in the workspace").to_path_buf()
}

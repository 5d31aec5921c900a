//! Prepares a crate that depends on `peft-core`, once: libtorch, where the compiler finds it (`LIBTORCH` in
//! `.cargo/config.toml`), and where the programs find it (a line of `build.rs`). Nothing that is there is overwritten.

mod build_script;
mod config;
mod libtorch;

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

const HELP: &str = "\
Usage: peft-setup, in the folder of a crate that depends on peft-core

  .cargo/config.toml  (of the workspace) gets LIBTORCH, the libtorch to build with
  build.rs            (of the package) gets the run path, by which programs find it

The libtorch is that of LIBTORCH, or of LIBTORCH_USE_PYTORCH=1; else the one of .cargo/config.toml; else the .libtorch/ of
the checkout of peft-rs that this program was built in; else one that python3 with pip fetches, for all crates of this
user, into ~/.local/share/peft-rs.";

fn main() -> ExitCode {
    prepare().unwrap_or_else(|error| {
        eprintln!("peft-setup: {error:#}");
        ExitCode::FAILURE
    })
}

fn prepare() -> Result<ExitCode> {
    if let Some(argument) = std::env::args_os().nth(1) {
        println!("{HELP}");
        let asked = argument == "--help" || argument == "-h";
        return Ok(if asked { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let (workspace, package) = (manifest(&["--workspace"])?, manifest(&[])?);
    let root = folder(&workspace)?;
    if checkout().is_some_and(|ours| root == ours) {
        bail!("peft-rs itself needs no set-up; run this in the folder of a crate of your own");
    }
    let mut config = config::Config::read(root)?;
    let libtorch = libtorch::choose(config.libtorch())?;
    println!("{}: LIBTORCH = {}", config.set(&libtorch)?.display(), libtorch.display());
    let (said, outcome) = build_script::provide(&package)?;
    println!("{said}");
    Ok(outcome)
}

/// The `Cargo.toml` that cargo would take here: of the package, or with `--workspace` of its workspace.
fn manifest(options: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["locate-project", "--message-format", "plain"]).args(options).stderr(Stdio::inherit());
    let run = command.output().context("cargo does not start")?;
    if !run.status.success() {
        bail!("there is no crate here; run this in the folder of its Cargo.toml");
    }
    Ok(String::from_utf8(run.stdout).context("the path of Cargo.toml is not UTF-8")?.trim_end().into())
}

fn folder(file: &Path) -> Result<&Path> {
    file.parent().with_context(|| format!("{} lies in no folder", file.display()))
}

/// The root of the sources that this program was built from, if they still lie where they did.
fn checkout() -> Option<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().filter(|root| root.join("peft-core").is_dir())
}

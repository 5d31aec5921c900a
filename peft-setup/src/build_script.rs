//! `build.rs`: the run path. Cargo hands link arguments on to nobody, so each package with programs needs it.

use anyhow::{Context, Result};
use std::path::Path;
use std::process::ExitCode;
use toml_edit::DocumentMut;

/// What `peft-core` tells the build scripts of its dependents.
const VARIABLE: &str = "DEP_PEFT_LINK_ARG";

/// What a package without a build script gets; the programs of this workspace have the same one.
const SCRIPT: &str = include_str!("../template/build.rs");

/// Writes the build script of the package of `manifest` if it has none, and says what there was to do and whether it is
/// done: a script of the user's own is left to the user.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn provide(manifest: &Path) -> Result<(String, ExitCode)> {
    let cannot = |what| move || format!("{} cannot be {what}", manifest.display());
    let text = std::fs::read_to_string(manifest).with_context(cannot("read"))?;
    let document: DocumentMut = text.parse().with_context(cannot("understood"))?;
    let Some(package) = document.get("package") else {
        let said = format!(
            "{} is a workspace: run this in each of its packages with programs too",
            manifest.display()
        );
        return Ok((said, ExitCode::SUCCESS));
    };
    let build = package.get("build");
    let script = manifest.with_file_name(build.and_then(|b| b.as_str()).unwrap_or("build.rs"));
    let shown = script.display();
    let left = |why: &str| {
        let line =
            SCRIPT.lines().filter(|line| line.starts_with("    ")).skip(1).collect::<Vec<_>>().join("\n");
        (format!("{shown} {why}. Left to do: let its main do\n{line}"), ExitCode::FAILURE)
    };
    Ok(match std::fs::read_to_string(&script) {
        Ok(text) if text.contains(VARIABLE) => (format!("{shown}: has the run path"), ExitCode::SUCCESS),
        Ok(_) => left("is your own"),
        Err(_) if build.is_some_and(|b| !b.is_str() && b.as_bool() != Some(true)) => {
            left("is not in use (`build`)")
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&script, SCRIPT).with_context(|| format!("{shown} cannot be written"))?;
            (format!("{shown}: written, for the run path"), ExitCode::SUCCESS)
        }
        Err(e) => return Err(e).with_context(|| format!("{shown} cannot be read")),
    })
}

//! Which libtorch: the user's, or one that is fetched.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

// Links to the scripts of the workspace, so that the package carries them.
const FETCH: [(&str, &str); 2] = [
    ("libtorch.sh", include_str!("../scripts/libtorch.sh")),
    ("fetch.py", include_str!("../scripts/fetch.py")),
];

/// The directory of the libtorch to build with, complete and absolute.
///
/// What the environment says comes first, then `configured`, what `.cargo/config.toml` says, then the one of the checkout
/// that this program was built in. A fetched one is shared by all crates of this user.
///
/// # Errors
/// Where what the environment names is no libtorch of the right version, and where the fetch fails.
pub fn choose(configured: Option<PathBuf>) -> Result<PathBuf> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return python();
    }
    // `cargo run` puts into the environment what the configuration says, which then is nobody's wish of now.
    let wished = std::env::var_os("LIBTORCH").filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(dir) = wished.filter(|dir| Some(dir) != configured.as_ref()) {
        let dir = std::path::absolute(dir)?;
        if let Some(fault) = fault(&dir) {
            bail!("LIBTORCH = {} {fault}; set it to a libtorch {}, or not at all", dir.display(), version());
        }
        return Ok(dir);
    }
    let there = [configured, crate::checkout().map(|root| root.join(".libtorch"))];
    match there.into_iter().flatten().find(|dir| fault(dir).is_none()) {
        Some(dir) => Ok(dir),
        None => fetch(),
    }
}

fn version() -> &'static str {
    FETCH[0].1.lines().find_map(|line| line.strip_prefix("version=")).unwrap_or_default()
}

/// What is wrong with `dir` as a libtorch.
fn fault(dir: &Path) -> Option<String> {
    let library = format!("lib/{}torch_cpu{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let needed = ["include/torch", library.as_str()];
    if let Some(part) = needed.into_iter().find(|part| !dir.join(part).exists()) {
        return Some(format!("has no {part}"));
    }
    let found = std::fs::read_to_string(dir.join("build-version")).ok()?; // PyTorch's own have none
    let number = found.trim().split('+').next().unwrap_or_default();
    (number != version()).then(|| format!("is libtorch {number}"))
}

/// That of the Python on `PATH`, as torch-sys finds it.
fn python() -> Result<PathBuf> {
    let python = if std::env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let code = "import torch; print(torch.__path__[0]); print(torch.__version__.split('+')[0])";
    let run = Command::new(python)
        .args(["-c", code])
        .output()
        .with_context(|| format!("{python} does not start"))?;
    let said = String::from_utf8_lossy(&run.stdout);
    let (Some(dir), Some(found)) = (said.lines().next(), said.lines().nth(1)) else {
        bail!(
            "LIBTORCH_USE_PYTORCH is set, and {python} has no torch: install {}, or unset it\n{}",
            version(),
            String::from_utf8_lossy(&run.stderr)
        );
    };
    if found != version() {
        bail!("LIBTORCH_USE_PYTORCH is set, and {python} has torch {found} instead of {}", version());
    }
    Ok(dir.into())
}

/// Fetches it unless it is there, by the workspace's script.
fn fetch() -> Result<PathBuf> {
    let of_user = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
    let data = of_user("XDG_DATA_HOME").or_else(|| Some(of_user("HOME")?.join(".local/share")));
    let folder = data.context("HOME is not set; set LIBTORCH to an unpacked libtorch")?.join("peft-rs");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    for (name, text) in FETCH {
        let file = folder.join(name);
        std::fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    let dir = folder.join(format!("libtorch-{}", version()));
    let run =
        Command::new("sh").arg(folder.join(FETCH[0].0)).arg(&dir).status().context("sh does not start")?;
    if !run.success() {
        bail!("there is no libtorch, and nothing is changed"); // the script has said why
    }
    Ok(dir)
}

//! Kills saves at each of their system calls, and prints what is left of what was there.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() -> anyhow::Result<()> {
    program::main()
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("system calls are traced on Linux on x86-64 alone")
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod program {
    use anyhow::{Context, Result};
    use clap::Parser;
    use std::io::{Write, stdin, stdout};
    use std::path::{Path, PathBuf};
    use tests::kills::{SCENES, Scene, Stage};
    use tests::trace::Call;

    /// Saves adapters, a model and a file over others, kills that at each system call, and prints a table: the call, what
    /// others then find in the directory, what peft-core loads. Fails where that is not all of the old or all of the new,
    /// or where the next save leaves anything else than what it saves
    #[derive(Parser)]
    struct Args {
        /// Only this one: OtherRank, OtherAlpha, First, Model, File or Finish
        #[arg(long, value_parser = scene)]
        scene: Option<Scene>,
        /// Also at calls that have nothing to do with files
        #[arg(long)]
        all: bool,
        #[arg(long, hide = true, num_args = 3)]
        child: Vec<PathBuf>,
    }

    fn scene(name: &str) -> Result<Scene, String> {
        let found = SCENES.into_iter().find(|s| format!("{s:?}") == name);
        found.ok_or_else(|| format!("one of {SCENES:?}"))
    }

    pub fn main() -> Result<()> {
        let args = Args::parse();
        tch::set_num_threads(1);
        if let [name, from, to] = args.child.as_slice() {
            return child(name, from, to);
        }
        let this = std::env::current_exe()?;
        for scene in SCENES.into_iter().filter(|s| args.scene.is_none_or(|only| only == *s)) {
            println!("{scene:?}");
            let stage = Stage::new(scene)?;
            let calls = stage.calls(&this)?;
            for n in (0..=calls.len()).filter(|n| args.all || calls.get(*n).is_none_or(Call::is_of_files)) {
                let outcome = stage.kill(&this, n)?;
                let call = outcome.call.map_or("(done)".to_owned(), |call| text(&call));
                println!("{n:4}  others: {:8} loaded: {:8} {call}", outcome.others, outcome.loaded);
            }
        }
        Ok(())
    }

    fn text(call: &Call) -> String {
        let short = |p: &PathBuf| {
            let text = p.display().to_string();
            text.split_once("/place").map_or(text.clone(), |(_, rest)| format!("DIR{rest}"))
        };
        format!("{} {}", call.name, call.paths.iter().map(short).collect::<Vec<_>>().join(" -> "))
    }

    fn child(name: &Path, from: &Path, to: &Path) -> Result<()> {
        let scene = scene(name.to_str().context("a name")?).map_err(anyhow::Error::msg)?;
        let work = scene.work(from, to)?;
        let mut out = stdout().lock();
        writeln!(out, "ready")?;
        stdin().read_line(&mut String::new())?;
        work()?;
        writeln!(out, "saved")?;
        Ok(())
    }
}

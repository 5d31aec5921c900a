//! The process that opens the inputs.

use crate::hostile::Mark;
use crate::hostile::cases::{Case, KINDS};
use crate::hostile::stage::Stage;
use crate::random::Random;
use anyhow::{Context, Result};
use nix::sys::resource::{Resource, setrlimit};
use peft_sys::memory;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// The first argument of a program that is to be a worker.
pub const WORKER: &str = "hostile-worker";

/// What the process may ask for beyond what it has once libtorch is there and a model was trained.
const ROOM: u64 = 1 << 30;

/// Opens the cases `first..last` of a seed, and says what comes of each on stderr. With `keep`, a case's files stay there.
pub fn work(seed: u64, first: usize, last: usize, keep: Option<&Path>) -> Result<()> {
    let root = tempfile::tempdir()?;
    let stage = Stage::new(root.path())?;
    memory::install();
    // Whatever is loaded once is loaded now.
    let warm = root.path().join("warm");
    let arguments = Case::new(&stage, KINDS[0], &mut Random::new(0), &warm, false)?.arguments;
    anyhow::ensure!(peft_cli::main(arguments) == ExitCode::SUCCESS, "what is not changed cannot be used");
    if keep.is_none() {
        let room = held()? + ROOM;
        setrlimit(Resource::RLIMIT_AS, room, room)?;
    }
    for case in first..last {
        // A case hangs on its number alone.
        let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(case as u64));
        let kind = KINDS[random.below(KINDS.len())];
        let dir = root.path().join(format!("case-{case}"));
        let made = Case::new(&stage, kind, &mut random, &dir, true)?;
        if let Some(keep) = keep {
            eprintln!("{}: {:?}", dir.display(), made.arguments);
            crate::hostile::stage::copy(&dir, keep)?;
        }
        // Results on stdout go nowhere; what is left of the case before is not counted.
        let before = memory::live();
        memory::reset_peak();
        eprintln!("{}", Mark::Begin { case, kind: format!("{kind:?}"), named: made.named });
        let code = peft_cli::main(made.arguments);
        let code = (0..=u8::MAX).find(|n| ExitCode::from(*n) == code).context("an exit code")?;
        eprintln!("{}", Mark::End { code, memory: memory::peak().saturating_sub(before) });
        fs::remove_dir_all(&dir)?;
    }
    Ok(())
}

/// Bytes of addresses that the process has.
fn held() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).context("VmSize")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
}

//! Does to trainings what happens to them: kills, signals, full disks, many steps. RELIABILITY.md tells what they stand.

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    tests::reliability::as_peft().unwrap_or_else(|| peft_core::program::exit(program::main().map(|()| true)))
}

#[cfg(not(target_os = "linux"))]
fn main() -> anyhow::Result<()> {
    anyhow::bail!("kills, limits and mounts are those of Linux")
}

#[cfg(target_os = "linux")]
mod program {
    use anyhow::{Result, ensure};
    use clap::{Parser, Subcommand};
    use nix::sys::signal::Signal;
    use std::path::PathBuf;
    use std::time::{Duration, Instant};
    use tests::hostile;
    use tests::reliability::{self, Room, Soak, Trial};

    /// Does to trainings by `peft train` what happens to them, and compares what they end with
    #[derive(Parser)]
    struct Args {
        #[command(subcommand)]
        what: What,
        /// A seed: the same one does the same again, as far as the system lets it
        #[arg(long, global = true, default_value_t = 1)]
        seed: u64,
    }

    #[derive(Subcommand)]
    enum What {
        /// Kills trainings at random moments, inside saving too, and goes on with them
        Kills {
            #[arg(long, default_value_t = 200)]
            kills: usize,
            /// Model: bert or llama; both, unless it is said
            #[arg(long)]
            family: Option<String>,
        },
        /// Stops trainings by signals
        Signals,
        /// Trains for many steps in one process, and looks at its memory
        Soak {
            #[arg(long, default_value_t = 20_000)]
            steps: u64,
        },
        /// Opens inputs that are made to do harm
        Hostile {
            #[arg(long, default_value_t = 10_000)]
            inputs: usize,
            /// Only this one, in this process; its files are copied to the directory that `--keep` names
            #[arg(long, requires = "keep")]
            only: Option<usize>,
            #[arg(long)]
            keep: Option<PathBuf>,
            /// Seconds that one may take
            #[arg(long, default_value_t = 10)]
            seconds: u64,
        },
        #[command(name = hostile::WORKER, hide = true)]
        HostileWorker { of: u64, first: usize, last: usize },
        /// Fills the disk, takes files away and damages them; as root, on file systems of its own as well
        Disk,
    }

    pub fn main() -> Result<()> {
        let args = Args::parse();
        let this = std::env::current_exe()?;
        let begun = Instant::now();
        match args.what {
            What::Kills { kills, family } => {
                let families = family.map_or(vec!["bert".into(), "llama".to_owned()], |family| vec![family]);
                for (at, family) in families.iter().enumerate() {
                    let count = (kills + at) / families.len();
                    let tally = reliability::kills(&Trial::new(&this, family)?, count, args.seed, |tally| {
                        if tally.kills % 10 == 0 {
                            eprintln!("{family}: {tally}");
                        }
                    })?;
                    println!("{family}: {tally}");
                }
            }
            What::Signals => {
                for family in ["bert", "llama"] {
                    let trial = Trial::new(&this, family)?;
                    let undisturbed = trial.undisturbed(&trial.path("undisturbed"))?;
                    for signal in [Signal::SIGTERM, Signal::SIGINT] {
                        reliability::stopped(&trial, signal, &undisturbed)?;
                        println!(
                            "{family}: {signal}: exit code 4, all saved, the end is the undisturbed one"
                        );
                    }
                    reliability::stopped_twice(&trial, &undisturbed)?;
                    println!("{family}: two signals: exit code 130, the end is the undisturbed one");
                }
            }
            What::Soak { steps } => {
                let soak = Soak::new(&Trial::new(&this, "bert")?, steps)?;
                println!("{soak}");
                soak.check()?;
            }
            What::Hostile { only: Some(case), keep, .. } => {
                hostile::work(args.seed, case, case + 1, keep.as_deref())?
            }
            What::Hostile { inputs, seconds, .. } => {
                let report = hostile::run(&this, args.seed, 0, inputs, Duration::from_secs(seconds))?;
                println!("{report}");
                ensure!(report.faults.is_empty(), "{} of {inputs} inputs did harm", report.faults.len());
            }
            What::HostileWorker { of, first, last } => return hostile::work(of, first, last, None),
            What::Disk => {
                let trial = Trial::new(&this, "bert")?;
                let undisturbed = trial.undisturbed(&trial.path("undisturbed"))?;
                let blocks: Vec<usize> = (0..64).step_by(2).collect();
                let failed = reliability::limited(&trial, &blocks, &undisturbed)?;
                println!(
                    "files of a limited length: {failed} of {} trainings failed, all went on",
                    blocks.len()
                );
                let count = reliability::files(&trial, args.seed, &undisturbed)?;
                println!("{count} damaged checkpoints were named and passed over");
                reliability::missing(&trial)?;
                println!("missing files were named");
                let room = Room::new(trial.path("room"), 512);
                if let Err(e) = &room {
                    println!("no file system of its own ({e}): a full and a read-only one were not tried");
                }
                if let Ok(room) = &room {
                    let failed = reliability::full(&trial, room, &undisturbed)?;
                    println!("a full disk: {failed} of 16 trainings failed, all went on");
                }
                reliability::unwritable(&trial, room.as_ref().ok(), &undisturbed)?;
                println!("places that cannot be written to were named");
            }
        }
        println!("{:.0} s", begun.elapsed().as_secs_f64());
        Ok(())
    }
}

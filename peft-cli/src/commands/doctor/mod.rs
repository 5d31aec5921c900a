//! `peft doctor`.

mod surroundings;

use crate::outcome::Outcome;
use crate::output::Output;
use anyhow::Result;
use clap::Args;
use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use peft_core::device::{self, CudaError, DeviceChoice, LIBTORCH};
use peft_core::tch;
use serde::Serialize;
use std::env;
use std::fs;
use std::path::Path;
use surroundings::{allocator, hub, ranks};

/// Looks at libtorch, devices, threads, memory and the Hub's cache, and says what is wrong and how to mend it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  peft doctor                    what there is
  peft doctor --device cuda:1    and whether that device can be used: exit code 3 if not
  peft doctor --json             a line of JSON for each thing

Exit code 3: something is wrong. What is merely not there, a GPU where none was asked for, is no fault.")]
pub struct Doctor {
    /// What a run is to use: cpu, cuda, cuda:N, or auto, which takes what there is
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
}

/// Whether a thing is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// Not there, and not needed.
    Absent,
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    what: &'static str,
    state: State,
    is: String,
    /// What to do, where something is wrong or would be better.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

impl Finding {
    fn ok(what: &'static str, is: impl Into<String>) -> Self {
        Self { what, state: State::Ok, is: is.into(), fix: None }
    }

    fn with(state: State, what: &'static str, is: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what, state, is: is.into(), fix: Some(fix.into()) }
    }
}

impl Doctor {
    pub fn run(&self, output: &Output) -> Result<Outcome> {
        // CUDA first: libtorch looks for it once.
        let mut findings = self.cuda();
        findings.insert(0, libtorch());
        findings.extend([threads(), memory(), allocator()]);
        findings.extend(hub());
        findings.extend(ranks());
        if output.json {
            for finding in &findings {
                output.result(finding, |_| "")?;
            }
        } else {
            output.result(&(), |()| table(&findings))?;
        }
        let wrong = findings.iter().any(|finding| finding.state == State::Wrong);
        Ok(if wrong { Outcome::Faults } else { Outcome::Done })
    }

    /// The CUDA half of libtorch, the driver, each device, and the device that was asked for.
    fn cuda(&self) -> Vec<Finding> {
        let found = device::load_cuda();
        let needed = matches!(self.device, DeviceChoice::Cuda(_));
        let lacking = if needed { State::Wrong } else { State::Absent };
        let mut findings = vec![match &found {
            Err(CudaError::NoLibrary(why)) => {
                let fix = format!(
                    "for a GPU: scripts/libtorch.sh --cuda, or LD_LIBRARY_PATH with the lib folder of a torch {LIBTORCH} \
                     with CUDA"
                );
                // The loader says the same of a library that is nowhere as of one that lacks a part.
                let is = if why.starts_with("libtorch_cuda") { "libtorch_cuda is not there" } else { why };
                Finding::with(lacking, "CUDA library", is, fix)
            }
            _ => Finding::ok("CUDA library", place("libtorch_cuda")),
        }];
        findings.push(match device::cuda_driver() {
            Ok((major, minor)) => Finding::ok("NVIDIA driver", format!("up to CUDA {major}.{minor}")),
            Err(_) => Finding::with(
                lacking,
                "NVIDIA driver",
                "libcuda.so.1 is not there",
                "for a GPU: the NVIDIA driver of this system",
            ),
        });
        let count = found.as_ref().map_or(0, |n| usize::try_from(*n).unwrap_or(0));
        for index in 0..count {
            findings.push(match device::cuda_device(index) {
                Ok(device) => {
                    Finding::ok("device", format!("cuda:{index}, {}, {}", device.name, bytes(device.memory)))
                }
                Err(_) => Finding::with(
                    State::Wrong,
                    "device",
                    format!("cuda:{index}"),
                    "see what `nvidia-smi` says",
                ),
            });
        }
        if found == Err(CudaError::NoDevice) {
            let fix = "see whether `nvidia-smi` lists one, and what CUDA_VISIBLE_DEVICES says";
            findings.push(Finding::with(lacking, "device", "no CUDA device", fix));
        }
        findings.push(match self.device.open() {
            Ok(tch::Device::Cuda(index)) => Finding::ok("--device", format!("{}: cuda:{index}", self.device)),
            Ok(_) => Finding::ok("--device", format!("{}: the CPU", self.device)),
            Err(_) if count == 0 => {
                Finding::with(State::Wrong, "--device", self.device.to_string(), "see above, or --device cpu")
            }
            Err(e) => Finding::with(State::Wrong, "--device", e.to_string(), "one of the devices above"),
        });
        findings
    }
}

fn libtorch() -> Finding {
    let what = "libtorch";
    let Some(path) = device::loaded("libtorch_cpu") else {
        return Finding::ok(what, format!("linked for {LIBTORCH}; this system does not say from where"));
    };
    let found = path.ancestors().skip(1).take(2).find_map(version);
    let is = format!("{}, {}", found.as_deref().unwrap_or("of no known version"), path.display());
    match found {
        Some(version) if version.split('+').next() == Some(LIBTORCH) => Finding::ok(what, is),
        _ => Finding::with(
            State::Wrong,
            what,
            is,
            format!(
                "build with a libtorch {LIBTORCH}: scripts/libtorch.sh fetches one; look at LD_LIBRARY_PATH too"
            ),
        ),
    }
}

/// What a libtorch's directory says of its version: a zip of PyTorch's in one way, a Python package in another.
fn version(dir: &Path) -> Option<String> {
    let number = |text: String| text.trim().to_owned();
    let python = |text: String| {
        let line = text.lines().find_map(|line| line.strip_prefix("__version__ = "))?;
        Some(line.trim_matches(['\'', '"']).to_owned())
    };
    let stamp = fs::read_to_string(dir.join("build-version")).ok().map(number);
    stamp.or_else(|| fs::read_to_string(dir.join("version.py")).ok().and_then(python))
}

fn place(library: &str) -> String {
    device::loaded(library).map_or_else(|| "there".into(), |path| path.display().to_string())
}

fn threads() -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let threads = tch::get_num_threads();
    let is = format!("{cores} cores for this process, {threads} threads of libtorch");
    if usize::try_from(threads).is_ok_and(|threads| threads <= cores) {
        return Finding::ok("threads", is);
    }
    let set = ["OMP_NUM_THREADS", "MKL_NUM_THREADS"].into_iter().find(|name| env::var_os(name).is_some());
    let fix = format!(
        "more threads than cores wait for each other: {} or --threads {cores}",
        set.unwrap_or("--threads auto")
    );
    Finding::with(State::Wrong, "threads", is, fix)
}

/// Below this a small model has no room.
const LITTLE: u64 = 1 << 30;

fn memory() -> Finding {
    let Ok(text) = fs::read_to_string("/proc/meminfo") else {
        return Finding::ok("memory", "this system does not say");
    };
    let kilobytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    let of = |name| kilobytes(name).unwrap_or(0).saturating_mul(1024);
    // A container may have less than its machine.
    let limit = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limit.into_iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
    let (total, free) = (of("MemTotal"), of("MemAvailable"));
    let limit = limit.filter(|limit| *limit < total);
    let bound = limit.map(|limit| format!(", {} for this container", bytes(limit))).unwrap_or_default();
    let is = format!("{}, {} available{bound}", bytes(total), bytes(free));
    if free.min(limit.unwrap_or(free)) >= LITTLE {
        Finding::ok("memory", is)
    } else {
        Finding::with(State::Wrong, "memory", is, "close other programs; `peft plan` says what a run needs")
    }
}

fn bytes(n: u64) -> String {
    format!("{:.1} GB", n as f64 / 1e9)
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    if table.width().is_none() {
        table.set_width(120); // no terminal says
    }
    table.set_header(["", "", "is", "to do"]);
    for finding in findings {
        let state = match finding.state {
            State::Ok => "ok",
            State::Absent => "-",
            State::Wrong => "WRONG",
        };
        table.add_row([finding.what, state, &finding.is, finding.fix.as_deref().unwrap_or_default()]);
    }
    table
}

//! The system calls of a child, and its death at one of them: ptrace, as strace does it. Registers are x86-64's.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A system call, and what it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name; that of the number, for a call that has nothing to do with files.
    pub name: String,
    /// A path, or two; of a call on a descriptor, what that is open on.
    pub paths: Vec<PathBuf>,
}

impl Call {
    /// Whether the call has to do with files.
    pub fn is_of_files(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether the call changes what is on disk, names or bytes; opening a file may make it.
    pub fn changes_files(&self) -> bool {
        let reads = [
            "read",
            "pread64",
            "fsync",
            "fdatasync",
            "flock",
            "stat",
            "lstat",
            "newfstatat",
            "statx",
            "fstat",
        ];
        let reads = reads.iter().chain(&["access", "readlink", "getdents64", "close"]);
        self.is_of_files() && !reads.into_iter().any(|name| self.name == *name)
    }
}

/// Which arguments of a call are of interest.
#[derive(Debug, Clone, Copy)]
enum Arg {
    Path(usize),
    Descriptor(usize),
}
use Arg::{Descriptor, Path};

/// The calls that have to do with files.
const FILES: &[(libc::c_long, &str, &[Arg])] = &[
    (libc::SYS_open, "open", &[Path(0)]),
    (libc::SYS_openat, "openat", &[Path(1)]),
    (libc::SYS_creat, "creat", &[Path(0)]),
    (libc::SYS_read, "read", &[Descriptor(0)]),
    (libc::SYS_pread64, "pread64", &[Descriptor(0)]),
    (libc::SYS_write, "write", &[Descriptor(0)]),
    (libc::SYS_writev, "writev", &[Descriptor(0)]),
    (libc::SYS_pwrite64, "pwrite64", &[Descriptor(0)]),
    (libc::SYS_copy_file_range, "copy_file_range", &[Descriptor(0), Descriptor(2)]),
    (libc::SYS_sendfile, "sendfile", &[Descriptor(1), Descriptor(0)]),
    (libc::SYS_fsync, "fsync", &[Descriptor(0)]),
    (libc::SYS_fdatasync, "fdatasync", &[Descriptor(0)]),
    (libc::SYS_ftruncate, "ftruncate", &[Descriptor(0)]),
    (libc::SYS_flock, "flock", &[Descriptor(0)]),
    (libc::SYS_fchmod, "fchmod", &[Descriptor(0)]),
    (libc::SYS_chmod, "chmod", &[Path(0)]),
    (libc::SYS_mkdir, "mkdir", &[Path(0)]),
    (libc::SYS_mkdirat, "mkdirat", &[Path(1)]),
    (libc::SYS_rmdir, "rmdir", &[Path(0)]),
    (libc::SYS_unlink, "unlink", &[Path(0)]),
    (libc::SYS_unlinkat, "unlinkat", &[Path(1)]),
    (libc::SYS_rename, "rename", &[Path(0), Path(1)]),
    (libc::SYS_renameat, "renameat", &[Path(1), Path(3)]),
    (libc::SYS_renameat2, "renameat2", &[Path(1), Path(3)]),
    (libc::SYS_link, "link", &[Path(0), Path(1)]),
    (libc::SYS_linkat, "linkat", &[Path(1), Path(3)]),
    (libc::SYS_symlink, "symlink", &[Path(0), Path(1)]),
    (libc::SYS_stat, "stat", &[Path(0)]),
    (libc::SYS_lstat, "lstat", &[Path(0)]),
    (libc::SYS_newfstatat, "newfstatat", &[Path(1)]),
    (libc::SYS_statx, "statx", &[Path(1)]),
    (libc::SYS_fstat, "fstat", &[Descriptor(0)]),
    (libc::SYS_access, "access", &[Path(0)]),
    (libc::SYS_readlink, "readlink", &[Path(0)]),
    (libc::SYS_getdents64, "getdents64", &[Descriptor(0)]),
    (libc::SYS_close, "close", &[Descriptor(0)]),
];

/// Runs a child that says it is ready in a line, reads one, does its work, and says so in a line. Its system calls during
/// the work are returned; at the beginning of the call `kill_at`, from 0, it is killed, and that call is the last one.
/// Without `kill_at`, or with the number of its calls, it is killed when it has done its work.
///
/// # Errors
/// Where tracing is forbidden, and where the child fails.
pub fn calls(command: &mut Command, kill_at: Option<usize>) -> Result<Vec<Call>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    let mut said = String::new();
    BufReader::new(child.stdout.as_mut().context("no stdout")?).read_line(&mut said)?;
    if said.is_empty() {
        let output = child.wait_with_output()?;
        bail!("the child: {}", String::from_utf8_lossy(&output.stderr));
    }
    let options = Options::PTRACE_O_EXITKILL | Options::PTRACE_O_TRACESYSGOOD;
    ptrace::seize(pid, options).context("tracing a child is forbidden here, so nothing can be killed")?;
    ptrace::interrupt(pid)?;
    waitpid(pid, None)?;
    child.stdin.as_mut().context("no stdin")?.write_all(b"\n")?;

    let mut calls = Vec::new();
    loop {
        match step(pid)? {
            // The line that it waited for.
            call if call.name == "read" && call.paths == [stream(pid, 0)] => {}
            call => {
                let done = call.name == "write" && call.paths == [stream(pid, 1)];
                if done || kill_at == Some(calls.len()) {
                    kill(pid, Signal::SIGKILL)?;
                    let status = waitpid(pid, None)?;
                    let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
                    ensure!(killed, "killed, the child is {status:?}");
                    calls.extend((!done).then_some(call));
                    return Ok(calls);
                }
                calls.push(call);
            }
        }
    }
}

fn stream(pid: Pid, fd: u64) -> PathBuf {
    std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default()
}

/// Goes on to the beginning of the next system call.
fn step(pid: Pid) -> Result<Call> {
    let mut signal = None;
    loop {
        ptrace::syscall(pid, signal.take())?;
        match waitpid(pid, None)? {
            WaitStatus::PtraceSyscall(_) => {
                let registers = ptrace::getregs(pid)?;
                // That is what the kernel has there before it knows better.
                if registers.rax.cast_signed() == -(Errno::ENOSYS as i64) {
                    return decode(pid, &registers);
                }
            }
            WaitStatus::Stopped(_, other) => signal = Some(other),
            WaitStatus::PtraceEvent(..) => {}
            other => bail!("the child ended before its work was done: {other:?}"),
        }
    }
}

fn decode(pid: Pid, r: &libc::user_regs_struct) -> Result<Call> {
    let args = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
    let number = r.orig_rax.cast_signed();
    let Some((_, name, of_interest)) = FILES.iter().find(|(n, ..)| *n == number) else {
        return Ok(Call { name: format!("syscall {number}"), paths: vec![] });
    };
    let path = |arg: &Arg| match arg {
        Descriptor(i) => Ok(stream(pid, args[*i])),
        Path(i) => text(pid, args[*i]).map(PathBuf::from),
    };
    Ok(Call { name: (*name).to_owned(), paths: of_interest.iter().map(path).collect::<Result<_>>()? })
}

/// A string in the child's memory.
fn text(pid: Pid, at: u64) -> Result<String> {
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem"))?;
    memory.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    BufReader::new(memory).read_until(0, &mut bytes)?;
    bytes.pop();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

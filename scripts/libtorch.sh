#!/bin/sh
# Usage: scripts/libtorch.sh [DIR]
#
# Puts a CPU libtorch into DIR (by default .libtorch in this repository, where .cargo/config.toml looks for it).
# It comes out of the Python package `torch`, which is unpacked and never installed: any Python 3.6 or newer with
# pip will do. DIR appears whole or not at all, and two runs at once fetch it once.
set -eu
version=2.11.0

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
ours=$root/.libtorch
dst=${1:-$ours}

# Already there: nothing to do.
found=
if [ -e "$dst/build-version" ]; then read -r found < "$dst/build-version" || :; fi
case $found in "$version" | "$version"+*) exit 0 ;; esac

help="Ways to provide libtorch $version:
  - run scripts/libtorch.sh where there is network, on the same kind of system, and copy its .libtorch/ here
  - set LIBTORCH to the directory of an unpacked libtorch $version
  - set LIBTORCH_USE_PYTORCH=1, with a Python on PATH that has torch $version"
fail() {
  printf '%s\n' "libtorch $version could not be fetched: $1" "$help" >&2
  exit 1
}

cuda_stubs=
case $(uname -s)-$(uname -m) in
  # libtorch_cpu.so of the Linux packages is linked against two small CUDA libraries; no GPU is needed.
  Linux-x86_64) download=530; disk=500; cuda_stubs=1; platforms='manylinux_2_28_x86_64 manylinux_2_25_x86_64 manylinux2014_x86_64' ;;
  Linux-aarch64) download=420; disk=350; cuda_stubs=1; platforms='manylinux_2_28_aarch64 manylinux_2_25_aarch64 manylinux2014_aarch64' ;;
  Darwin-arm64) download=80; disk=270; platforms=macosx_11_0_arm64 ;;
  *) fail "there is no torch $version package for $(uname -s) on $(uname -m)." ;;
esac

python3 -c 'import fcntl, zipfile' > /dev/null 2>&1 || fail 'python3 is missing.'
for pip in 'python3 -m pip' pip3 pip ''; do
  [ -n "$pip" ] || fail 'pip is missing (python3 -m pip).'
  if $pip --version > /dev/null 2>&1; then break; fi
done

requirements='torch==2.11.0
  --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
  --hash=sha256:d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6
  --hash=sha256:7b6a60d48062809f58595509c524b88e6ddec3ebe25833d6462eeab81e5f2ce4'
if [ -n "$cuda_stubs" ]; then
  requirements="$requirements
nvidia-cuda-cupti==13.0.85
  --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
  --hash=sha256:796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151
nvidia-cuda-runtime==13.0.96
  --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
  --hash=sha256:ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55"
fi

replace=0
[ "$dst" != "$ours" ] || replace=1
export HELP="$help" REQUIREMENTS="$requirements" PLATFORMS="$platforms"
exec python3 - "$version" "$dst" "$replace" "$download" "$disk" "$pip" << 'PYTHON'
import fcntl, glob, os, re, shutil, signal, subprocess, sys, tempfile, time, zipfile

version, dst, replace, download, disk, pip = sys.argv[1:]
dst = os.path.abspath(dst)
parent, name = os.path.split(dst)


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(why, log=()):
    lines = ["libtorch %s could not be fetched: %s" % (version, why), os.environ["HELP"]]
    if log:
        retry = "WARNING: Retrying"  # of a row of these the last will do
        log = [a for a, b in zip(log, list(log[1:]) + [""]) if not (a.startswith(retry) and b.startswith(retry))]
        lines += ["pip's last lines:"] + ["  " + line for line in log[-8:]]
    say("\n".join(lines))
    sys.exit(1)


def complete():
    try:
        with open(os.path.join(dst, "build-version")) as f:
            return f.read().strip().split("+")[0] == version
    except OSError:
        return False


def locked():
    """The lock beside `dst`. The system lets go of it when this process ends, however it ends."""
    path = dst + ".lock"
    while True:
        f = open(path, "a")
        try:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another run is fetching libtorch into %s: waiting for it" % dst)
                fcntl.flock(f, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: the rename at the end still keeps runs apart
            return None
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(f.fileno())):
            return f
        # its holder has removed the file we waited for: once more


def size(top):
    total = 0
    for folder, _, files in os.walk(top):
        for each in files:
            try:
                total += os.lstat(os.path.join(folder, each)).st_size
            except OSError:
                pass
    return total


def pip_download(tmp):
    wheels, log = os.path.join(tmp, "wheels"), os.path.join(tmp, "pip.log")
    requirements = os.path.join(tmp, "requirements.txt")
    with open(requirements, "w") as f:
        f.write(os.environ["REQUIREMENTS"].replace("\n  ", " \\\n  ") + "\n")
    command = pip.split() + ["download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", wheels, "--requirement", requirements]
    command += ["--implementation", "cp", "--python-version", "3.11", "--abi", "cp311", "--abi", "none"]
    for platform in os.environ["PLATFORMS"].split():
        command += ["--platform", platform]
    # pip's own temporary files go beside the destination too: /tmp is often small.
    env = dict(os.environ, TMPDIR=tmp, PIP_REQUIRE_VIRTUALENV="0")
    with open(log, "w") as out:
        run = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    told = time.time()
    try:
        while run.poll() is None:
            time.sleep(0.2)
            if time.time() - told >= 15:
                told = time.time()
                say("  %d of about %s MB" % (size(tmp) // 1000000, download))
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()
    if run.returncode != 0:
        with open(log, errors="replace") as f:
            fail("pip failed. Is there network?", [line.rstrip() for line in f if line.strip()])
    return glob.glob(os.path.join(wheels, "*.whl"))


# The CUDA half of the package and what belongs to Python stay packed. libtorch.so is replaced by a link, since the
# package's own one asks for libtorch_cuda.so.
LIBRARY = re.compile(r"(?:torch|nvidia/cu13)/lib/(lib[^/]+\.(?:so|dylib)[.\d]*)$")
UNUSED = re.compile(r"libtorch\.so|lib(torch_cuda\w*|torch_nvshmem|c10_cuda|caffe2_nvrtc|torch_python|torch_global_deps|shm)\.")
STUB = re.compile(r"lib(cudart|cupti)\.so")


def target(member):
    """Where a member of a package goes, or None."""
    if member.endswith("/"):
        return None
    if member.startswith("torch/include/"):
        return member[len("torch/"):]
    found = LIBRARY.match(member)
    if not found or UNUSED.match(found.group(1)):
        return None
    if member.startswith("nvidia/") and not STUB.match(found.group(1)):
        return None
    return "lib/" + found.group(1)


def unpack(wheels, out):
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as z:
            for member in z.namelist():
                to = target(member)
                if to is None:
                    continue
                to = os.path.join(out, to)
                os.makedirs(os.path.dirname(to), exist_ok=True)
                with z.open(member) as src, open(to, "wb") as f:
                    shutil.copyfileobj(src, f, 1 << 20)
        os.remove(wheel)
    lib = os.path.join(out, "lib")
    for link, to in ("libtorch.so", "libtorch_cpu.so"), ("libgomp.so", "libgomp.so.1"):
        if os.path.exists(os.path.join(lib, to)):
            os.symlink(to, os.path.join(lib, link))
    for each in "include/torch/csrc/api/include/torch/torch.h", "lib/libtorch.*", "lib/libtorch_cpu.*", "lib/libc10.*":
        if not glob.glob(os.path.join(out, each)):
            fail("the torch package has no %s." % each)
    with open(os.path.join(out, "build-version"), "w") as f:
        f.write(version)


def publish(tmp, out):
    for attempt in range(5):
        try:
            return os.rename(out, dst)
        except OSError:
            if complete():  # somebody else was faster
                return
            os.rename(dst, os.path.join(tmp, "old%d" % attempt))
    fail("%s is in use." % dst)


def fetch(alone):
    if alone:
        for left in glob.glob(glob.escape(dst) + ".tmp.*"):  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    tmp = tempfile.mkdtemp(prefix=name + ".tmp.", dir=parent)
    try:
        say("fetching libtorch %s with pip: about %s MB, into %s (about %s MB)" % (version, download, dst, disk))
        out = os.path.join(tmp, "out")
        unpack(pip_download(tmp), out)
        publish(tmp, out)
        say("libtorch %s is in %s" % (version, dst))
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def main():
    if replace != "1" and os.path.lexists(dst) and not (os.path.isdir(dst) and not os.listdir(dst)):
        fail("%s is there and is not libtorch %s; move it away first." % (dst, version))
    os.makedirs(parent, exist_ok=True)
    lock = locked()
    try:
        if not complete():
            fetch(bool(lock))
    finally:
        if lock:
            os.remove(lock.name)


for each in signal.SIGTERM, signal.SIGHUP:
    signal.signal(each, lambda number, _: sys.exit(128 + number))
try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
except (OSError, zipfile.BadZipFile) as e:
    fail("%s." % e)
PYTHON

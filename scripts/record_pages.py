#!/usr/bin/env python3
"""Records what sections print beside the lesson's lines, for notebooks-rs/tests/golden/pages.

    scripts/record_pages.py <directory of the programs> <program> ...

Each program runs with three seeds, and with the kernels of other processors (an Intel one's need Linux and cc). Words
and numbers that all runs have are recorded as they are; a number that differs becomes a reference to the fact that it
is, `{lora.losses/79:.3}`, or `{}` where no fact has it. Rounding errors are never recorded: another processor may have
others, or none.
tests/common/pages.rs reads the files.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:e-?\d+)?")
PARTS = ["tables", "mistakes", "what_to_see", "figures"]
SCALES = {"": 1.0, "*1e2": 1e2, "*1e-3": 1e-3, "*1e-6": 1e-6, "*1e-9": 1e-9}
# The program's own and the next.
SEEDS = 3
KERNELS = [
    {"ATEN_CPU_CAPABILITY": "avx2"},
    {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"},
]
# A measured number below this is rounding.
ROUNDING = 1e-4
# Bytes that a run was seen to hold: other builds of libtorch may hold others.
MEASURED = {"small.held", "small.peak"}
# Of the computer and the libtorch there: facts, and tables but for their first column.
HERE = {"cuda", "threads", "libtorch here"}


def leaves(value, at=""):
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, x in items for k, v in leaves(x, f"{at}/{key}" if at else key).items()}
    return {at: value}


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def same(values):
    """Equal, but for the last bits of a sum."""
    values = [leaves(v) for v in values]
    close = lambda a, b: a == b or is_number(a) and is_number(b) and abs(a - b) <= 1e-10 * abs(a)
    return all(v.keys() == values[0].keys() and all(close(v[k], values[0][k]) for k in v) for v in values)


def is_rounding(values):
    return all(isinstance(v, float) and abs(v) < ROUNDING for v in values)


def formats(token):
    """How a number may have been printed, and the name of that in a reference."""
    mantissa, _, exponent = token.partition("e")
    decimals = len(mantissa.partition(".")[2])
    if exponent:
        yield f":.{decimals}e", lambda v: re.sub(r"e(-?)\+?0*", r"e\1", f"{v:.{decimals}e}")
    else:
        yield f":.{decimals}", lambda v: f"{v:.{decimals}f}"
        if not decimals:
            yield ":,", lambda v: f"{v:,.0f}" if v == round(v) else None


class Page:
    def __init__(self, runs):
        self.runs = [{k: v for k, v in run.items() if k not in [*PARTS, "lines", "files"]} for run in runs]
        self.facts = [leaves(run) for run in self.runs]
        small = [v for f in self.facts for v in f.values() if is_rounding([v])]
        self.rounding = {show(v) for v in small for _, show in formats("0.0e0")}
        self.names = [k for k, v in self.facts[0].items() if is_number(v) and all(k in f for f in self.facts)]

    def token(self, tokens):
        measured = [k for k in MEASURED & set(self.names) if f"{self.facts[0][k]:,}" == tokens[0]]
        if measured:
            return "{" + measured[0] + ":,}"
        if tokens[0] in self.rounding and len(set(tokens)) == 1:
            return "{}"
        if len(set(tokens)) == 1:
            return tokens[0]
        # What all seeds have, but not all kernels, is rounding, whatever fact it looks like.
        if len(set(tokens[:SEEDS])) == 1:
            return "{}"
        for name in self.names:
            for suffix, scale in SCALES.items():
                values = [abs(f[name]) * scale for f in self.facts]
                for token in tokens:
                    for form, show in formats(token):
                        if [show(v) for v in values] == tokens:
                            return "{" + name + suffix + form + "}"
        return "{}"

    def text(self, texts):
        if len(set(texts)) > 1:
            for name in self.facts[0]:
                if [f.get(name) for f in self.facts] == texts:
                    return "{" + name + "}"
        words = [NUMBER.split(t) for t in texts]
        if any(w != words[0] for w in words):
            return "{*}"
        words = [w.replace("{", "{{").replace("}", "}}") for w in words[0]]
        tokens = [self.token(list(t)) for t in zip(*(NUMBER.findall(t) for t in texts))]
        # An error that three seeds share is still an error of what was drawn, and no rounding is one that was none here.
        drawn = "{}" in tokens
        none_here = lambda w, t: t == "0" and self.rounding and (w.endswith("by ") or words == ["", ""])
        loose = lambda w, t: drawn and w.endswith("± ") or none_here(w, t)
        tokens = ["{}" if loose(w, t) else t for w, t in zip(words, tokens)]
        return "".join(w + t for w, t in zip(words, [*tokens, ""]))

    def number(self, values):
        measured = [k for k in MEASURED & set(self.names) if self.facts[0][k] == values[0]]
        if measured:
            return "{" + measured[0] + "}"
        if is_rounding(values) and any(values):
            return "{}"
        if same(values):
            return values[0]
        for name in self.names:
            for suffix in ["", "*1e2"]:
                found = [f[name] * SCALES[suffix] for f in self.facts]
                if all(abs(a - b) <= 1e-12 * abs(b) for a, b in zip(found, values)):
                    return "{" + name + suffix + "}"
        return "{}"

    def many(self, lists):
        if any(len(x) != len(lists[0]) for x in lists):
            return "{*}"
        all_of_them = [self.any(list(x)) for x in zip(*lists)]
        pairs = all(isinstance(p, list) and len(p) == 2 and all(map(is_number, p)) for x in lists for p in x)
        points = pairs or all(is_number(p) for x in lists for p in x)
        if points and len(all_of_them) > 8 and "{}" in leaves(all_of_them).values():
            rising = pairs and all(a[0] < b[0] for x in lists for a, b in zip(x, x[1:]))
            return {"rising" if rising else "finite": len(all_of_them)}
        return all_of_them

    def any(self, values):
        first = values[0]
        if isinstance(first, dict) and first.get("title") in HERE:
            return first | {"rows": [[name] + ["{*}"] * len(cells) for name, *cells in first["rows"]]}
        if isinstance(first, dict):
            return {k: self.any([v[k] for v in values]) for k in first}
        if isinstance(first, list):
            return self.many(values)
        if isinstance(first, str):
            return self.text(values)
        return self.number(values) if is_number(first) else first

    def fact(self, name):
        values = [run[name] for run in self.runs]
        if name in HERE:
            return "{*}"
        rounding = any(is_rounding([x]) for v in values for x in leaves(v).values())
        if name == "seed" or same(values) and name not in MEASURED and not rounding:
            return values[0]
        if all(isinstance(v, list) and len(v) == len(values[0]) and all(map(is_number, v)) for v in values):
            return {"finite": len(values[0])}
        return "{*}" if not is_number(values[0]) else "{}"


def show(value, indent=0):
    """JSON with as much on a line as fits."""
    line = json.dumps(value, ensure_ascii=False)
    if len(line) + indent <= 110 or not isinstance(value, (dict, list)):
        return line
    pad, end = "\n" + " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict):
        items = (f"{json.dumps(k, ensure_ascii=False)}: {show(v, indent + 1)}" for k, v in value.items())
        return "{" + pad + f",{pad}".join(items) + end + "}"
    return "[" + pad + f",{pad}".join(show(v, indent + 1) for v in value) + end + "]"


def record(name, run):
    first = run()
    # A seed may be missing in the JSON; then any two others do.
    start = first.get("seed", 100)
    runs = [first] + [run("--seed", str(start + i)) for i in range(1, SEEDS)] + [run(**k) for k in KERNELS]
    page = Page(runs)
    facts = {"facts": {k: page.fact(k) for k in page.runs[0]}}
    return show(facts | {part: page.any([run[part] for run in runs]) for part in PARTS})


def main(programs, names):
    scripts = Path(__file__).parent
    out = scripts.parent / "notebooks-rs/tests/golden/pages"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        intel = f"{scratch}/intel_kernels.so"
        subprocess.check_call(["cc", "-shared", "-fPIC", "-o", intel, scripts / "intel_kernels.c"])
        KERNELS.append({"LD_PRELOAD": intel})
        for name in names:
            def run(*args, **kernels):
                command = [Path(programs) / name, "--json", *args]
                return json.loads(subprocess.check_output(command, env=os.environ | kernels))

            text = record(name, run)
            (out / f"{name}.json").write_text(text + "\n")
            print(f"{name}: {text.count('{}')} numbers without a fact")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

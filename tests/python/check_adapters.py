#!/usr/bin/env python
"""Opens adapters that Rust wrote (Peft::save) with Python PEFT and compares logits.

    cargo build -p tests --bin write_adapters
    python tests/python/check_adapters.py target/debug/write_adapters [DIR ...]

The binary writes one adapter a family and method of tests/golden (and of each DIR, laid out like tests/golden/llama). Each
is loaded with PeftModel.from_pretrained; a key that PEFT misses is an error. What PEFT saves again must have the same
tensors, bit by bit. Prints the largest difference of logits relative to the largest logit, family by method, and exits
with 1 above 1e-5.
"""

import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")
warnings.filterwarnings("error", message=".*missing adapter keys.*")

import torch
import transformers
from peft import PeftModel
from safetensors.torch import load_file

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()
torch.set_num_threads(1)
TOLERANCE = 1e-5


def open_base(dir):
    config = transformers.AutoConfig.from_pretrained(dir)
    cls = getattr(transformers, config.architectures[0])
    return cls.from_pretrained(dir, attn_implementation="eager").eval()


def saved_again(model, adapter):
    """What PEFT's own save has other than the file that it loaded."""
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
        ours, theirs = (load_file(Path(d) / "adapter_model.safetensors") for d in (adapter, again))
    # With bias: "all", PEFT saves a head's bias under the names of its copies as well, and never reads them.
    theirs = {k: t for k, t in theirs.items() if not {"modules_to_save", "original_module"} & set(k.split("."))}
    return [k for k in sorted(ours.keys() | theirs.keys()) if not same(ours.get(k), theirs.get(k))]


def same(a, b):
    return a is not None and b is not None and a.dtype == b.dtype and torch.equal(a, b)


def compare(base, adapter):
    rust = load_file(adapter / "logits.safetensors")
    model = PeftModel.from_pretrained(open_base(base), adapter).eval()
    # Before the forward pass: COFT's moves the parameters.
    other = saved_again(model, adapter)
    assert not other, f"PEFT saves something else as {other}"
    with torch.no_grad():
        logits = model(input_ids=rust["input_ids"], attention_mask=rust["attention_mask"]).logits
    return ((logits - rust["logits"]).abs().max() / rust["logits"].abs().max()).item()


def main(binary, *dirs):
    table, notes, worst = defaultdict(dict), [], 0.0
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([binary, out, *dirs], stdout=subprocess.PIPE, text=True, check=True)
        for line in map(json.loads, done.stdout.splitlines()):
            base, adapter, method = Path(line["base"]), Path(line["adapter"]), line["method"]
            family = adapter.parent.name
            try:
                assert not line["error"], f"not written: {line['error']}"
                error = compare(base, adapter)
            except Exception as e:
                notes.append(f"{family} {method}: {type(e).__name__}: {e}".splitlines()[0])
                error = float("inf")
            table[method][family] = error
            worst = max(worst, error)
    families = list(dict.fromkeys(f for row in table.values() for f in row))
    print(" " * 26 + "".join(f"{f:>10}" for f in families))
    for method in sorted(table):
        cells = (f"{table[method][f]:10.1e}" if f in table[method] else " " * 9 + "-" for f in families)
        print(f"{method:26}" + "".join(cells))
    print(*notes, sep="\n")
    return not worst <= TOLERANCE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

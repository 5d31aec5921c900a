#!/usr/bin/env python
"""Trains with `peft`, and opens what it writes with Python PEFT and transformers.

    cargo build -p peft-cli --bin peft -p tests --bin export
    python tests/python/check_trained.py target/debug/peft target/debug/export

For llama, gpt2 and bert of tests/golden and each method below: `peft train --merge` takes a few steps; the adapter is loaded
with PeftModel.from_pretrained (a key that PEFT misses is an error) and the merged model with from_pretrained. Logits of both
are those of the adapter in Rust, and the adapter changes them. Prints the largest difference
relative to the largest logit, and exits with 1 above 1e-5.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from peft import PeftModel
from safetensors.torch import load_file

from check_adapters import TOLERANCE, open_base, saved_again

GOLDEN = Path(__file__).parent.parent / "golden"
TOKENIZERS = {"llama": "llama", "gpt2": "llama", "bert": "bert"}
METHODS = {
    "lora": ["--set", "lora_dropout=0.1"],
    "dora": ["--method", "lora", "--set", "use_dora=true"],
    "rslora": ["--method", "lora", "--set", "use_rslora=true"],
    "lora_all": ["--method", "lora", "--set", "target_modules=all-linear"],
    "adalora": ["--set", "total_step=8", "--set", "tinit=1", "--set", "tfinal=2"],
    "ia3": [],
    "loha": [],
    "lokr": [],
    "oft": ["--set", "oft_block_size=8"],
    "vera": ["--set", "r=4"],
    "ln_tuning": [],
    "prefix": ["--set", "num_virtual_tokens=4"],
    "prompt": ["--set", "num_virtual_tokens=4"],
}
# What is no map on weights is not merged.
UNMERGED = {"prefix", "prompt"}
# PEFT has no LoHa, LoKr and OFT of GPT-2's Conv1D, and no default targets of LN tuning for BERT.
REFUSED = {("gpt2", "loha"), ("gpt2", "lokr"), ("gpt2", "oft"), ("bert", "ln_tuning")}


def data(path, classes):
    words = "the cat dog sat ran on a mat far away red blue small big".split()
    rng = random.Random(1)
    with open(path, "w") as file:
        for _ in range(24):
            row = [rng.choice(words) for _ in range(rng.randint(3, 10))]
            label = {"label": str(len(row) % 3)} if classes else {}
            file.write(json.dumps({"text": " ".join(row), **label}) + "\n")


def train(binary, work, family, method, more):
    model = work / family
    if not model.exists():
        shutil.copytree(GOLDEN / family / "base", model)
        shutil.copy(GOLDEN / "text" / TOKENIZERS[family] / "tokenizer.json", model)
        data(work / f"{family}.jsonl", family == "bert")
    out, merged = work / f"{family}-{method}", work / f"{family}-{method}-merged"
    command = [binary, "train", "--quiet", "--model", model, "--data", work / f"{family}.jsonl", "--output", out]
    command += ["--max-steps", "6", "--lr", "0.02", "--batch", "4"]
    command += [] if "--method" in more else ["--method", method]
    command += more + ([] if method in UNMERGED else ["--merge", merged])
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    return model, out, None if method in UNMERGED else merged


def in_rust(export, model, adapter):
    """Ids, and the logits that Rust has of them."""
    with tempfile.TemporaryDirectory() as dir:
        subprocess.run([export, "--logits", model, adapter, dir], check=True)
        return load_file(Path(dir) / "logits.safetensors")


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def compare(export, model, adapter, merged):
    expected = in_rust(export, model, adapter)
    ids = expected["input_ids"]

    def run(model):
        return of_words(model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits)

    def of_words(logits):
        # Without those of a prompt's virtual tokens, which stand in front.
        return logits[:, -ids.shape[1]:] if logits.ndim == 3 else logits

    with torch.no_grad():
        base = run(open_base(model))
        adapted = PeftModel.from_pretrained(open_base(model), adapter).eval()
        other = saved_again(adapted, adapter)
        assert not other, f"PEFT saves something else as {other}"
        found = run(adapted)
        assert distance(found, base) > 1e-4, "the training changed nothing"
        rust = of_words(expected["adapted"])
        errors = [distance(found, rust)]
        if merged:
            errors.append(distance(run(open_base(merged)), rust))
    return errors


def main(binary, export):
    table, notes, worst = defaultdict(dict), [], 0.0
    with tempfile.TemporaryDirectory() as work:
        for family in TOKENIZERS:
            for method, more in METHODS.items():
                if (family, method) in REFUSED:
                    continue
                try:
                    errors = compare(export, *train(binary, Path(work), family, method, more))
                except Exception as e:
                    notes.append(f"{family} {method}: {type(e).__name__}: {e}".splitlines()[0])
                    errors = [float("inf")]
                table[method][family] = errors
                worst = max(worst, *errors)
    print(f"{'method':12}" + "".join(f"{family:>22}" for family in TOKENIZERS) + "   (PEFT, merged in transformers)")
    for method, row in table.items():
        cells = (" ".join(f"{e:.1e}" for e in row.get(family, [])) or "-" for family in TOKENIZERS)
        print(f"{method:12}" + "".join(f"{cell:>22}" for cell in cells))
    print("\n".join(notes))
    print(f"largest difference {worst:.1e}")
    return worst > TOLERANCE


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

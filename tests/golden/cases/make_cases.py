#!/usr/bin/env python
"""Writes cases.json beside this script: what transformers makes of the folders here, each a config.json (or more) for
the weights of ../llama/base, of ../bert/base where it is a BERT.

    python make_cases.py

    short, long    sums of the logits and of their absolute values, for `ids` and for one row beyond 64 positions
    text           new tokens of generate(), with the folder's generation_config.json but for do_sample
    classes        logits of the classifier

float32 on CPU, eager attention, transformers 5.23.0. (A byte order mark, transformers refuses.)
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
IDS = torch.tensor([[5, 17, 2, 40, 9, 90, 33, 3], [60, 61, 8, 8, 12, 77, 4, 50]])
LONG = (torch.arange(90) * 7 % 91 + 3).unsqueeze(0)


def load(case, base, cls):
    with tempfile.TemporaryDirectory() as dir:
        shutil.copytree(HERE / case, dir, dirs_exist_ok=True)
        shutil.copy(HERE.parent / base / "base" / "model.safetensors", dir)
        return cls.from_pretrained(dir, attn_implementation="eager", dtype=torch.float32)


def sums(model, ids):
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    return [float(logits.sum()), float(logits.abs().sum())]


if __name__ == "__main__":
    cases = {}
    for case in ["infinity", "yarn", "dynamic", "pad_minus_one"]:
        model = load(case, "llama", AutoModelForCausalLM)
        cases[case] = {"short": sums(model, IDS), "long": sums(model, LONG)}
    model = load("generation", "llama", AutoModelForCausalLM)
    texts = [model.generate(row[None], do_sample=False, max_new_tokens=12)[0, 8:].tolist() for row in IDS]
    cases["generation"] = {"text": texts}
    model = load("id2label_int", "bert", AutoModelForSequenceClassification)
    with torch.no_grad():
        cases["id2label_int"] = {"classes": model(input_ids=IDS).logits.tolist()}
    lines = ",\n".join(f'  "{name}": {json.dumps(case)}' for name, case in cases.items())
    (HERE / "cases.json").write_text(f"{{\n{lines}\n}}\n")

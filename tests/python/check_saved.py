#!/usr/bin/env python
"""Opens merged models that Rust wrote (io::hub::save) with transformers and compares logits.

    cargo build -p tests --bin export
    python tests/python/check_saved.py target/debug/export

For each base of tests/golden and adapter it runs the binary, opens the directory by AutoConfig, checks that no weight
was missing, left over or newly made, and prints the largest difference relative to the largest logit. The tied bases get
an adapter with a trained head, whose merge must untie it. Exits with 1 above 1e-5.
"""

import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch
import transformers
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def open_with_transformers(dir):
    config = transformers.AutoConfig.from_pretrained(dir)
    cls = getattr(transformers, config.architectures[0])
    model, info = cls.from_pretrained(dir, attn_implementation="eager", output_loading_info=True)
    odd = {k: v for k, v in info.items() if v}
    assert not odd, f"{dir}: {odd}"
    return model.eval()


def trained_head(base, out):
    """A LoRA whose copy of the head differs from the word embedding."""
    torch.manual_seed(3)
    config = LoraConfig(task_type="CAUSAL_LM", r=2, modules_to_save=["lm_head"], init_lora_weights=False)
    model = get_peft_model(open_with_transformers(base), config)
    head = model.base_model.model.lm_head.modules_to_save.default.weight
    with torch.no_grad():
        head.add_(0.1 * torch.randn_like(head))
    model.save_pretrained(out)


def main(export):
    worst = 0.0
    with tempfile.TemporaryDirectory() as work:
        work = Path(work)
        cases = [(f, GOLDEN / f / "lora") for f in ("llama", "mistral", "qwen2", "gpt2", "bert", "roberta")]
        for family in ("qwen2", "gpt2"):
            trained_head(GOLDEN / family / "base", work / f"{family}-head")
            cases.append((family, work / f"{family}-head"))
        for i, (family, adapter) in enumerate(cases):
            out = work / f"out{i}"
            done = subprocess.run([export, GOLDEN / family / "base", adapter, out], capture_output=True, text=True)
            if done.returncode:
                print(f"{family:8} {adapter.name:11} NOT WRITTEN: {done.stderr.strip()}")
                worst = float("inf")
                continue
            rust = load_file(out / "logits.safetensors")
            model = open_with_transformers(out)
            with torch.no_grad():
                logits = model(input_ids=rust["input_ids"]).logits
            scale = rust["merged"].abs().max()
            errors = [((logits - rust[k]).abs().max() / scale).item() for k in ("merged", "adapted")]
            worst = max(worst, *errors)
            tied = getattr(model.config, "tie_word_embeddings", None)
            print(f"{family:8} {adapter.name:11} merged {errors[0]:.1e} adapted {errors[1]:.1e} tied {tied}")
    return worst > 1e-5


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))

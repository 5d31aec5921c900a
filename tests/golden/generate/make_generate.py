#!/usr/bin/env python
"""Writes cases.json beside this script: what transformers and PEFT compute on the golden bases.

    python make_generate.py

Each case has a base (a folder of tests/golden), changes of its config.json, an adapter (a folder of tests/golden) or
null, `ids` with `mask`, and

    greedy    new tokens of generate(do_sample=False), padded with `pad` behind an end
    logits    of the forward pass over `ids`, for the rows' real tokens alone (null where there is none)

float32 on CPU, eager attention, transformers 5.23.0, PEFT 0.21.2.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")

import torch
import transformers
from peft import PeftModel, PrefixTuningConfig, get_peft_model

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent
PAD, NEW = 0, 12

LINEAR = {"rope_theta": 5000.0, "rope_type": "linear", "factor": 3.0}
LLAMA3 = {
    "rope_theta": 500.0,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 40,
}
WINDOW = {"sliding_window": 5}
MIXED = {
    "use_sliding_window": True,
    "sliding_window": 4,
    "layer_types": ["full_attention", "sliding_attention"],
}

# name, base, changes, adapter, lengths of the rows, ids that end a row
CASES = [
    ("llama", "llama", {}, None, [7, 3, 5], []),
    ("llama_ends", "llama", {}, None, [7, 3, 5], "second"),
    ("llama_linear", "llama", {"rope_parameters": LINEAR}, None, [7, 3], []),
    ("llama_llama3", "llama", {"rope_parameters": LLAMA3}, None, [7, 3], []),
    ("llama_lora", "llama", {}, "llama/lora", [6, 2], []),
    ("llama_prompt", "llama", {}, "llama/prompt", [6, 6], []),
    ("llama_prefix", "llama", {}, "llama/prefix", [6, 6], []),
    ("gpt2", "gpt2", {}, None, [7, 3, 5], []),
    ("gpt2_lora", "gpt2", {}, "gpt2/lora", [6, 2], []),
    ("gpt2_prompt", "gpt2", {}, "gpt2/prompt", [6, 6], []),
    ("gpt2_prefix", "gpt2", {}, "gpt2/prefix", [6, 6], []),
    ("mistral", "mistral", {}, None, [7, 3, 5], []),
    ("mistral_window", "mistral", WINDOW, None, [8, 3, 5], []),
    ("mistral_window_prefix", "mistral", WINDOW, "generate/mistral_prefix", [6, 6], []),
    ("qwen2", "qwen2", {}, None, [7, 3, 5], []),
    ("qwen2_mixed", "qwen2", MIXED, None, [8, 3, 5], []),
]


def load(base, changes):
    config = transformers.AutoConfig.from_pretrained(GOLDEN / base / "base", **changes)
    cls = getattr(transformers, config.architectures[0])
    model = cls.from_pretrained(
        GOLDEN / base / "base", config=config, attn_implementation="eager", dtype=torch.float32
    )
    return model.eval()


def make_prefix():
    torch.manual_seed(5)
    dir = HERE / "mistral_prefix"
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    get_peft_model(load("mistral", WINDOW), config).save_pretrained(dir)
    (dir / "README.md").unlink(missing_ok=True)
    path = dir / "adapter_config.json"
    text = json.loads(path.read_text()) | {"base_model_name_or_path": None}
    path.write_text(json.dumps(text, indent=2, sort_keys=True))


def run(name, base, changes, adapter, lengths, ends):
    model = load(base, changes)
    if adapter:
        model = PeftModel.from_pretrained(model, GOLDEN / adapter)
        model.eval()
    torch.manual_seed(len(name))
    length = max(lengths)
    mask = torch.tensor([[0] * (length - n) + [1] * n for n in lengths])
    ids = torch.randint(3, 96, mask.shape) * mask
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    def generate(ends):
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            max_new_tokens=NEW,
            eos_token_id=ends or None,
            pad_token_id=PAD,
            use_cache=True,
        )
        return out[:, length:]

    if ends == "second":  # what the second and third row say after some steps
        free = generate([])
        ends = [int(free[1, 3]), int(free[2, 6])]
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        where = {} if adapter and ("pre" in adapter or "prompt" in adapter) else {"position_ids": positions}
        logits = model(input_ids=ids, attention_mask=mask, **where).logits
        greedy = generate(ends)
    logits = logits[:, logits.shape[1] - length :]
    real = mask.unsqueeze(-1)
    return {
        "name": name,
        "base": base,
        "changes": changes,
        "adapter": adapter,
        "ids": ids.tolist(),
        "mask": mask.tolist(),
        "ends": ends,
        "pad": PAD,
        "greedy": greedy.tolist(),
        # the last position and the mean over real ones pin the whole and stay small
        "last": [[round(v, 6) for v in row] for row in logits[:, -1].tolist()],
        "mean": [[round(v, 6) for v in row] for row in ((logits * real).sum(1) / real.sum(1)).tolist()],
    }


if __name__ == "__main__":
    make_prefix()
    cases = [run(*case) for case in CASES]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    for case in cases:
        print(case["name"], case["ends"], case["greedy"])

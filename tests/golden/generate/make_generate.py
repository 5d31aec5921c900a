#!/usr/bin/env python
"""Writes cases.json beside this script: what transformers and PEFT compute on the golden bases.

    python make_generate.py

Each case has a base (a folder of tests/golden), changes of its config.json, an adapter (a folder of tests/golden) or
null, `ids` with `mask`, and

    greedy    new tokens of generate(do_sample=False), padded with `pad` behind an end
    logits    of the forward pass over `ids`, for the rows' real tokens alone (null where there is none)
    settings  what generate() was given beside, as generation_config.json has it (of some cases)
    slow      new tokens of generate(use_cache=False), where they are others

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
DYNAMIC = {"rope_theta": 10000.0, "rope_type": "dynamic", "factor": 2.0}
YARN = {
    "rope_theta": 10000.0,
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
}
# every field of it
YARN_ALL = YARN | {
    "rope_theta": 500.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 4,
    "beta_slow": 0.5,
    "mscale": 0.8,
    "mscale_all_dim": 1.3,
    "truncate": False,
}
YARN_FACTOR = YARN | {"factor": 3.0, "original_max_position_embeddings": 8, "attention_factor": 1.7, "beta_fast": 3.0}
WINDOW = {"sliding_window": 5}
MIXED = {
    "use_sliding_window": True,
    "sliding_window": 4,
    "layer_types": ["full_attention", "sliding_attention"],
}

# name, base, changes, adapter, lengths of the rows, ids that end a row, settings (if any; of what is said without)
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
    ("llama_yarn", "llama", {"rope_parameters": YARN}, None, [7, 3], []),
    ("llama_yarn_long", "llama", {"rope_parameters": YARN}, None, [100, 60], []),
    ("llama_yarn_all", "llama", {"rope_parameters": YARN_ALL}, None, [50, 9], []),
    ("mistral_yarn_factor", "mistral", {"rope_parameters": YARN_FACTOR}, None, [30, 12], []),
    ("llama_dynamic", "llama", {"rope_parameters": DYNAMIC}, None, [7, 3], []),
    ("llama_dynamic_before", "llama", {"rope_parameters": DYNAMIC}, None, [60, 40], []),
    ("llama_dynamic_beyond", "llama", {"rope_parameters": DYNAMIC}, None, [100, 70], []),
    ("qwen2_dynamic", "qwen2", {"rope_parameters": DYNAMIC | {"factor": 3.5}}, None, [90], []),
    ("repetition", "llama", {}, None, [7, 3, 5], [], {"repetition_penalty": 1.1}),
    ("repetition_less", "gpt2", {}, None, [7, 3, 5], [], {"repetition_penalty": 0.7}),
    ("repetition_lora", "llama", {}, "llama/lora", [6, 2], [], {"repetition_penalty": 1.5}),
    ("repetition_prompt", "llama", {}, "llama/prompt", [6, 6], [], {"repetition_penalty": 1.5}),
    ("ngrams", "llama", {}, None, [7, 3, 5], [], {"no_repeat_ngram_size": 2}),
    ("ngrams_one", "llama", {}, None, [7, 7], [], {"no_repeat_ngram_size": 1}),
    ("bad_words", "llama", {}, None, [7, 3, 5], [], lambda said: {"bad_words_ids": [[said[0][0]], said[1][1:3], said[2][2:5]]}),
    ("biased", "llama", {}, None, [7, 3, 5], [], lambda said: {"sequence_bias": [[said[0][1:2], -1.5], [said[1][1:3], -4.0], [[12], 0.5]]}),
    ("at_least", "llama", {}, None, [7, 3, 5], "second", {"min_new_tokens": 9}),
    ("at_least_length", "llama", {}, None, [7, 3, 5], "second", {"min_length": 14}),
    (
        "suppressed",
        "llama",
        {},
        None,
        [7, 3, 5],
        [],
        lambda said: {"suppress_tokens": said[0][3:5] + [96], "begin_suppress_tokens": [said[1][0]]},
    ),
    ("forced", "llama", {}, None, [1], [], {"forced_bos_token_id": 44, "forced_eos_token_id": [33, 61]}),
    ("decayed", "llama", {}, None, [7, 3, 5], "second", {"exponential_decay_length_penalty": [1, 1.4]}),
    ("length", "llama", {}, None, [7, 3, 5], [], {"max_length": 11}),
    (
        "all_of_them",
        "llama",
        {},
        None,
        [7, 3, 5],
        "second",
        lambda said: {
            "repetition_penalty": 1.3,
            "no_repeat_ngram_size": 2,
            "bad_words_ids": [said[0][4:6]],
            "min_new_tokens": 8,
            "suppress_tokens": [said[2][2]],
            "begin_suppress_tokens": [said[1][0]],
        },
    ),
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


def run(name, base, changes, adapter, lengths, ends, settings=None):
    model = load(base, changes)
    if adapter:
        model = PeftModel.from_pretrained(model, GOLDEN / adapter)
        model.eval()
    torch.manual_seed(len(name))
    length = max(lengths)
    mask = torch.tensor([[0] * (length - n) + [1] * n for n in lengths])
    ids = torch.randint(3, 96, mask.shape) * mask
    positions = (mask.cumsum(1) - 1).clamp(min=0)

    dynamic = changes.get("rope_parameters", {}).get("rope_type") == "dynamic"

    def generate(ends, use_cache=True, **settings):
        if dynamic:  # a short call makes it forget the frequencies of earlier, longer ones
            model(input_ids=ids[:, :1])
        out = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=False,
            eos_token_id=ends or None,
            pad_token_id=PAD,
            use_cache=use_cache,
            **({} if "max_length" in settings else {"max_new_tokens": NEW}),
            **settings,
        )
        return out[:, length:]

    if ends == "second":  # what the second and third row say after some steps
        free = generate([])
        ends = [int(free[1, 3]), int(free[2, 6])]
    model.generation_config.eos_token_id = None
    with torch.no_grad():
        where = {} if adapter and ("pre" in adapter or "prompt" in adapter) else {"position_ids": positions}
        logits = model(input_ids=ids, attention_mask=mask, **where).logits
        free = generate(ends)
        if callable(settings):
            settings = settings(free.tolist())
        greedy = generate(ends, **(settings or {}))
        assert not settings or greedy.tolist() != free.tolist(), f"{name}: the settings change nothing"
        slow = generate(ends, use_cache=False) if dynamic else greedy
    logits = logits[:, logits.shape[1] - length :]
    real = mask.unsqueeze(-1)
    more = {"settings": settings} if settings else {}
    if slow.tolist() != greedy.tolist():
        more["slow"] = slow.tolist()
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
        **more,
    }


if __name__ == "__main__":
    make_prefix()
    cases = [run(*case) for case in CASES]
    lines = ",\n".join(json.dumps(case) for case in cases)
    (HERE / "cases.json").write_text(f"[\n{lines}\n]\n")
    for case in cases:
        print(case["name"], case["ends"], case["greedy"])

"""Adapters whose files have weights of the base inside of PEFT's wrappers, and what Python PEFT computes with them.

    make_wrapped_cases.py        (here; needs tests/python/requirements.txt)

PEFT writes these by itself: of a resized vocabulary the whole embedding and head, with the copies of `modules_to_save`
under three names, and below trained tokens; of an adapted head that is tied its frozen weight, beside a copy of the
embedding. `golden.safetensors` has `input_ids` and `logits`, of the adapter as it is loaded.
"""
import json
import pathlib
import shutil
import warnings

import torch
from peft import AdaLoraConfig, LoKrConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent


def base(family, vocab):
    folder = HERE.parent / "tied" / "base" if family == "tied" else HERE.parent / family / "base"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if vocab:
        torch.manual_seed(3)
        model.resize_token_embeddings(vocab)
    return model


def case(name, family, vocab, config, ids):
    config.task_type = "CAUSAL_LM"
    model = get_peft_model(base(family, vocab), config)
    torch.manual_seed(1)
    for _, p in sorted(model.named_parameters()):
        if p.requires_grad:
            p.data += 0.1 * torch.randn_like(p)
    shutil.rmtree(HERE / name, ignore_errors=True)
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink()
    path = HERE / name / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": "../base"}, indent=2))
    ids = torch.tensor(ids)
    with torch.no_grad():
        logits = PeftModel.from_pretrained(base(family, vocab), HERE / name).eval()(ids).logits
    save_file({"input_ids": ids, "logits": logits.contiguous()}, HERE / name / "golden.safetensors")


warnings.simplefilter("ignore")
torch.set_num_threads(1)
QV = ["q_proj", "v_proj"]
case("wrapped_copies", "llama", 40, LoraConfig(r=4, target_modules=QV, modules_to_save=["embed_tokens", "lm_head"]),
     [[5, 17, 2, 39, 33, 8]])
case("wrapped_tied_copy", "tied", 99, LoraConfig(r=4, target_modules=QV, modules_to_save=["embed_tokens"]),
     [[5, 17, 98, 60, 96, 8]])
case("wrapped_tied_tokens", "tied", 99, LoraConfig(r=4, target_modules=QV, trainable_token_indices=[96, 97, 98]),
     [[5, 17, 98, 60, 96, 8]])
case("wrapped_tied_head", "tied", None, LoKrConfig(r=4, target_modules=["lm_head"], modules_to_save=["embed_tokens"]),
     [[5, 17, 2, 60, 33, 8]])
case("wrapped_tied_adalora", "tied", None, AdaLoraConfig(
    target_modules=["q_proj"], total_step=100, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
     [[5, 17, 2, 60, 33, 8]])

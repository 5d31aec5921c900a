"""What Python PEFT computes for the adapters in this folder and in `../tied`, as `golden.safetensors` in each.

    make_adapter_cases.py        (here; needs tests/python/requirements.txt)

The adapters are as other programs and versions write them: names of modules that the model lacks, fields that PEFT
drops, keys in other spellings, a vocabulary that was resized. `resized.safetensors` has the rows that transformers draws.
"""
import pathlib
import warnings

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
IDS = torch.tensor([[5, 17, 2, 60, 33, 8], [1, 2, 3, 4, 5, 6]])


TIED = HERE.parent / "tied"


def base(family):
    return AutoModelForCausalLM.from_pretrained(HERE.parent / family / "base").eval()


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(ids).logits


def write(folder, ids, values):
    tensors = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "logits": values.contiguous()}
    save_file(tensors, folder / "golden.safetensors")


warnings.simplefilter("ignore")
torch.set_num_threads(1)
for folder in sorted(p.parent for p in [*HERE.glob("*/adapter_config.json"), *TIED.glob("*/adapter_config.json")]):
    if folder.name.startswith("wrapped_"):
        continue  # make_wrapped_cases.py
    if folder.name in ("automodel_adapter_bert", "llama_seqcls", "other_tasks_token_cls", "config_quirks_adapter_bom"):
        continue  # of other heads; and PEFT does not read a byte order mark
    model, ids = base("tied" if folder.parent == TIED else "llama"), IDS
    if folder.name == "resized_vocab_auto_saved":
        model.resize_token_embeddings(99)  # every row comes with the adapter
        ids = torch.tensor([[5, 17, 98, 60, 96, 8], [1, 2, 97, 4, 5, 6]])
    write(folder, ids, logits(PeftModel.from_pretrained(model, folder), ids))

rows = {}
for family in ("llama", "tied"):
    torch.manual_seed(3)
    model = base(family)
    torch.manual_seed(3)
    model.resize_token_embeddings(101)
    rows[f"{family}.words"] = model.get_input_embeddings().weight.detach().clone()
    rows[f"{family}.head"] = model.get_output_embeddings().weight.detach().clone()
    ids = torch.tensor([[5, 97, 100, 60, 96, 8]])
    rows[f"{family}.input_ids"] = ids
    rows[f"{family}.logits"] = logits(model, ids).clone()
save_file(rows, HERE / "resized.safetensors")

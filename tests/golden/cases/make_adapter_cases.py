"""What Python PEFT computes for the adapters in this folder, as `golden.safetensors` in each: `input_ids` and `logits`.

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


def base(family):
    folder = HERE / "tied_base" if family == "tied" else HERE.parent / family / "base"
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def logits(model, ids=IDS):
    with torch.no_grad():
        return model.eval()(ids).logits


def write(case, ids, values):
    save_file({"input_ids": ids, "logits": values.contiguous()}, HERE / case / "golden.safetensors")


warnings.simplefilter("ignore")
torch.set_num_threads(1)
for case in sorted(p.name for p in HERE.iterdir() if (p / "adapter_config.json").exists()):
    if case.startswith("wrapped_"):
        continue  # make_wrapped_cases.py
    if case in ("automodel_adapter_bert", "llama_seqcls", "other_tasks_token_cls", "config_quirks_adapter_bom"):
        continue  # of other heads; and PEFT does not read a byte order mark
    family = "tied" if case.startswith("tie") else "llama"
    model, ids = base(family), IDS
    if case == "resized_vocab_auto_saved":
        model.resize_token_embeddings(99)  # every row comes with the adapter
        ids = torch.tensor([[5, 17, 98, 60, 96, 8], [1, 2, 97, 4, 5, 6]])
    write(case, ids, logits(PeftModel.from_pretrained(model, HERE / case), ids))

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

"""tests/golden/pickle: files as torch.save writes them, and what is in them. evil.bin would run a program if it were trusted.

    python make_pickles.py tests/golden
"""

import collections
import json
import os
import pathlib
import shutil
import sys

import peft
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

golden = pathlib.Path(sys.argv[1])
out = golden / "pickle"
out.mkdir(exist_ok=True)
torch.manual_seed(1)

# Every dtype, and every way in which a tensor can lie in its storage.
x = torch.randn(6, 5)
block = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
weights = collections.OrderedDict(
    f32=x,
    f64=x.double(),
    f16=x.half(),
    bf16=x.bfloat16(),
    i64=torch.arange(-3, 3),
    i32=torch.arange(-3, 3, dtype=torch.int32),
    i16=torch.arange(-3, 3, dtype=torch.int16),
    i8=torch.arange(-3, 3, dtype=torch.int8),
    u8=torch.arange(6, dtype=torch.uint8),
    bool=torch.tensor([True, False, True]),
    tied=x,
    transposed=x.t(),
    rows=x[2:4],
    columns=x[:, 1:3],
    every_other=x[::2, ::3],
    permuted=torch.randn(2, 3, 4).permute(2, 0, 1),
    unit=x[:, None, 2:3],
    diagonal=x[:5].diagonal(),
    positions=torch.arange(7).expand(1, -1),
    scalar=torch.tensor(2.5),
    empty=torch.zeros(0, 4),
    parameter=torch.nn.Parameter(torch.randn(3, 2).t()),
)
torch.save(weights, out / "weights.bin")
save_file({k: t.detach().clone().contiguous() for k, t in weights.items()}, out / "weights.safetensors")
small = {"w": x[:2, :2].clone()}
for protocol in (4, 5):
    torch.save(small, out / f"protocol{protocol}.bin", pickle_protocol=protocol)
torch.serialization.set_crc32_options(False)
torch.save(small, out / "no_crc.bin")
torch.serialization.set_crc32_options(True)
torch.save(block.state_dict(), out / "module.bin")  # with the versions of its modules
save_file(block.state_dict(), out / "module.safetensors")

# What is refused.
torch.save(small, out / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"epoch": 3, "lr": 1e-3, "state_dict": small}, out / "checkpoint.bin")
torch.save({"w": x.to(torch.float8_e4m3fn)}, out / "float8.bin")
torch.save(x, out / "tensor.bin")
torch.save(block, out / "object.bin")
torch.jit.save(torch.jit.script(torch.nn.Identity()), out / "script.bin")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


torch.save({"w": x, "evil": Evil()}, out / "evil.bin")

# Models and an adapter.
for kind, name, dtype in (
    (AutoModelForSequenceClassification, "bert", torch.float16),
    (AutoModelForCausalLM, "llama", torch.bfloat16),
):
    model = kind.from_pretrained(golden / name / "base").to(dtype)
    (out / name).mkdir(exist_ok=True)
    shutil.copy(golden / name / "base" / "config.json", out / name)
    state = model.state_dict()
    if name == "bert":
        torch.save(state, out / name / "pytorch_model.bin")
        continue
    shards = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    keys = list(state)
    halves = [keys[: len(keys) // 2], keys[len(keys) // 2 :]]
    for shard, half in zip(shards, halves):
        torch.save({k: state[k] for k in half}, out / name / shard)
    index = {
        "metadata": {"total_size": sum(t.nbytes for t in state.values())},
        "weight_map": {k: shard for shard, half in zip(shards, halves) for k in half},
    }
    (out / name / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")

model = AutoModelForCausalLM.from_pretrained(golden / "llama/base")
model = peft.PeftModel.from_pretrained(model, golden / "llama/lora")
model.save_pretrained(out / "lora", safe_serialization=False)
(out / "lora/README.md").unlink()
theirs = torch.load(out / "lora/adapter_model.bin", weights_only=True)
assert all(torch.equal(theirs[k], t) for k, t in load_file(golden / "llama/lora/adapter_model.safetensors").items())

"""Fresh adapters of virtual tokens, as PEFT draws them after a fixed seed: OUT.safetensors for the golden Llama base.

    python make_starts.py tests/golden/llama/base tests/golden/llama/starts.safetensors
"""

import sys

import peft
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

base, out = sys.argv[1:]
prompt = {"num_virtual_tokens": 4, "task_type": "CAUSAL_LM"}
configs = {
    "prompt": peft.PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **prompt),
    "prompt_random": peft.PromptTuningConfig(**prompt),
    "ptuning": peft.PromptEncoderConfig(encoder_hidden_size=24, **prompt),
    "ptuning_lstm": peft.PromptEncoderConfig(
        encoder_hidden_size=12, encoder_reparameterization_type="LSTM", **prompt
    ),
    "prefix": peft.PrefixTuningConfig(**prompt),
    "prefix_proj": peft.PrefixTuningConfig(prefix_projection=True, encoder_hidden_size=24, **prompt),
    "adaption_prompt": peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=2, task_type="CAUSAL_LM"),
}
tensors = {}
for name, config in configs.items():
    model = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(5)
    for key, p in peft.get_peft_model(model, config).named_parameters():
        if p.requires_grad:
            tensors[f"{name}/{key.replace('prompt_encoder.default.', 'encoder.')}"] = p.detach().clone()
save_file(tensors, out)

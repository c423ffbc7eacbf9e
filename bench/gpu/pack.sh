#!/usr/bin/env bash
# Packs vLLM and Larder for a GPU host (Hopper, x86-64) without network that has
# CPython 3.12, CUDA 13, torch 2.11, Triton and transformers.
# usage: bench/gpu/pack.sh WORKDIR OUTDIR [VERSION]
# VERSION: of vLLM, else that of requirements.txt. 0.25.1 is built for torch 2.11 as well,
# 0.32.0 for 2.13, though 2.11 has all symbols that its libraries ask for: not run.
# OUTDIR receives engine.tar.xz (what requirements.txt names, ready to import; changes only
# with it, and is kept if it is there) and larder.tar.xz (this tree's commit, with static
# binaries in bin/). Other versions want other folders.
# There: mkdir site larder && tar xJf engine.tar.xz -C site && tar xJf larder.tar.xz -C larder
#        cd larder && PYTHONPATH=../site:connector/python/src python3 bench/gpu/engine.py ...
# WORKDIR keeps downloads (330 MB). Needs pip, Go, 2 GB of disk; takes 2 minutes.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)
work=$1 out=$2 version=${3:-}
mkdir -p "$work/wheels" "$out"
change="${version:+s/^vllm==.*/vllm==$version/}"
# Another name of the same module.
if [[ $version == 0.32.* ]]; then change+=';s/^openai-harmony==.*/oss-harmony==0.0.11/'; fi
sed "$change" "$here/requirements.txt" >"$work/requirements.txt"

if [ ! -f "$out/engine.tar.xz" ]; then
  select=(--no-deps --only-binary=:all: --implementation cp --python-version 3.12)
  for p in manylinux_2_31_x86_64 manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 \
    manylinux2014_x86_64 manylinux1_x86_64 any; do select+=(--platform "$p"); done
  python3 -m pip download -q "${select[@]}" -d "$work/wheels" -r "$work/requirements.txt"
  rm -rf "$work/site"
  python3 -m pip install -q "${select[@]}" --no-index --no-compile -f "$work/wheels" --target "$work/site" \
    -r "$work/requirements.txt"
  # FlashAttention 3 is what Hopper uses; what else goes is large, and not needed for it.
  (cd "$work/site/vllm" && rm -rf vllm_flash_attn/_vllm_fa2_C* _flashmla* _qutlass* vllm-rs _rust_tool_parser* \
    third_party/deep_gemm third_party/fmha_sm100 entrypoints/serve/instrumentator/static)
  python3 "$here/slim.py" "$work"/site/vllm/_{moe_C,C}_stable*.so "$work"/site/vllm/vllm_flash_attn/_vllm_fa3_C*.so
  # Structured output is imported but not used: an empty stand-in is enough.
  mkdir -p "$work/site/xgrammar"
  for module in __init__ structural_tag openai_tool_call_schema; do
    printf 'def __getattr__(name):\n    if name.startswith("__"):\n        raise AttributeError(name)\n    return type(name, (), {})\n' \
      >"$work/site/xgrammar/$module.py"
  done
  tar c --sort=name -C "$work/site" . | xz -T2 -3 --block-size=24MiB >"$out/engine.tar.xz.tmp"
  mv "$out/engine.tar.xz.tmp" "$out/engine.tar.xz"
fi

rm -rf "$work/larder"
mkdir -p "$work/larder/bin"
git -C "$top" archive HEAD | tar x -C "$work/larder"
(cd "$top" && CGO_ENABLED=0 go build -ldflags='-s -w' -o "$work/larder/bin/" ./cmd/larderd ./cmd/larder)
tar c -C "$work/larder" . | xz -T2 -3 --block-size=24MiB >"$out/larder.tar.xz"
ls -l "$out"

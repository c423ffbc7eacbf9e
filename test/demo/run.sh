#!/usr/bin/env bash
# make demo: checks what the machine must have, installs the rest, runs demo.py.
#
# MODEL names a local model directory, PYTHON the interpreter (3.11).
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3.11}

packages=() missing=()
[ "$(uname -sm)" = "Linux x86_64" ] || missing+=("Linux on x86-64 (this is $(uname -sm))")
grep -qw avx2 /proc/cpuinfo || missing+=("a CPU with AVX2")
goversion=$(go env GOVERSION 2>/dev/null || true)
[[ $goversion =~ ^go1\.(2[6-9]|[3-9][0-9]) ]] || missing+=("Go 1.26 (found: ${goversion:-none}): https://go.dev/dl")
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || packages+=(python3.11)
"$python" -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3.11-venv)
command -v make >/dev/null || packages+=(make)
command -v gcc >/dev/null || packages+=(gcc)
{ command -v nm && command -v readelf; } >/dev/null || packages+=(binutils)
/sbin/ldconfig -p | grep 'libnuma\.so\.1' >/dev/null || packages+=(libnuma1)
if ((${#missing[@]})); then printf 'demo: needs %s\n' "${missing[@]}" >&2; fi
if ((${#packages[@]})); then echo "demo: apt-get install -y ${packages[*]}" >&2; fi
((${#missing[@]} + ${#packages[@]} == 0)) || exit 1

PYTHON=$python test/engine/install.sh .cache/engine
echo "demo: building larderd and larder"
make --no-print-directory build
exec .cache/engine/bin/python test/demo/demo.py --model "${MODEL:-}"

#!/usr/bin/env bash
# Runs every Go fuzz target of the module for the given time, one after another.
#
#   tools/fuzz.sh TIME        TIME as go test's -fuzztime takes it
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?time for each target, such as 10s}
targets=$(git ls-files -co --exclude-standard -- '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' | sort)
[ -n "$targets" ] || { echo "no fuzz target found" >&2; exit 1; }
count=0
while IFS=: read -r file func; do
  name=${func#func }
  echo "== $name in $(dirname "$file")"
  go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 50x "./$(dirname "$file")"
  count=$((count + 1))
done <<<"$targets"
echo "fuzz: $count passed, 0 failed"

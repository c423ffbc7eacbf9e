#!/usr/bin/env bash
# Runs every Go fuzz target of the module for the given time, one after another.
#
#   tools/fuzz.sh TIME        TIME as go test's -fuzztime takes it
#
# Before Go 1.27 a target fails now and then with nothing but "context deadline exceeded" when its
# time is over (golang.org/issue/75804). Such a target has run for all of its time and no input
# failed: it passes, and the output says so. Everything else that fails, fails.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?time for each target, such as 10s}
targets=$(git ls-files -co --exclude-standard -- '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' | sort)
[ -n "$targets" ] || { echo "no fuzz target found" >&2; exit 1; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# The lines that a target at the end of its time prints beside its progress; one line more or one
# less, such as a failing input or a panic, is no such end.
only_deadline() { # NAME
  local rest
  rest=$(grep -vE '^fuzz: (elapsed|minimizing)|^(FAIL|exit status 1)$|^FAIL[[:space:]]' "$log")
  [[ $rest =~ ^"--- FAIL: $1 ("[0-9.]+s\)$'\n    context deadline exceeded'$ ]]
}

count=0 late=0
while IFS=: read -r file func; do
  name=${func#func }
  echo "== $name in $(dirname "$file")"
  if ! go test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 50x "./$(dirname "$file")" 2>&1 | tee "$log"; then
    only_deadline "$name" || exit 1
    echo "$name: the time was over and no input had failed (golang.org/issue/75804): passed"
    late=$((late + 1))
  fi
  count=$((count + 1))
done <<<"$targets"
echo "fuzz: $count passed ($late of them ended by the deadline's race), 0 failed"

#!/usr/bin/env bash
# Runs every Go fuzz target of the module for the given time, as many side by side as
# there are processors, each on one. All of them run, also where one fails.
#
#   tools/fuzz.sh TIME                 TIME as go test's -fuzztime takes it
#   tools/fuzz.sh TIME DIRECTORY NAME  one target
#
# Before Go 1.27 a target fails now and then with nothing but "context deadline exceeded" when its
# time is over (golang.org/issue/75804). Such a target has run for all of its time and no input
# failed: it passes, and the output says so. Everything else that fails, fails.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:?time for each target, such as 10s}

# The lines that a target at the end of its time prints beside its progress; one line more or one
# less, such as a failing input or a panic, is no such end.
only_deadline() { # NAME LOG
  local rest
  rest=$(grep -vE '^fuzz: (elapsed|minimizing)|^(FAIL|exit status 1)$|^FAIL[[:space:]]' "$2")
  [[ $rest =~ ^"--- FAIL: $1 ("[0-9.]+s\)$'\n    context deadline exceeded'$ ]]
}

if (($# == 3)); then
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  status=0
  go test -run '^$' -fuzz "^$3\$" -fuzztime "$time" -fuzzminimizetime 50x -parallel 1 "./$2" >"$log" 2>&1 || status=$?
  echo "== $3 in $2"
  # Of the progress only the last line says something afterwards.
  grep -vE '^fuzz: elapsed' "$log" || true
  grep -E '^fuzz: elapsed' "$log" | tail -1
  if ((status)) && only_deadline "$3" "$log"; then
    echo "$3: the time was over and no input had failed (golang.org/issue/75804): passed"
    status=0
  fi
  exit "$status"
fi

targets=$(git ls-files -co --exclude-standard -- '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]*' | sort)
[ -n "$targets" ] || { echo "no fuzz target found" >&2; exit 1; }
while IFS=: read -r file func; do
  printf '%s %s\n' "$(dirname "$file")" "${func#func }"
done <<<"$targets" | xargs -P "$(nproc)" -L 1 tools/fuzz.sh "$time" ||
  { echo "fuzz: of $(wc -l <<<"$targets") targets some failed" >&2; exit 1; }
echo "fuzz: $(wc -l <<<"$targets") passed, 0 failed"

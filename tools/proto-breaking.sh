#!/usr/bin/env bash
# Checks that the API in the working tree breaks no client of an earlier commit.
#
#   tools/proto-breaking.sh BUF
#
# It is compared with the API at every commit that touched it since the last
# declared break (at most the newest 20). A break before version 1.0 is declared
# in the message of the commit that makes it, by a trailer "API-Break: reason".
# Needs no network, only the repository's own history; a shallow clone compares
# with what it has.
set -euo pipefail
cd "$(dirname "$0")/.."
buf=$1
base=$(git log -1 --format=%H --grep='^API-Break: .' || true)
since=$(git log --format=%H ${base:+"$base..HEAD"} -- 'api/larder/*.proto' | head -n 20)
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
checked=0
for commit in $since $base; do
  mkdir "$tmp/$commit"
  git archive "$commit" api | tar -x -C "$tmp/$commit"
  cp buf.yaml "$tmp/$commit"  # older commits are judged by today's rules
  "$buf" breaking --against "$tmp/$commit" || {
    echo "the API breaks clients of commit $commit; a deliberate break names its reason in a trailer 'API-Break: ...'" >&2
    exit 1
  }
  checked=$((checked + 1))
done
echo "the API is compatible with $checked earlier commits"

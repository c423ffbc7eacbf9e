#!/usr/bin/env bash
# Prints, on one line, the packages that CI runs under the race detector: all but those where it has nothing to
# find. make nightly races all of them.
#
#   bench   measures what its own packages test
#   test    its processes are larderd as it is shipped, built without the detector
#   codec   plain computation, as long as it starts no goroutine and shares nothing
set -euo pipefail
cd "$(dirname "$0")/.."
omit='/(bench|test)(/|$)'
if ! grep -rqE --include='*.go' '^\s*go |"sync|errgroup|t\.Parallel\(' codec; then
  omit+='|/codec(/|$)'
fi
# The longest first, so that the others run beside them.
module=$(go list -m)
echo "$module/storage/nvme" $(go list ./... | grep -vE "^$module($omit)")

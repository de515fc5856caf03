#!/usr/bin/env bash
# From a bare machine to a first table: packages, build, a small sweep, its report. A second run resumes: points that
# have a record are not computed again.
set -euo pipefail
cd "$(dirname "$0")/.."

(($# == 0)) || { echo "quickstart: takes no arguments; the sweep is configs/sweeps/quickstart.yaml" >&2; exit 1; }

timed() {
  local what=$1 start=$SECONDS
  shift
  "$@"
  printf 'quickstart: %s: %d s\n' "$what" $((SECONDS - start))
}

build() {
  cmake --preset dev >build/configure.log || { cat build/configure.log >&2; return 1; }
  cmake --build --preset dev --target kvsweep --parallel "$(nproc)"
}

timed "bootstrap" scripts/bootstrap.sh
timed "build" build
timed "sweep" build/dev/kvsweep run configs/sweeps/quickstart.yaml --out results/quickstart
build/dev/kvsweep report results/quickstart

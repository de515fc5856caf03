#!/usr/bin/env bash
# Makes the artifacts that the sweeps published.yaml and encoding.yaml read, below results/artifacts. What is there is
# left alone; what was stopped goes on.
#
#   scripts/smollm2_artifacts.sh [TEXT]     as kvsweep calibrate's --text; default: a book of a data root, not the text
#                                           that the sweeps score
set -euo pipefail
cd "$(dirname "$0")/.."

text=${1:-public_domain_books/war-and-peace.txt}
program=build/dev/kvsweep
[[ -x $program ]] || program=build/ci/kvsweep
[[ -x $program ]] || { echo "smollm2_artifacts.sh: no build/dev/kvsweep: run scripts/quickstart.sh" >&2; exit 1; }

mkdir -p results/artifacts
for scheme in kv_adaquant skvq aqua_kv; do
  out=results/artifacts/smollm2-$scheme.safetensors
  [[ ! -e $out ]] || { echo "smollm2_artifacts.sh: $out is there"; continue; }
  given=(--text "$text")
  [[ $scheme != kv_adaquant ]] || given=()
  "$program" calibrate configs/models/smollm2-135m.yaml "configs/calibration/$scheme.yaml" "${given[@]}" --out "$out"
done

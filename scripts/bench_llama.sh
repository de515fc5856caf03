#!/usr/bin/env bash
# A decoded token against the length of its context, beside llama.cpp with the same cache types: lines fitted on both
# sides, whose slopes say what a cached token costs. Runs in turns and prints one JSON line a measurement, then a table.
# llama.cpp multiplies with the file's 4-bit weights in other arithmetic, so intercepts are no comparison; slopes are.
#
#   scripts/bench_llama.sh [--turns N] [--lengths 512,1024,...]
#
# KVSWEEP: the program (default build/dev/kvsweep). KVSWEEP_PEERS: where llama.cpp is built once (default build/peers;
# ten minutes on two cores). THREADS: for both (default: as many as cores).
set -euo pipefail
cd "$(dirname "$0")/.."

turns=3 lengths=512,1024,2048,3072,4096
while (($# > 0)); do
  case $1 in
    --turns) turns=$2 ;;
    --lengths) lengths=$2 ;;
    *) echo "unknown argument $1; allowed: --turns --lengths" >&2 && exit 2 ;;
  esac
  shift 2
done
program=${KVSWEEP:-build/dev/kvsweep}
threads=${THREADS:-$(nproc)}
models=${KVSWEEP_MODELS:-${XDG_CACHE_HOME:-$HOME/.cache}/kvsweep/models}
. scripts/bench_peers.sh
peers_need llama

lines=$peers/bench_llama.jsonl
: >"$lines"
for ((turn = 1; turn <= turns; ++turn)); do
  "$program" --threads "$threads" bench itl configs/sweeps/llama_types.yaml --tokens "$lengths" --repeats 1 \
    --format csv | "$python" scripts/bench_peer_llama.py ours | tee -a "$lines"
  "$python" scripts/bench_peer_llama.py theirs "$models/SmolLM2-135M-Instruct.Q4_1.gguf" --threads "$threads" \
    --lengths "$lengths" | tee -a "$lines"
done
"$python" scripts/bench_peer_llama.py report "$lines"

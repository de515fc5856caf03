#!/usr/bin/env bash
# The reference sweep three ways, in turns on one machine: the program, the program with sharing and batching off (all
# in one run, and as a loop over configurations that starts it for each), and what a transformers user does today, a
# loop over configurations with a QuantizedCache. Prints one JSON line a measurement, then seconds per sample and
# configuration, totals, ratios with their range over turns, and the floor.
#
#   scripts/bench_sweep.sh [--sweep FILE] [--turns N] [--samples N] [--alone N] [--peer N] [--only GLOB]
#
#   --sweep     the sweep (default configs/sweeps/reference.yaml, whose prompts each have a text of their own)
#   --turns     times that everything is run (default 2)
#   --samples   prompts of the sweep (default 20, all)
#   --alone     prompts beside the first that a turn runs with sharing and batching off (default 1); the rest is
#               extrapolated from them: what is done once (loading, timing each scheme) is done with the first
#   --peer      prompts that a turn runs in transformers, for each cache (default 2); the rest is extrapolated
#   --only      configurations of both runs of the program, as in kvsweep run --only
#
# KVSWEEP: the program (default build/dev/kvsweep). KVSWEEP_PEERS: where the peers' environment and their float32 copy
# of the model are made once (default build/peers). THREADS: for all of them (default: as many as cores).
set -euo pipefail
cd "$(dirname "$0")/.."

sweep=configs/sweeps/reference.yaml turns=2 samples=20 alone=1 peer=2 only='*'
while (($# > 0)); do
  case $1 in
    --sweep) sweep=$2 ;;
    --turns) turns=$2 ;;
    --samples) samples=$2 ;;
    --alone) alone=$2 ;;
    --peer) peer=$2 ;;
    --only) only=$2 ;;
    *) echo "unknown argument $1; allowed: --sweep --turns --samples --alone --peer --only" >&2 && exit 2 ;;
  esac
  shift 2
done
((alone > 0)) || { echo "--alone $alone: allowed are 1 and more" >&2 && exit 2; }
program=${KVSWEEP:-build/dev/kvsweep}
threads=${THREADS:-$(nproc)}
. scripts/bench_peers.sh
peers_need transformers
peers_need_model

out=$peers/bench_sweep lines=$peers/bench_sweep.jsonl
rm -rf "$out"
mkdir -p "$out"
: >"$lines"
measure() { "$python" scripts/bench_peer_sweep.py "$@" | tee -a "$lines"; }
run=("$program" --threads "$threads" run "$sweep" --only "$only")
for ((turn = 1; turn <= turns; ++turn)); do
  measure gemm --threads "$threads"
  measure time start "${run[@]}" --limit "$samples" --dry-run --out "$out/none"
  measure time sweep "${run[@]}" --limit "$samples" --out "$out/sweep-$turn"
  one=$("$python" scripts/bench_peer_sweep.py label "$out/sweep-$turn")
  measure time "start of one" "$program" --threads "$threads" run "$sweep" --only "$one" --limit "$samples" --dry-run \
    --out "$out/none"
  measure time "alone first" "${run[@]}" --limit 1 --alone --out "$out/first-$turn"
  measure time alone "${run[@]}" --limit "$((alone + 1))" --alone --out "$out/alone-$turn"
  for cache in full quanto4 quanto2 hqq4; do
    measure transformers "$peers/smollm2" --cache "$cache" --samples "$peer" --threads "$threads"
  done
done
"$python" scripts/bench_peer_sweep.py report "$lines" "$out"

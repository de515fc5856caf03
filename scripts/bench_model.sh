#!/usr/bin/env bash
# Times the model runner and transformers in turns (A/B/A/B), so that a machine that slows down slows both, and prints
# one JSON line a run, then the ratios of the medians.
#
#   scripts/bench_model.sh [REPEATS [PREFILL [DECODE]]]
#
# KVSWEEP: the program (default build/dev/kvsweep). Threads: as many as cores, for both. The peer's venv and its float32
# copy of the model are made once below $KVSWEEP_PEERS or build/peers.
set -euo pipefail
cd "$(dirname "$0")/.."

repeats=${1:-3} prefill=${2:-2048} decode=${3:-16}
program=${KVSWEEP:-build/dev/kvsweep}
model=configs/models/smollm2-135m.yaml
. scripts/bench_peers.sh
peers_need transformers
peers_need_model

lines=$peers/bench_model.jsonl
: >"$lines"
for ((i = 0; i < repeats; ++i)); do
  "$program" model bench "$model" --prefill "$prefill" --decode "$decode" --repeats 1 | tee -a "$lines"
  "$python" scripts/bench_peer.py run "$peers/smollm2" --prefill "$prefill" --decode "$decode" | tee -a "$lines"
done

"$python" - "$lines" <<'PYTHON'
import json, statistics, sys
runs = [json.loads(line) for line in open(sys.argv[1])]
median = lambda program, key: statistics.median(run[key] for run in runs if run["program"] == program)
for key in ("prefill_s", "decode_ms_median", "peak_rss_bytes"):
    ours, theirs = median("kvsweep", key), median("transformers", key)
    print(f"{key}: kvsweep {ours:.5g}, transformers {theirs:.5g}, {theirs / ours:.2f} times ours")
ours = [run for run in runs if run["program"] == "kvsweep"][-1]
needed = ours["weight_bytes"] + ours["cache_bytes"]
print(f"peak memory over weights + cache: {ours['peak_rss_bytes'] / needed:.2f}, "
      f"without mapped files {(ours['peak_rss_bytes'] - ours['file_rss_bytes']) / needed:.2f}")
PYTHON

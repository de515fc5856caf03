#!/usr/bin/env bash
# Times one step's attention on one thread: kvsweep over packed and float32 tokens, then llama.cpp's flash attention over
# its own types, in turns, so that a machine that slows down slows both.
#
#   scripts/bench_attention.sh [TURNS [TOKENS [KV_HEADS GROUPS DIM]]]
#
# KVSWEEP: the program (default build/dev/kvsweep). KERNELS: avx2 (default), avx512, portable, best. The peer's venv is
# made once below $KVSWEEP_PEERS or build/peers; its library is compiled there, which takes some minutes of CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

turns=${1:-3} tokens=${2:-4096,16384,32768} heads=${3:-2} groups=${4:-4} dim=${5:-128}
program=${KVSWEEP:-build/dev/kvsweep}
. scripts/bench_peers.sh
peers_need llama

for ((turn = 0; turn < turns; ++turn)); do
  "$program" --threads 1 bench-attention --kernels "${KERNELS:-avx2}" --rounds 3 --tokens "$tokens" \
    --kv-heads "$heads" --groups "$groups" --dim "$dim"
  OMP_NUM_THREADS=1 "$python" scripts/bench_attention_peer.py "$heads" "$groups" "$dim" "$tokens" 3
done

#!/usr/bin/env bash
# The project's own accuracy gate: measures configs/sweeps/gate.yaml with the program that scripts/test.sh has built and
# judges it by configs/gates/ci.yaml against results/baselines/ci.jsonl. Exit status: that of `kvsweep gate`.
#
#   scripts/gate.sh [--preset NAME] [--update]   NAME: ci (default), dev; --update: the run becomes the baseline
#
# Every run measures anew, so that nothing of an earlier program is judged.
set -euo pipefail
cd "$(dirname "$0")/.."

preset=ci
update=
while (($#)); do
  case $1 in
    --preset) preset=${2:?gate.sh: --preset needs a name}; shift 2 ;;
    --update) update=1; shift ;;
    *) echo "gate.sh: unknown argument $1; allowed: --preset NAME, --update" >&2; exit 2 ;;
  esac
done

kvsweep=build/$preset/kvsweep
baseline=results/baselines/ci.jsonl
[[ -x $kvsweep ]] || { echo "gate.sh: no $kvsweep: scripts/test.sh --preset $preset builds it" >&2; exit 2; }

start=$SECONDS
rm -rf results/gate
"$kvsweep" run configs/sweeps/gate.yaml --out results/gate
printf 'gate.sh: measured in %d s\n' $((SECONDS - start))
if [[ $update ]]; then
  "$kvsweep" gate --update-baseline "$baseline" results/gate
  exit
fi

status=0
options=(--baseline "$baseline" --junit "build/$preset/gate.xml" --markdown "build/$preset/gate.md")
[[ ! ${GITHUB_ACTIONS:-} ]] || options+=(--github)
"$kvsweep" gate configs/gates/ci.yaml results/gate "${options[@]}" || status=$?
printf 'gate.sh: measured and judged in %d s\n' $((SECONDS - start))
exit "$status"

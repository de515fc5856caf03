#!/usr/bin/env bash
# Builds and tests from any state of the machine, as CI does.
#
#   scripts/test.sh [--preset NAME] [--slow]     NAME: ci (default), dev, asan, plain; --slow: tests labelled slow too
set -euo pipefail
cd "$(dirname "$0")/.."

preset=ci
excluded='slow|gpu'
while (($#)); do
  case $1 in
    --preset) preset=${2:?test.sh: --preset needs a name}; shift 2 ;;
    --slow) excluded=gpu; shift ;;
    *) echo "test.sh: unknown argument $1; allowed: --preset NAME, --slow" >&2; exit 1 ;;
  esac
done

bootstrap=()
[[ $preset != plain ]] || bootstrap=(--no-torch)
scripts/bootstrap.sh "${bootstrap[@]}"
start=$SECONDS
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)"
printf 'test.sh: configured and built in %d s\n' $((SECONDS - start))

start=$SECONDS
results=build/$preset/test_results.xml
status=0
rm -f "$results"
# Tests run side by side: one thread each, or OpenMP's waiting threads take the cores from one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
ctest --test-dir "build/$preset" --label-exclude "$excluded" --no-tests=error --output-on-failure \
  --output-junit "$PWD/$results" --parallel "$(nproc)" || status=$?
printf '\ntest.sh: tests ran for %d s\n' $((SECONDS - start))
python3 scripts/test_summary.py "$results"
exit "$status"

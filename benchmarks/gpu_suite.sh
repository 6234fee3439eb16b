#!/usr/bin/env bash
# What is promised of a GPU, measured in one go: gate first, then latencies, training steps and encoding, all with random
# weights and without network. Under nine minutes on an H100 or H200 with Python >= 3.11 and torch >= 2.8.
#
#   benchmarks/gpu_suite.sh OUT [--wheels FOLDER] [--small]
#
# --wheels: packages that the machine lacks, from `pip download` on one that has a network; they are installed into
# OUT/venv, beside the packages that are there. --small: the small presets, to try the suite on a processor.
# Every measurement has a time limit, a folder and a log of its own in OUT; one that fails does not stop the others, but the gate.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?usage: benchmarks/gpu_suite.sh OUT [--wheels FOLDER] [--small]}
shift
wheels="" small=""
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2; shift 2 ;;
        --small) small=yes; shift ;;
        *) echo "unknown: $1" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
python=${PYTHON:-python3}
if [ -n "$wheels" ]; then
    "$python" -m venv --system-site-packages "$out/venv" || exit 1
    "$out/venv/bin/pip" install -q --no-index --find-links "$wheels" "$wheels"/*.whl || exit 1
    python=$out/venv/bin/python
fi
export PYTHONPATH=$root/src:$root/packages/wamkit-client/src${PYTHONPATH:+:$PYTHONPATH}
export TORCHINDUCTOR_CACHE_DIR=$out/compiled TRITON_CACHE_DIR=$out/compiled/triton
failed=0

measure() { # seconds, name, words of `wamkit bench`
    local limit=$1 name=$2 begin=$SECONDS
    shift 2
    timeout "$limit" "$python" -m wamkit.cli bench "$@" --out "$out/$name" >"$out/$name.log" 2>&1
    local status=$?
    echo "$name: status $status, $((SECONDS - begin)) s"
    if [ $status -ne 0 ]; then
        tail -n 5 "$out/$name.log"
        failed=1
    fi
    return $status
}

# The gate: in float32 both give the same chunks; kernels agree with what they stand for.
for name in metaworld3 metaworld3_fast_wam; do
    measure 60 "gate_$name" latency "$name" --reference --precision fp32 --rounds 2 || exit 1
done
if [ -n "$small" ]; then
    measure 60 light_wam latency metaworld3 --preset exact --reference --rounds 2
    measure 60 train train-step metaworld3 --batch 2 --rounds 1
    measure 60 encode encode metaworld3 --batch 1 --rounds 1
    exit $failed
fi
"$python" -m pytest -q -p no:cacheprovider "$root/tests/cuda" >"$out/tests_cuda.log" 2>&1 || failed=1
tail -n 1 "$out/tests_cuda.log"

bf16="--precision bf16"
measure 110 light_wam latency robotwin $bf16 --preset fast --reference --batch 1 4 16 --rounds 100
measure 60 light_wam_libero latency libero_spatial $bf16 --preset fast --rounds 200 --cold
measure 60 fast_wam latency libero_fast_wam $bf16 --preset fast --reference --rounds 30
measure 50 lawam latency libero_lawam $bf16 --preset fast --reference --rounds 30
measure 50 light_wam_passes latency robotwin $bf16 --passes --rounds 50
measure 40 light_wam_float8 latency robotwin --preset float8 --rounds 100
measure 50 train train-step robotwin --batch 16 --rounds 8 --reference
measure 60 train_libero train-step libero_spatial --batch 64 --rounds 5
measure 30 encode encode robotwin --batch 1 8 --rounds 5
exit $failed

#!/usr/bin/env bash
# What is promised of a GPU, measured in one go: gate first, then latencies, training steps and encoding, all with random
# weights and without network; at the end a table of the targets and what was measured. Under nine minutes on an H100 or
# H200 with Python >= 3.11 and torch >= 2.8.
#
#   benchmarks/gpu_suite.sh OUT [--wheels FOLDER] [--small]
#
# --wheels, or the variable WHEELS: packages that the machine lacks, as wheels from `pip download --no-deps` on one that
# has a network (beside those of a torch image: tyro, docstring-parser, typeguard, diffusers, av). They are unpacked into
# OUT/packages; nothing is installed. --small: the small presets, to try the suite on a processor, fifty times as long.
# Every measurement has a time limit, a folder and a log of its own in OUT; one that fails does not stop the others, but
# the gate. What would begin after nine minutes is omitted.
set -uo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
out=${1:?usage: benchmarks/gpu_suite.sh OUT [--wheels FOLDER] [--small]}
shift
wheels=${WHEELS:-} small=""
while [ $# -gt 0 ]; do
    case $1 in
        --wheels) wheels=$2; shift 2 ;;
        --small) small=yes; shift ;;
        *) echo "unknown: $1" >&2; exit 2 ;;
    esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
python=${PYTHON:-python3}
export PYTHONPATH=$root/src:$root/packages/wamkit-client/src${PYTHONPATH:+:$PYTHONPATH}
if [ -n "$wheels" ]; then
    for wheel in "$wheels"/*.whl; do
        "$python" -m zipfile -e "$wheel" "$out/packages" || exit 1
    done
    export PYTHONPATH=$out/packages:$PYTHONPATH
fi
export TORCHINDUCTOR_CACHE_DIR=$out/compiled TRITON_CACHE_DIR=$out/compiled/triton PYTHONUNBUFFERED=1
failed=0 whole=530 times=1 # seconds; of every limit
[ -n "$small" ] && times=50
whole=$((whole * times))

limited() { # seconds, name, command: its output is OUT/name.log
    local limit=$(($1 * times)) name=$2 begin=$SECONDS status
    shift 2
    if [ $((begin + 15)) -gt $whole ]; then
        echo "$name: no time left"
        failed=1
        return 1
    fi
    [ $((begin + limit)) -gt $whole ] && limit=$((whole - begin))
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    echo "$name: status $status, $((SECONDS - begin)) s"
    if [ $status -ne 0 ]; then
        tail -n 5 "$out/$name.log"
        failed=1
    fi
    return $status
}

measure() { # seconds, name, words of `wamkit bench`
    local limit=$1 name=$2
    shift 2
    limited "$limit" "$name" "$python" -m wamkit.cli bench "$@" --out "$out/$name"
}

finish() {
    (cd "$root" && "$python" -m benchmarks.targets "$out") | tee "$out/targets.md" || failed=1
    exit $failed
}

# The gate: in float32 both give the same chunks; kernels agree with what they stand for.
gate() {
    measure 60 "gate_$1" latency "$1" --reference --precision fp32 --rounds 2 || exit 1
}
gate metaworld3
if [ -n "$small" ]; then
    measure 120 light_wam latency metaworld3 --preset exact --reference --rounds 2 --batch 1 16
    measure 120 train train-step metaworld3 --batch 2 --rounds 1 --reference
    finish
fi
gate metaworld3_fast_wam
gate metaworld3_lawam

bf16="--precision bf16"
measure 110 light_wam latency robotwin $bf16 --preset fast --reference --batch 1 4 16 --rounds 100 --cold
measure 80 fast_wam latency libero_fast_wam $bf16 --preset fast --reference --rounds 20 --cold
measure 60 lawam latency libero_lawam $bf16 --preset fast --reference --rounds 20
measure 60 train train-step robotwin --batch 16 --rounds 8 --reference
measure 60 train_libero train-step libero_spatial --batch 64 --rounds 5
measure 40 light_wam_float8 latency robotwin --preset float8 --rounds 100
measure 30 light_wam_libero latency libero_spatial $bf16 --preset fast --rounds 200
limited 90 tests_cuda "$python" -m pytest -q -p no:cacheprovider "$root/tests/cuda"
tail -n 1 "$out/tests_cuda.log"
measure 50 light_wam_passes latency robotwin $bf16 --passes --rounds 50
measure 30 encode encode robotwin --batch 1 8 --rounds 5
finish

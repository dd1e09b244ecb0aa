#!/usr/bin/env bash
# Prove chargen on a machine with one card, from the working tree and without a network:
#   bash benchmarks/gpu.sh OUT [TEXT] [options of python -m benchmarks.gpu]
# Packages that the machine lacks may lie in build/gpu/wheels, as wheels of pure Python.
set -uo pipefail
cd "$(dirname "$0")/.."
for wheel in build/gpu/wheels/*.whl; do [ -e "$wheel" ] && PYTHONPATH="$PWD/$wheel:${PYTHONPATH:-}"; done
export PYTHONPATH="$PWD:${PYTHONPATH:-}" PYTHONUNBUFFERED=1
exec python3 -m benchmarks.gpu "$@"

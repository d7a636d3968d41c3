#!/usr/bin/env bash
# Trains the tiny preset on pictures that ship inside installed packages, and says what it learned.
# Needs python3 (or PYTHON=...), bash and a package index; makes .venv; a second run reuses it all.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv quickstart

workdir=${WORKDIR:-runs/quickstart}
.venv/bin/hulu train --config=experiments/quickstart.py --workdir="$workdir"
.venv/bin/hulu evaluate --workdir="$workdir" --benchmark=synthetic_disc
cine=$(.venv/bin/python -c 'from hulu_jax.media import samples; print(samples.locate("cine"))')
.venv/bin/hulu inspect "$cine" --crop=45,75,205,245 --compression=fixed --threshold=6 --overlay="$workdir/retention.png"
echo "results: $workdir/result.json  loss curve: $workdir/loss.png  kept tokens: $workdir/retention.png"

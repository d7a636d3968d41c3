#!/usr/bin/env bash
# Trains the tiny preset on pictures that ship inside installed packages, and says what it learned.
# Needs python3 (or PYTHON=...), bash and a package index; makes .venv; a second run reuses it all.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv quickstart

workdir=${WORKDIR:-runs/quickstart}
hulu=.venv/bin/hulu
"$hulu" train --config=experiments/quickstart.py --workdir="$workdir"
cine=$(.venv/bin/python -c 'from hulu_jax.media import samples; print(samples.locate("cine"))')
"$hulu" inspect "$cine" --crop=45,75,205,245 --frames=12 --compression=fixed --threshold=6 \
  --overlay="$workdir/retention.png"
echo "results: $workdir/result.json  loss curve: $workdir/loss.png  kept tokens: $workdir/retention.png"
# Last, because it exits with 1 if the model did not learn what the quick start promises.
"$hulu" evaluate --workdir="$workdir" --benchmark=synthetic_disc

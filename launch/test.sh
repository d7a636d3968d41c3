#!/usr/bin/env bash
# Installs what the tests need into .venv and runs them; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
source launch/venv.sh
venv test

.venv/bin/python -m pytest -n 2 "$@"

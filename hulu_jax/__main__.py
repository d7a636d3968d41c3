"""`python -m hulu_jax` is the same as the `hulu` command."""

import sys

from hulu_jax.cli import main

sys.exit(main.main())

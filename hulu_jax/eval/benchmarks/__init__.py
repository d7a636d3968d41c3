"""One file per benchmark: `run(generate, seed=, n=)`, `verdict(result)`, NEW_TOKENS."""

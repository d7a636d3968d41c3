"""Encoder output to kept visual tokens: norm, pool and gather in one pass; see `api`."""

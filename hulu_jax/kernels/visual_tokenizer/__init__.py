"""uint8 patches to embeddings, change scores and the keep mask; see `api`."""

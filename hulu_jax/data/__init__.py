"""From a user's record to fixed-shape batches of bytes: numpy only, no JAX."""

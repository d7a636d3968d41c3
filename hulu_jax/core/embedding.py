"""Looking up rows of a table that is sharded over its rows, without moving activations."""

from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import sharding


def lookup(table: jax.Array, tokens: jax.Array, dtype: Any) -> jax.Array:
  """Rows of `table` [vocab, embed] for `tokens` [batch, seq] -> [batch, seq, embed] in `dtype`.

  Under a mesh the table is gathered over its `embed` shards in `dtype`, each device looks up the
  ids that fall into its slice of the vocabulary, and one psum over the vocabulary's axis adds them.
  The naive gather moves whole activations between devices instead.
  """
  out = sharding.spec(("batch", "seq", "act_embed"))
  if out is None:
    return table.astype(dtype)[tokens]
  rows_spec = sharding.spec(("vocab", None))
  vocab_axis, split = sharding.RULES["vocab"], sharding.ways("vocab") > 1

  def local(rows: jax.Array, ids: jax.Array) -> jax.Array:
    own = ids - jax.lax.axis_index(vocab_axis) * rows.shape[0] if split else ids
    inside = (own >= 0) & (own < rows.shape[0])
    found = rows[jnp.clip(own, 0, rows.shape[0] - 1)]
    found = jnp.where(inside[..., None], found, 0)
    return jax.lax.psum(found, vocab_axis) if split else found

  look = jax.shard_map(local, in_specs=(rows_spec, sharding.spec(("batch", "seq"))), out_specs=out)
  return look(jax.reshard(table.astype(dtype), rows_spec), tokens)

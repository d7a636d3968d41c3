"""The lookup in a sharded table equals `table[tokens]`, forward and backward, and stays local."""

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.core import embedding
from hulu_jax.core import sharding

VOCAB, EMBED, ROWS, SEQ = 24, 8, 4, 13


def tables():
  table = jax.random.normal(jax.random.key(0), (VOCAB, EMBED))
  tokens = jax.random.randint(jax.random.key(1), (ROWS, SEQ), 0, VOCAB).at[0, 0].set(VOCAB - 1)
  weight = jax.random.normal(jax.random.key(2), (ROWS, SEQ, EMBED))
  return table, tokens.at[1].set(5), weight  # one row repeats one id: its gradient must add up


def test_lookup_equals_indexing(mesh_2x2x2):
  table, tokens, weight = tables()

  def loss(table, tokens, weight):
    found = embedding.lookup(table, tokens, jnp.float32)
    return jnp.sum(found * weight), found

  want = np.asarray(table)[np.asarray(tokens)]
  want_grad = np.zeros((VOCAB, EMBED))
  np.add.at(want_grad, np.asarray(tokens), np.asarray(weight))
  with jax.set_mesh(mesh_2x2x2):
    table = jax.device_put(table, sharding.spec(("vocab", "embed")))
    tokens, weight = jax.device_put((tokens, weight), sharding.spec(("batch",)))
    grad = jax.jit(jax.grad(loss, has_aux=True))
    got_grad, got = grad(table, tokens, weight)
    hlo = grad.lower(table, tokens, weight).compile().as_text()
  np.testing.assert_array_equal(got, want)
  assert jax.typeof(got).sharding.spec == jax.P(("data", "fsdp"), None, None)
  # A sum of up to 13 float32 terms in another order.
  np.testing.assert_allclose(got_grad, want_grad, rtol=1e-5, atol=1e-6)
  assert jax.typeof(got_grad).sharding.spec == jax.P("tensor", "fsdp")
  assert "all-to-all" not in hlo
  np.testing.assert_array_equal(embedding.lookup(*tables()[:2], jnp.float32), want)


def test_lookup_in_bfloat16_rounds_the_table_first(mesh_2x2x2):
  table, tokens, _ = tables()
  want = table.astype(jnp.bfloat16)[tokens]
  with jax.set_mesh(mesh_2x2x2):
    placed = jax.device_put(table, sharding.spec(("vocab", "embed")))
    rows = jax.device_put(tokens, sharding.spec(("batch",)))
    got = jax.jit(embedding.lookup, static_argnums=2)(placed, rows, jnp.bfloat16)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_array_equal(np.float32(got), np.float32(want))

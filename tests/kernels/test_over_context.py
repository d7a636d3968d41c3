"""Attention of rows dealt over context, against the same rows on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import context
from hulu_jax.core import sharding
from hulu_jax.kernels.attention import over_context
from hulu_jax.kernels.attention import reference
from hulu_jax.kernels.attention import xla

LENGTH = 512
SEGMENTS = np.array(
  [[1] * 200 + [2] * 57 + [3] * 255, [1] * 130 + [2] * 200 + [0] * 182, [4] * 512], np.int32
)


@pytest.fixture(scope="module")
def case():
  """q, k, v, what is pulled back, and what one device makes of them."""
  rng = np.random.default_rng(0)
  shapes = [(*SEGMENTS.shape, heads, 8) for heads in (4, 2, 2, 4)]
  q, k, v, d_out = (rng.normal(size=shape).astype(np.float32) for shape in shapes)

  def attend(q, k, v):
    return reference.attention(q, k, v, jnp.asarray(SEGMENTS), causal=True)

  out, pull = jax.vjp(attend, q, k, v)
  return (q, k, v, d_out), (out, *pull(d_out))


def dealt(implementation, quick):
  """Whole rows to whole rows, by way of context; with gradients."""

  def attend(q, k, v, segments):
    given = (context.deal(x) for x in (q, k, v, segments))
    return context.whole(over_context.attention(*given, implementation=implementation))

  def run(q, k, v, d_out, segments):
    out, pull = jax.vjp(lambda *x: attend(*x, segments), q, k, v)
    return out, *pull(d_out)

  return jax.jit(run, compiler_options=quick)


@pytest.mark.parametrize("way", ["reference", "xla", "splash_interpret"])
def test_value_and_gradient(way, case, quick, monkeypatch):
  monkeypatch.setattr(xla, "LOGITS", 0)  # in blocks, however small
  arrays, want = case
  with jax.set_mesh(sharding.make_mesh({"context": 4, "tensor": 2})):
    heads = jax.P(None, None, "tensor")
    placed = [jax.device_put(x, heads) for x in arrays]
    got = dealt(way, quick)(*placed, SEGMENTS)
  for a, b in zip(got, want, strict=True):
    # Of float32 sums of up to 512 terms of order one.
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_what_does_not_know_context_or_does_not_divide():
  shape, mesh = (1, 96, 2, 8), sharding.make_mesh({"data": 2, "context": 4})
  x, own = jnp.zeros((2, *shape[1:])), jnp.ones((2, 96), jnp.int32)
  with jax.set_mesh(mesh):
    placed = [context.deal(jax.reshard(a, jax.P("data"))) for a in (x, x, x, own)]
    with pytest.raises(ValueError, match="no attention 'mosaic' on a mesh with context"):
      over_context.attention(*placed, implementation="mosaic")
    with pytest.raises(ValueError, match="rows of 96 tokens over context = 4; .* multiple of 512"):
      over_context.attention(*placed, implementation="splash_interpret")
    with pytest.raises(ValueError, match="100 tokens of a row do not fall into 8 equal parts"):
      context.deal(jnp.zeros((2, 100)))


def test_every_device_has_the_same_causal_work():
  """Pairs of a query and a key that it sees, by device."""
  for devices in (2, 3, 8):
    chunk = np.arange(2 * devices)
    pairs = (chunk + 0.5)[list(context.order(devices))].reshape(devices, 2).sum(axis=1)
    assert len(set(pairs)) == 1
    assert sorted(context.order(devices)) == sorted(chunk)

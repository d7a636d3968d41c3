"""Every implementation of token compaction against loops over tokens in numpy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.kernels.token_compaction import api
from hulu_jax.kernels.token_compaction import layout
from hulu_jax.models import hulu
from hulu_jax.models import norms

INTERPRETED = ("reference", "pallas_tpu_interpret", "pallas_gpu_interpret")
EPS = 1e-6
# name -> groups of (patches, merge), embed, V, capacity, dtype
CASES = {
  "mixed_and_straddling": (((5, 1), (8, 2), (16, 2)), 10, 9, 9, jnp.float32),
  "capacity_smaller_than_kept": (((24, 2),), 130, 6, 4, jnp.bfloat16),
  "more_room_than_tokens": (((3, 1),), 7, 2, 20, jnp.float32),
}


def draw(name):
  sizes, embed, visual, capacity, dtype = CASES[name]
  rng = np.random.default_rng(0)
  patches, total = sum(p for p, _ in sizes), sum(p // m**2 for p, m in sizes)
  x = np.asarray(jnp.asarray(rng.normal(1, 2, (3, patches, embed)), dtype), np.float64)
  index = np.full((3, visual), total, np.int32)
  for row, count in zip(index, (visual, 0, visual // 2), strict=True):  # full, empty, some
    row[:count] = np.sort(rng.choice(total, min(count, total), replace=False))
  return x, index, rng.normal(1, 0.3, embed), rng.normal(0, 0.3, embed)


def by_loop(x, index, scale, bias, sizes, capacity, g):
  """Tokens, and the gradients of their sum weighted by g, one token at a time."""
  blocks, first = [], 0
  for patches, merge in sizes:
    starts = range(first, first + patches, merge**2)
    blocks += [slice(s, s + merge**2) for s in starts]
    first += patches
  out = np.zeros((len(x), capacity, x.shape[2]))
  d_x, d_scale, d_bias = np.zeros_like(x), np.zeros_like(scale), np.zeros_like(bias)
  for b, row in enumerate(index):
    for v, token in enumerate(row[:capacity]):
      if token == len(blocks):
        continue
      for patch in range(blocks[token].start, blocks[token].stop):
        share = 1 / (blocks[token].stop - blocks[token].start)
        deviation = np.sqrt(x[b, patch].var() + EPS)
        unit = (x[b, patch] - x[b, patch].mean()) / deviation
        out[b, v] += share * (unit * scale + bias)
        d_unit = share * g[b, v] * scale
        # The Jacobian of the norm, written out: (I - 11'/n - uu'/n) / deviation.
        n = len(unit)
        jacobian = (np.eye(n) - 1 / n - np.outer(unit, unit) / n) / deviation
        d_x[b, patch] += jacobian @ d_unit
        d_scale += share * g[b, v] * unit
        d_bias += share * g[b, v]
  return out, d_x, d_scale, d_bias


# Compiling an interpreted kernel takes a second or two; the first case runs every path.
RUNS = [
  pytest.param(name, way, marks=pytest.mark.slow if n and way != "reference" else [])
  for way in INTERPRETED
  for n, name in enumerate(CASES)
]


@pytest.mark.parametrize(("name", "way"), RUNS)
def test_tokens_counts_and_gradients(name, way, quick):
  sizes, _, _, capacity, dtype = CASES[name]
  x, index, scale, bias = draw(name)

  rest = {"sizes": sizes, "eps": EPS, "capacity": capacity, "implementation": way}

  def run(x, scale, bias, g):
    def forward(x, scale, bias):
      found = api.compact(x, jnp.asarray(index), scale, bias, **rest)
      return found.tokens, found

    _, vjp, found = jax.vjp(forward, x, scale, bias, has_aux=True)
    return found, vjp(g)

  g = jnp.asarray(np.random.default_rng(1).normal(size=(3, capacity, x.shape[2])), dtype)
  args = (jnp.asarray(x, dtype), jnp.asarray(scale, jnp.float32), jnp.asarray(bias, jnp.float32))
  found, grads = jax.jit(run, compiler_options=quick)(*args, g)
  g = np.asarray(g, np.float64)
  want = by_loop(x, index, scale, bias, sizes, capacity, g)
  real = index < layout.pooled(sizes)
  np.testing.assert_array_equal(found.valid, real[:, :capacity].sum(axis=1))
  np.testing.assert_array_equal(found.overflow, real[:, capacity:].sum(axis=1))
  # float32 inside; bfloat16 rounds the result to 8 bits, values are of order 3.
  bound = 3e-5 if dtype == jnp.float32 else 0.03
  for got, expected in zip((found.tokens, *grads), want, strict=True):
    assert got.shape == expected.shape
    np.testing.assert_allclose(np.asarray(got, np.float64), expected, rtol=0, atol=bound)


def test_equals_norm_pool_and_gather_one_after_the_other():
  """What the model did before: bit for bit in float32."""
  sizes = CASES["mixed_and_straddling"][0]
  x, index, scale, bias = (jnp.asarray(a) for a in draw("mixed_and_straddling"))
  x, scale, bias = (a.astype(jnp.float32) for a in (x, scale, bias))
  rest = {"sizes": sizes, "eps": EPS, "capacity": 9, "implementation": "reference"}
  y, parts, first = norms.layer_norm(x, scale, bias, EPS), [], 0
  for patches, merge in sizes:
    part = y[:, first : first + patches].reshape(3, -1, merge**2, x.shape[2])
    parts.append(part.mean(axis=2))
    first += patches
  want = hulu.take_rows(jnp.concatenate(parts, axis=1), index)
  np.testing.assert_array_equal(api.compact(x, index, scale, bias, **rest).tokens, want)


def test_the_index_of_a_mask_with_what_overflows():
  keep = jnp.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
  index, valid, overflow = layout.compaction_index(keep, 3)
  assert index.tolist() == [[0, 2, 3], [5, 5, 5], [0, 1, 2]]
  assert valid.tolist() == [3, 0, 3]
  assert overflow.tolist() == [0, 0, 2]


def test_bad_input_raises_and_says_what_was_expected():
  x, index, one = jnp.zeros((1, 8, 4)), jnp.zeros((1, 2), jnp.int32), jnp.ones(4)

  def call(x=x, index=index, scale=one, **changed):
    rest = {"sizes": ((8, 2),), "eps": EPS, "capacity": 2, "implementation": "reference"}
    return api.compact(x, index, scale, one, **(rest | changed))

  with pytest.raises(ValueError, match="it has: reference, pallas_tpu"):
    call(implementation="fast")
  with pytest.raises(TypeError, match="float16; every implementation"):
    call(x=x.astype(jnp.float16))
  with pytest.raises(TypeError, match="index is float32"):
    call(index=index.astype(jnp.float32))
  with pytest.raises(ValueError, match="hold another number"):
    call(sizes=((4, 2),))
  with pytest.raises(ValueError, match="do not divide into 3 x 3"):
    call(sizes=((8, 3),))
  with pytest.raises(ValueError, match="capacity 0"):
    call(capacity=0)
  with pytest.raises(ValueError, match=r"scale \(5,\)"):
    call(scale=jnp.ones(5))

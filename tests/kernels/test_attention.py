"""Segment-aware attention: every way to it against a loop over segments, value and gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.kernels.attention import api
from hulu_jax.kernels.attention import names
from hulu_jax.kernels.attention import xla
from tests.conftest import QUICK

# Rows of a slot or of a packed row: ragged, with holes in the numbering, one token, mere padding.
SEGMENTS = np.array(
  [
    [1] * 9 + [2] * 4 + [3] * 17 + [5] * 6 + [0] * 4,
    [1] * 40,
    [0] * 40,
    [4] + [7] * 38 + [0],
  ],
  np.int32,
)
HEADS = [(4, 4), (4, 2), (4, 1)]
# Of float32 sums of at most 40 terms of order one, by way of exponentials.
EXACT = {"rtol": 2e-5, "atol": 2e-5}


def drawn(heads, kv_heads, segments, head_dim=8, seed=0):
  """q, k, v and what is pulled back, float64, of order one."""
  rng = np.random.default_rng(seed)
  shapes = [(*segments.shape, h, head_dim) for h in (heads, kv_heads, kv_heads, heads)]
  return [rng.normal(size=s) for s in shapes]


def loop(q, k, v, d_out, segments, causal):
  """Attention and its gradients one segment, head and query at a time, in float64."""
  out, dq, dk, dv = np.zeros_like(q), np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
  group = q.shape[-2] // k.shape[-2]
  for row in np.ndindex(segments.shape[:-1]):
    for number in set(segments[row]) - {0}:
      places = np.flatnonzero(segments[row] == number)
      for h in range(q.shape[-2]):
        for i in places:
          seen = places[places <= i] if causal else places
          keys, values = k[row][seen, h // group], v[row][seen, h // group]
          score = np.exp(keys @ q[row][i, h] / np.sqrt(q.shape[-1]))
          p = score / score.sum()
          out[row][i, h] = p @ values
          g = d_out[row][i, h]
          d_score = p * (values @ g - p @ values @ g) / np.sqrt(q.shape[-1])
          dq[row][i, h] = d_score @ keys
          dk[row][seen, h // group] += np.outer(d_score, q[row][i, h])
          dv[row][seen, h // group] += np.outer(p, g)
  return out, dq, dk, dv


@functools.cache
def case(heads, kv_heads, causal):
  """The arrays, and what the loop makes of them."""
  arrays = drawn(heads, kv_heads, SEGMENTS)
  return arrays, loop(*arrays, SEGMENTS, causal)


def pulled(attention, arrays, dtype=jnp.float32):
  """Value and gradients of attention(q, k, v), as float64."""
  q, k, v, d_out = (jnp.asarray(x, dtype) for x in arrays)

  def both(q, k, v, d_out):
    out, pull = jax.vjp(attention, q, k, v)
    return out, *pull(d_out)

  found = jax.jit(both, compiler_options=QUICK)(q, k, v, d_out)
  assert {x.dtype for x in found} == {jnp.dtype(dtype)}
  return [np.asarray(x, np.float64) for x in found]


def assert_all_close(found, wanted, **tolerance):
  for name, one, other in zip(("out", "dq", "dk", "dv"), found, wanted, strict=True):
    np.testing.assert_allclose(one, other, **tolerance, err_msg=name)


def ways(causal):
  """Everything that computes attention here, by name; blocks so small that rows have several."""
  make = functools.partial(functools.partial, segments=jnp.asarray(SEGMENTS), causal=causal)
  return {
    "reference": make(api.attention, implementation="reference"),
    "blocks of 8": make(xla.blockwise, block=8),
    "blocks of 16": make(xla.blockwise, block=16),
    "xla": make(api.attention, implementation="xla"),
  }


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("way", ["reference", "blocks of 8", "blocks of 16"])
def test_value_and_gradient_are_those_of_a_loop_over_segments(way, heads, kv_heads, causal):
  arrays, wanted = case(heads, kv_heads, causal)
  assert_all_close(pulled(ways(causal)[way], arrays), wanted, **EXACT)


@pytest.mark.parametrize("causal", [True], ids=["causal"])
@pytest.mark.parametrize("way", ["reference", "blocks of 16"])
def test_bfloat16_is_right_to_its_precision(way, causal):
  arrays, _ = case(4, 2, causal)
  rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in arrays]
  wanted = loop(*rounded, SEGMENTS, causal)
  # 8 bits of mantissa: the softmax weights, what leaves, and sums over up to 40 such terms.
  assert_all_close(pulled(ways(causal)[way], arrays, jnp.bfloat16), wanted, rtol=0.03, atol=0.06)


def test_rows_that_wait_their_turn_are_the_same(monkeypatch):
  monkeypatch.setattr(xla, "LOGITS", 4 * 8 * 8 * 2)  # two rows of four heads and blocks of 8
  arrays, wanted = case(4, 2, True)
  assert_all_close(pulled(ways(True)["blocks of 8"], arrays), wanted, **EXACT)


def test_slots_are_rows(monkeypatch):
  monkeypatch.setattr(xla, "LOGITS", 0)
  arrays, wanted = case(4, 4, False)
  slots = [x.reshape(2, 2, *x.shape[1:]) for x in arrays]
  segments = jnp.asarray(SEGMENTS.reshape(2, 2, -1))
  attend = functools.partial(api.attention, segments=segments, causal=False, implementation="xla")
  assert_all_close([x.reshape(4, *x.shape[2:]) for x in pulled(attend, slots)], wanted, **EXACT)


def test_scattered_segments_are_still_segments():
  """Blocks are left out by the numbers they hold, which need not lie in order."""
  segments = np.random.default_rng(3).integers(0, 4, (2, 24)).astype(np.int32)
  arrays = drawn(2, 1, segments)
  attend = functools.partial(xla.blockwise, segments=segments, causal=True, block=8)
  assert_all_close(pulled(attend, arrays), loop(*arrays, segments, True), **EXACT)


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_splash_interpreted(causal):
  """One row that needs padding to 128 tokens, a second of mere padding."""
  segments = SEGMENTS[[0, 2]]
  arrays = drawn(2, 1, segments, head_dim=72)
  attend = functools.partial(
    api.attention,
    segments=jnp.asarray(segments),
    causal=causal,
    implementation="splash_interpret",
  )
  assert_all_close(pulled(attend, arrays), loop(*arrays, segments, causal), **EXACT)


@pytest.mark.slow
@pytest.mark.skipif(jax.__version_info__ < (0, 11), reason="no interpreter for Mosaic GPU kernels")
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_mosaic_interpreted(causal):
  """Rows of two blocks of 64, the second padded; the tensor-core products run as dots."""
  segments = np.pad(np.tile(SEGMENTS[:2], (1, 2)), ((0, 1), (0, 10)))
  segments[0, 40:] += 7 * (segments[0, 40:] > 0)
  arrays = drawn(2, 1, segments, head_dim=72)
  rounded = [np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64) for x in arrays]
  attend = functools.partial(
    api.attention,
    segments=jnp.asarray(segments),
    causal=causal,
    implementation="mosaic_interpret",
  )
  found = pulled(attend, arrays, jnp.bfloat16)
  assert_all_close(found, loop(*rounded, segments, causal), rtol=0.03, atol=0.06)


def test_mosaic_says_what_it_takes():
  with pytest.raises(ValueError, match="bfloat16 or float16 and head_dim up to 256, found float32"):
    api.attention(*shaped(), causal=True, implementation="mosaic")


@pytest.mark.parametrize("implementation", ["reference", "xla"])
@pytest.mark.parametrize("n", [0, 1])
def test_no_token_and_one_token(implementation, n):
  q, k, v, _ = (jnp.asarray(x) for x in drawn(4, 2, np.ones((2, n), np.int32)))
  segments = jnp.ones((2, n), jnp.int32)
  out = api.attention(q, k, v, segments, causal=True, implementation=implementation)
  np.testing.assert_allclose(out, np.repeat(v, 2, axis=2), rtol=1e-6)


def test_what_padding_holds_reaches_nobody(monkeypatch):
  monkeypatch.setattr(xla, "LOGITS", 0)
  arrays, wanted = case(4, 2, True)
  loud = [np.where((SEGMENTS > 0)[..., None, None], x, 1e4) for x in arrays]
  assert_all_close(pulled(ways(True)["xla"], loud), wanted, **EXACT)


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_on_a_mesh_of_eight_it_is_the_same(mesh_2x2x2, monkeypatch, causal):
  monkeypatch.setattr(xla, "LOGITS", 0)
  arrays, wanted = case(4, 2, causal)
  where = jax.NamedSharding(mesh_2x2x2, jax.P(("data", "fsdp"), None, "tensor"))
  rows = jax.NamedSharding(mesh_2x2x2, jax.P(("data", "fsdp")))
  with jax.set_mesh(mesh_2x2x2):
    segments = jax.device_put(SEGMENTS, rows)
    attend = functools.partial(
      api.attention, segments=segments, causal=causal, implementation="xla"
    )
    spread = [jax.device_put(jnp.asarray(x, jnp.float32), where) for x in arrays]
    assert_all_close(pulled(attend, spread), wanted, **EXACT)


def test_backward_keeps_what_carries_its_name(monkeypatch):
  """A policy that saves attention has nothing of length times length, and runs it once."""
  monkeypatch.setattr(xla, "LOGITS", 0)
  arrays = [jnp.asarray(x, jnp.float32) for x in case(4, 2, True)[0][:3]]
  attend = functools.partial(
    api.attention, segments=jnp.asarray(SEGMENTS), causal=True, implementation="xla"
  )
  policy = jax.checkpoint_policies.save_only_these_names(names.SAVED)
  kept = jax.checkpoint(attend, policy=policy)
  text = str(jax.make_jaxpr(jax.grad(lambda *x: kept(*x).sum()))(*arrays))
  without = str(jax.make_jaxpr(jax.grad(lambda *x: attend(*x).sum()))(*arrays))
  assert text.count("exp ") == without.count("exp ") > 0


def shaped(q=(2, 6, 4, 8), k=(2, 6, 2, 8), v=None, segments=(2, 6), dtype=jnp.float32):
  made = [jnp.zeros(s, dtype) for s in (q, k, v or k)]
  return (*made, jnp.ones(segments, jnp.int32))


BAD = {
  "too few axes": (shaped((6, 4, 8), (6, 2, 8), segments=(6,)), "heads, head_dim"),
  "k unlike v": (shaped(v=(2, 6, 1, 8)), "k and v alike"),
  "other lengths": (shaped(k=(2, 5, 2, 8)), "same"),
  "other segments": (shaped(segments=(2, 5)), "same"),
  "heads not a multiple": (shaped(k=(2, 6, 3, 8)), "multiple of kv_heads"),
  "other head_dim": (shaped(k=(2, 6, 2, 16)), "one head_dim"),
  "integers": (shaped(dtype=jnp.int32), "floating dtype"),
}


@pytest.mark.parametrize("implementation", names.RUNS_ON)
@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_told_before_anything_runs(name, implementation):
  arrays, message = BAD[name]
  with pytest.raises(ValueError, match=message):
    api.attention(*arrays, causal=True, implementation=implementation)


def test_segments_are_integers():
  q, k, v, _ = shaped()
  with pytest.raises(ValueError, match="integer segments"):
    api.attention(q, k, v, jnp.ones((2, 6)), causal=True, implementation="xla")


def test_an_unknown_implementation_lists_those_there_are():
  with pytest.raises(ValueError, match="no attention 'flash'; there are: reference, xla"):
    api.attention(*shaped(), causal=True, implementation="flash")

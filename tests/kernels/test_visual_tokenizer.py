"""Every implementation of the visual tokenizer against loops over tokens in numpy."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.data import compression
from hulu_jax.kernels.visual_tokenizer import api
from hulu_jax.kernels.visual_tokenizer import rule as rule_lib

INTERPRETED = ("reference", "pallas_tpu_interpret", "pallas_gpu_interpret")


class Case(NamedTuple):
  frames: int
  tokens: int
  merge: int
  values: int
  embed: int
  mode: str
  against: str = "previous"
  dtype: Any = jnp.float32
  capacity: int = 7
  grey: bool = False


CASES = {
  "ragged": Case(3, 11, 2, 12, 10, "fixed", "last_kept"),
  "colour_of_a_real_patch": Case(2, 3, 1, 588, 20, "fixed", capacity=9),
  "grey_in_bfloat16": Case(3, 9, 2, 20, 136, "fixed", dtype=jnp.bfloat16, grey=True),
  "one_token": Case(4, 1, 2, 12, 10, "hulumed", capacity=2),
  "one_frame": Case(1, 5, 1, 12, 10, "hulumed"),
  "two_chunks": Case(3, 140, 1, 6, 4, "videollama3", capacity=300),
  "all_kept": Case(2, 8, 1, 12, 10, "off", capacity=16),
}


def draw(case: Case, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  rng = np.random.default_rng(seed)
  shape = (case.frames, case.tokens, case.merge**2, case.values)
  patches = rng.integers(0, 256, shape[1:]) + np.zeros(shape, int)
  patches += rng.integers(-20, 21, shape) * (rng.random(shape[:2]) < 0.5)[..., None, None]
  patches[-1] = patches[max(len(patches) - 2, 0)]  # a frame in which nothing changes
  rows = case.values * (3 if case.grey else 1)
  kernel = rng.normal(0, 0.1, (rows, case.embed)).astype(np.float32)
  return (
    np.clip(patches, 0, 255).astype(np.uint8),
    kernel,
    rng.normal(size=case.embed).astype(np.float32),
  )


def rule_of(case: Case) -> rule_lib.Rule:
  return rule_lib.of(
    mode=case.mode,
    frames=case.frames,
    values=case.merge**2 * case.values,
    grey=7.0 if case.mode == "fixed" else None,
    against=case.against,
  )


def kept_by_loop(patches: np.ndarray, case: Case) -> tuple[np.ndarray, np.ndarray]:
  """Scores and mask, token by token, frame by frame, in Python integers."""
  grey = {"off": -1.0, "fixed": 7.0, "hulumed": 12.75, "videollama3": 0.05}[case.mode]
  score = np.zeros(patches.shape[:2], int)
  keep = np.zeros(patches.shape[:2], bool)
  for n in range(case.tokens):
    seen = patches[0, n].astype(int)
    keep[0, n] = case.mode != "hulumed" or case.frames == 1
    for t in range(1, case.frames):
      now = patches[t, n].astype(int)
      score[t, n] = sum(abs(int(a) - int(b)) for a, b in zip(now.flat, seen.flat, strict=True))
      keep[t, n] = score[t, n] > grey * now.size
      if keep[t, n] or case.against == "previous" or case.mode == "off":
        seen = now
  for t in range(case.frames):
    if not keep[t].any():
      keep[t, 0] = True
  return score, keep


def embedded(patches: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
  """float64, every channel of a grey patch multiplied for itself."""
  parts = kernel.astype(np.float64).reshape(-1, patches.shape[-1], kernel.shape[1])
  unit = (patches / 255 - 0.5) / 0.5
  return sum(unit @ part for part in parts) + bias


def tolerance(case: Case) -> dict[str, float]:
  if case.dtype == jnp.float32:
    return {"rtol": 1e-4, "atol": 1e-4}  # sums of up to 588 products of order 0.1
  return {"rtol": 0.02, "atol": 0.05}  # operands and result have 8 bits


# Compiling an interpreted kernel takes a second or two; these few run every path of each.
QUICK = {
  "pallas_tpu_interpret": {"ragged", "grey_in_bfloat16"},
  "pallas_gpu_interpret": {"ragged"},
  "reference": {"ragged", "one_token", "one_frame"},
}
RUNS = [
  pytest.param(name, way, marks=[] if name in QUICK[way] else pytest.mark.slow)
  for way in INTERPRETED
  for name in CASES
]


@pytest.mark.parametrize(("name", "way"), RUNS)
def test_a_whole_entry(name, way, quick):
  case = CASES[name]
  patches, kernel, bias = draw(case)
  score, keep = kept_by_loop(patches, case)

  def run(patches, kernel, bias):
    rest = {"rule": rule_of(case), "dtype": case.dtype, "implementation": way}
    return api.tokenize(patches, kernel, bias, **rest)

  got = jax.jit(run, compiler_options=quick)(patches, kernel, bias)
  np.testing.assert_array_equal(got.score, score)
  np.testing.assert_array_equal(got.keep, keep)
  before = [keep.ravel()[:i].sum() for i in range(keep.size)]
  np.testing.assert_array_equal(np.ravel(got.place), before)
  assert got.total == keep.sum()
  assert got.embeddings.dtype == case.dtype
  want = embedded(patches, kernel, bias)
  np.testing.assert_allclose(np.asarray(got.embeddings, np.float64), want, **tolerance(case))


@pytest.mark.parametrize(("name", "way"), RUNS)
def test_kept_tokens_in_one_go_with_their_gradient(name, way, quick):
  case = CASES[name]
  patches, kernel, bias = draw(case, seed=1)
  _, keep = kept_by_loop(patches, case)
  rest = {"rule": rule_of(case), "capacity": case.capacity, "dtype": case.dtype}

  def run(patches, kernel, bias, g):
    def forward(kernel, bias):
      found = api.tokenize_kept(patches, kernel, bias, implementation=way, **rest)
      return found.embeddings, found

    _, vjp, found = jax.vjp(forward, kernel, bias, has_aux=True)
    return found, vjp(g.astype(case.dtype))

  g = np.random.default_rng(2).normal(size=(case.capacity, case.merge**2, case.embed))
  got, (d_kernel, d_bias) = jax.jit(run, compiler_options=quick)(patches, kernel, bias, g)
  inside = np.flatnonzero(keep)[: case.capacity]
  assert (got.valid, got.overflow) == (len(inside), keep.sum() - len(inside))
  empty = case.capacity - len(inside)
  np.testing.assert_array_equal(got.source, [*inside, *[keep.size] * empty])
  tokens = patches.reshape(keep.size, case.merge**2, case.values)[inside]
  nothing = np.zeros((empty, *g.shape[1:]))
  want = np.concatenate([embedded(tokens, kernel, bias), nothing])
  np.testing.assert_allclose(np.asarray(got.embeddings, np.float64), want, **tolerance(case))

  unit = ((tokens / 255 - 0.5) / 0.5).reshape(-1, case.values)
  own = g[: len(inside)].reshape(-1, case.embed)
  whole = np.tile(unit.T @ own, (len(kernel) // case.values, 1))
  scale = np.sqrt(len(own))  # of a sum of that many terms of order 1
  bound = scale * (1e-5 if case.dtype == jnp.float32 else 0.03)
  np.testing.assert_allclose(d_kernel, whole, rtol=0, atol=bound)
  np.testing.assert_allclose(d_bias, own.sum(axis=0), rtol=0, atol=bound)


@pytest.mark.parametrize("way", INTERPRETED)
@pytest.mark.parametrize(
  ("rows", "dtype"),
  [(37, jnp.float32), pytest.param(130, jnp.bfloat16, marks=pytest.mark.slow)],
)
def test_the_embedding_part_and_its_gradient(rows, dtype, way, quick):
  case = Case(1, rows, 1, 12, 10, "off", dtype=dtype, grey=True)
  patches, kernel, bias = draw(case)
  batch = np.stack([patches[0, :, 0], patches[0, ::-1, 0]])

  def run(kernel, bias, g):
    def forward(kernel, bias):
      return api.embed(jnp.asarray(batch), kernel, bias, dtype=dtype, implementation=way)

    out, vjp = jax.vjp(forward, kernel, bias)
    return out, vjp(g.astype(dtype))

  g = np.random.default_rng(3).normal(size=(2, rows, 10))
  out, (d_kernel, d_bias) = jax.jit(run, compiler_options=quick)(kernel, bias, g)
  want = embedded(batch, kernel, bias)
  np.testing.assert_allclose(np.asarray(out, np.float64), want, **tolerance(case))
  d = np.einsum("bsp,bse->pe", (batch / 255 - 0.5) / 0.5, g)
  bound = np.sqrt(2 * rows) * (1e-5 if dtype == jnp.float32 else 0.03)
  np.testing.assert_allclose(d_kernel, np.tile(d, (3, 1)), rtol=0, atol=bound)
  np.testing.assert_allclose(d_bias, g.sum(axis=(0, 1)), rtol=0, atol=bound)


@pytest.mark.parametrize("mode", rule_lib.MODES)
@pytest.mark.parametrize("against", rule_lib.AGAINST)
def test_the_mask_is_that_of_the_data_pipeline(mode, against):
  grey = 6.3 if mode == "fixed" else None
  case = Case(5, 20, 2, 30, 4, mode, against)
  patches = draw(case, seed=4)[0]
  rule = rule_lib.of(mode=mode, frames=5, values=120, grey=grey, against=against)
  tokens = patches.reshape(5, 20, 120)
  want = compression.keep_mask(
    tokens, compression.Compression(mode=mode, grey=grey, against=against)
  )
  got = api.tokenize(
    jnp.asarray(patches),
    jnp.zeros((30, 4)),
    jnp.zeros(4),
    rule=rule,
    dtype=jnp.float32,
    implementation="reference",
  )
  np.testing.assert_array_equal(got.keep, want)


def test_no_frames_give_nothing():
  for implementation in INTERPRETED:
    args = (jnp.zeros((0, 3, 4, 12), jnp.uint8), jnp.zeros((12, 5)), jnp.zeros(5))
    rule = rule_lib.of(mode="off", frames=0, values=48, grey=None, against="previous")
    rest = {"rule": rule, "dtype": jnp.float32, "implementation": implementation}
    assert api.tokenize(*args, **rest).embeddings.shape == (0, 3, 4, 5)
    found = api.tokenize_kept(*args, capacity=2, **rest)
    assert (found.valid, found.overflow) == (0, 0)
    assert not np.any(found.embeddings)


def call(patches, kernel=(12, 5), **changed):
  rest = {"rule": rule_lib.Rule(limit=1, first_whole=True, last_kept=False), "dtype": jnp.float32}
  rest |= {"implementation": "pallas_tpu_interpret"} | changed
  return api.tokenize(patches, jnp.zeros(kernel), jnp.zeros(kernel[1]), **rest)


def test_bad_input_raises_and_says_what_was_expected():
  good = jnp.zeros((2, 3, 4, 12), jnp.uint8)
  with pytest.raises(TypeError, match="int32; every implementation takes uint8"):
    call(good.astype(jnp.int32))
  with pytest.raises(ValueError, match="expected \\[frames"):
    call(good[0])
  with pytest.raises(ValueError, match="12 bytes for a kernel of 13 rows"):
    call(good, kernel=(13, 5))
  with pytest.raises(ValueError, match="it has: reference, pallas_tpu"):
    call(good, implementation="fast")
  with pytest.raises(TypeError, match="float16; every implementation"):
    call(good, dtype=jnp.float16)
  with pytest.raises(ValueError, match="at least one visual token"):
    call(good[:, :0])
  with pytest.raises(ValueError, match="'reference' has no such limit"):
    jax.eval_shape(
      lambda p: call(p, (588, 1152)), jax.ShapeDtypeStruct((1, 50000, 1, 588), jnp.uint8)
    )
  with pytest.raises(ValueError, match="unknown compression 'some'"):
    rule_lib.of(mode="some", frames=2, values=4, grey=None, against="previous")
  with pytest.raises(ValueError, match="only 'fixed' has one"):
    rule_lib.of(mode="fixed", frames=2, values=4, grey=None, against="previous")


def test_a_named_kernel_that_cannot_run_here_is_an_error():
  with pytest.raises(Exception, match="interpret mode"):
    call(jnp.zeros((2, 3, 4, 12), jnp.uint8), implementation="pallas_tpu")

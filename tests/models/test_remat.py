"""What backward recomputes changes no gradient: every named policy, in encoder and decoder."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import tree
from hulu_jax.models import attention
from hulu_jax.models import decoder
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.models import vision
from tests.models import mixed as shared

LENGTH = 24
POLICIES = tuple(scan.REMAT)


def of_decoder(remat):
  """(parameters) -> a weighted sum of a packed row's hidden states."""
  compute = dataclasses.replace(shared.PLAIN, decoder_remat=remat)
  rng = np.random.default_rng(0)
  c = presets.TINY.decoder
  x, weights = (rng.normal(size=(2, LENGTH, c.embed)).astype(np.float32) for _ in range(2))
  segments = jnp.asarray(np.repeat([[1, 2]], LENGTH // 2, axis=1).repeat(2, 0))
  positions = jnp.broadcast_to(jnp.arange(LENGTH) % (LENGTH // 2), (2, LENGTH))

  def attend(q, k, v, cache):
    return attention.in_rows(q, k, v, segments, "xla"), cache

  def f(w):
    return jnp.sum(decoder.forward(w, x, positions, attend, None, c, compute)[0] * weights)

  return f


def of_encoder(remat, batch):
  compute = dataclasses.replace(shared.PLAIN, vision_remat=remat)
  weights = np.random.default_rng(3).normal(size=(presets.TINY.vision.embed,))
  media = batch.patches, batch.patch_segment, batch.patch_hw

  def f(w):
    return jnp.sum(vision.forward(w, *media, presets.TINY.vision, compute) * weights)

  return f


@pytest.fixture(scope="module")
def gradients(params, mixed, quick):
  """(part, policy) -> the gradients by the part's parameters."""
  first = jax.tree.map(lambda x: x[:1], mixed.batch)

  def compute(part, remat):
    f = of_decoder(remat) if part == "decoder" else of_encoder(remat, first)
    return jax.device_get(jax.jit(jax.grad(f), compiler_options=quick)(params[part]))

  plain = {part: compute(part, "none") for part in ("vision", "decoder")}
  return lambda part, remat: plain[part] if remat == "none" else compute(part, remat)


@pytest.mark.parametrize("remat", [name for name in POLICIES if name != "none"])
@pytest.mark.parametrize("part", ["vision", "decoder"])
def test_gradients_are_those_of_no_policy(part, remat, gradients):
  pairs = zip(
    jax.tree.leaves_with_path(gradients(part, remat)),
    jax.tree.leaves(gradients(part, "none")),
    strict=True,
  )
  for (path, got), want in pairs:
    # The same arithmetic; XLA may fuse what is computed twice otherwise.
    np.testing.assert_allclose(
      got, want, rtol=0, atol=1e-5 * np.abs(want).max() + 1e-12, err_msg=tree.path_name(path)
    )


@pytest.mark.parametrize("part", ["vision", "decoder"])
def test_a_policy_that_saves_more_multiplies_less(part, params, mixed):
  """Matrix products in a layer's forward and backward."""
  first = jax.tree.map(lambda x: x[:1], mixed.batch)

  def products(remat):
    f = of_decoder(remat) if part == "decoder" else of_encoder(remat, first)
    return str(jax.make_jaxpr(jax.grad(f))(params[part])).count("dot_general")

  found = {remat: products(remat) for remat in POLICIES}
  assert found["none"] < found["save_qkv_out"] < found["save_attention"] < found["full"]
  assert found["none"] <= found["save_dots"] < found["save_attention"]
  # q, k, v and the output of attention.
  assert found["save_attention"] - found["save_qkv_out"] == 4

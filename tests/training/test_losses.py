"""The loss in chunks of logits is the loss of all at once, value and gradient, on any mesh."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.data import packing
from hulu_jax.data.schema import StepShape
from hulu_jax.models import decoder
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.scan import FLOAT32
from hulu_jax.training import losses
from hulu_jax.training import step as step_lib

C = presets.TINY.decoder
POSITIONS = 24


def arrays():
  rng = np.random.default_rng(0)
  head = rng.normal(0, 0.3, (C.vocab, C.embed)).astype(np.float32)
  hidden = rng.normal(size=(4, POSITIONS, C.embed)).astype(np.float32)
  return head, hidden, rng.integers(0, C.vocab, (4, POSITIONS)).astype(np.int32)


def losses_and_grads(chunk, head, hidden, targets):
  """Per position, and the gradients of their weighted sum by head and hidden states."""

  def weighted(head, hidden):
    def f(h, t):
      return losses.token_losses(decoder.logits({"head": head}, h, C), t, 0.0)

    found = losses.in_chunks(f, hidden, targets, chunk)
    return jnp.sum(found * jnp.arange(1.0, POSITIONS + 1)), found

  grads, found = jax.jit(jax.grad(weighted, (0, 1), has_aux=True))(head, hidden)
  return jax.device_get((found, *grads))


def by_numpy(head, hidden, targets):
  logits = hidden.astype(np.float64) @ head.astype(np.float64).T
  top = logits.max(axis=-1)
  total = np.log(np.exp(logits - top[..., None]).sum(axis=-1)) + top
  return total - np.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]


@pytest.fixture(scope="module")
def whole():
  return losses_and_grads(None, *arrays())


def test_all_at_once_is_cross_entropy(whole):
  np.testing.assert_allclose(whole[0], by_numpy(*arrays()), rtol=1e-5)


def test_chunks_do_not_change_losses_or_gradients(whole):
  for got, want in zip(losses_and_grads(8, *arrays()), whole, strict=True):
    # float32 sums in another order.
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_chunks_on_a_mesh(whole, mesh_2x2x2):
  head, hidden, targets = arrays()
  table = jax.NamedSharding(mesh_2x2x2, jax.P("tensor", "fsdp"))
  rows = sharding.batch_sharding(mesh_2x2x2)
  with jax.set_mesh(mesh_2x2x2):
    placed = jax.device_put(head, table), *jax.device_put((hidden, targets), rows)
    found = losses_and_grads(8, *placed)
  for got, want in zip(found, whole, strict=True):
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_positions_fall_into_whole_chunks():
  with pytest.raises(ValueError, match="24 supervised positions do not fall into chunks of 7"):
    losses_and_grads(7, *arrays())


def test_the_z_loss_is_that_of_numpy():
  head, hidden, targets = arrays()
  logits = hidden @ head.T
  found = losses.token_losses(logits, targets, 0.1)
  total = np.log(np.exp(logits.astype(np.float64)).sum(-1))
  np.testing.assert_allclose(found, by_numpy(head, hidden, targets) + 0.1 * total**2, rtol=1e-5)


SHAPE = StepShape(rows=4, tokens=96, supervised=24, visual=0, groups=())


def arrays_over_the_vocabulary(chunk, mesh):
  """Every array in a traced loss and its gradient that has positions and the vocabulary."""
  compute = dataclasses.replace(FLOAT32, loss_chunk=chunk)
  loss = step_lib.make_loss(presets.TINY, (), compute, 1, 1e-4)
  specs = hulu.specs(presets.TINY)
  with jax.sharding.use_abstract_mesh(mesh):
    params = P.abstract(specs, mesh)
    rows = sharding.batch_sharding(mesh)
    batch = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), packing.empty_batch(SHAPE)
    )
    nothing = jax.tree.map(lambda _: None, specs)
    traced = jax.make_jaxpr(jax.grad(loss, has_aux=True))(params, nothing, batch)
  weights = {spec.shape for spec in jax.tree.leaves(specs)}
  found = [a for a in every_array(traced.jaxpr) if C.vocab in a.shape and a.shape not in weights]
  # The comparison that picks a target's logit is fused into the sum over it.
  return [a for a in found if jnp.issubdtype(a.dtype, jnp.floating)]


def every_array(jaxpr):
  for equation in jaxpr.eqns:
    yield from (variable.aval for variable in equation.outvars)
    for inner in jax.tree.leaves(list(equation.params.values())):
      if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
        yield from every_array(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("chunk", [None, 8])
def test_no_more_logits_than_a_chunk_and_each_device_its_own(chunk):
  """On 2 x 2 x 2: never those of all tokens, and never the whole vocabulary on one device."""
  mesh = sharding.abstract_mesh({"data": 2, "fsdp": 2, "tensor": 2})
  found = arrays_over_the_vocabulary(chunk, mesh)
  most = max(math.prod(a.shape) for a in found)
  assert most == SHAPE.rows * (chunk or SHAPE.supervised) * C.vocab
  whole = [a for a in found if a.ndim > 1 and "tensor" not in str(a.sharding.spec)]
  assert not whole, whole

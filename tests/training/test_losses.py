"""The loss in chunks of logits is the loss of all at once, value and gradient, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import sharding
from hulu_jax.models import decoder
from hulu_jax.models import presets
from hulu_jax.training import losses

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

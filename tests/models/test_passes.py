"""The encoder in passes over whole slots gives what it gives in one, value and gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hulu_jax.core import tree
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.models import vision
from tests.models import mixed as shared

GROUPS = tuple((g.slots, g.size) for g in shared.SHAPE.groups)


@pytest.mark.parametrize(
  ("groups", "limit", "want"),
  (
    # Small groups share a pass as long as they fit into it, in their order.
    (((1, 4096), (1, 4096), (1, 1536)), 9728, [(0, 3, 1)]),
    (((1, 4096), (26, 4096)), None, [(0, 2, 1)]),
    (((1, 4096), (1, 4096), (1, 1536)), 8192, [(0, 2, 1), (2, 3, 1)]),
    # A group that does not fit is cut into equal passes, and shares none of them.
    (((1, 1024), (26, 4096)), 16384, [(0, 1, 1), (1, 2, 13)]),
    (((32, 4096), (1, 1024), (2, 512)), 16384, [(0, 1, 8), (1, 3, 1)]),
    # A slot is never cut.
    (((5, 64), (1, 100)), 10, [(0, 1, 5), (1, 2, 1)]),
    (GROUPS, 38, [(0, 1, 1), (1, 2, 1), (2, 3, 2), (3, 4, 1)]),
  ),
)
def test_passes_hold_whole_slots(groups, limit, want):
  assert [tuple(run) for run in vision.passes(groups, limit)] == want


def test_a_pass_holds_at_least_one_patch():
  with pytest.raises(ValueError, match="vision_pass = 0"):
    dataclasses.replace(scan.FLOAT32, vision_pass=0)


@pytest.fixture(scope="module")
def features_and_grads(params, mixed, quick):
  """vision_pass -> features, and the gradient of a weighted sum of them."""
  weights = np.random.default_rng(3).normal(size=(4, 1, presets.TINY.vision.embed))

  def make(limit: int | None, remat: str):
    compute = dataclasses.replace(scan.FLOAT32, vision_pass=limit, vision_remat=remat)

    def weighted(w, batch):
      media = batch.patches, batch.patch_segment, batch.patch_hw
      out = vision.forward(w, *media, presets.TINY.vision, compute)
      return jnp.sum(out * weights), out

    f = jax.jit(jax.grad(weighted, has_aux=True), compiler_options=quick)
    return f(params["vision"], mixed.batch)

  return make


def test_features_and_gradients_do_not_depend_on_passes(features_and_grads):
  want_grads, want = features_and_grads(None, "none")
  # 36 is one slot of the third group: every way a group can be run occurs (see `GROUPS`).
  got_grads, got = features_and_grads(36, "full")
  # The same sums, in another order.
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
  pairs = zip(jax.tree.leaves_with_path(got_grads), jax.tree.leaves(want_grads), strict=True)
  for (path, g), w in pairs:
    assert np.abs(w).max() > 0, tree.path_name(path)
    np.testing.assert_allclose(
      g, w, rtol=0, atol=1e-5 * np.abs(w).max(), err_msg=tree.path_name(path)
    )

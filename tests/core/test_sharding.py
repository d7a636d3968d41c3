"""The rules table: what an axis becomes on a mesh, and what a wrong one says."""

import jax
import jax.numpy as jnp
import pytest

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.models import hulu
from hulu_jax.models import presets


def test_without_a_mesh_nothing_is_sharded():
  assert sharding.spec(("batch", "seq", "act_embed")) is None


def test_axes_become_the_mesh_axes_of_the_table(mesh_2x2x2):
  with jax.set_mesh(mesh_2x2x2):
    assert sharding.spec(("batch", "seq", "heads", None)) == jax.P(
      ("data", "fsdp"), None, "tensor", None
    )


def test_a_mesh_axis_is_claimed_once(mesh_2x2x2):
  with jax.set_mesh(mesh_2x2x2):
    with pytest.raises(ValueError, match="used twice"):
      sharding.spec(("heads", "mlp"))
    with pytest.raises(KeyError, match="no_such_axis"):
      sharding.spec(("no_such_axis",))


def test_an_uneven_split_names_the_parameter(mesh_2x2x2):
  specs = {"decoder": {"layers": {"q": P.ParamSpec((6, 7), ("embed", "heads"), P.normal(1.0))}}}
  with pytest.raises(ValueError, match="decoder/layers/q: heads = 7 .*tensor.*2 ways"):
    sharding.shardings(specs, mesh_2x2x2)


def test_the_7b_preset_takes_tensor_up_to_four():
  """Its 28 heads over 4 kv heads divide by 4 and no further."""
  specs = hulu.specs(presets.get("hulu-7b"))
  sharding.shardings(specs, sharding.abstract_mesh({"data": 2, "fsdp": 32, "tensor": 4}))
  with pytest.raises(ValueError, match="decoder/layers/k: kv_heads = 4"):
    sharding.shardings(specs, sharding.abstract_mesh({"fsdp": 32, "tensor": 8}))


def test_a_mesh_that_cannot_be_is_refused():
  with pytest.raises(ValueError, match=r"unknown mesh axes \['model'\]"):
    sharding.make_mesh({"model": 8})
  with pytest.raises(ValueError, match="needs 16 devices, found 8"):
    sharding.make_mesh({"data": 16})


def test_rows_lie_over_the_data_axes_and_one_process_loads_them_all(mesh_2x2x2, mesh_of_one):
  where = sharding.batch_sharding(mesh_2x2x2)
  assert where.shard_shape((8, 5)) == (2, 5)
  assert sharding.data_shards(mesh_2x2x2) == (0, 1)
  assert sharding.data_shards(mesh_of_one) == (0, 1)


def test_an_abstract_state_becomes_one_that_a_restore_can_place(mesh_2x2x2):
  spec = P.ParamSpec((4, 6), ("embed", "mlp"), P.normal(1.0))
  with jax.set_mesh(mesh_2x2x2):
    shapes = jax.eval_shape(
      lambda key: {"w": P.initialize(key, {"w": spec})["w"], "step": jnp.zeros((), jnp.int32)},
      jax.random.key(0),
    )
  got = sharding.concrete(shapes, mesh_2x2x2)
  assert got["w"].sharding == jax.NamedSharding(mesh_2x2x2, jax.P("fsdp", "tensor"))
  assert got["step"].sharding == jax.NamedSharding(mesh_2x2x2, jax.P())
  assert (got["w"].shape, got["w"].dtype) == ((4, 6), jnp.float32)


def test_one_device_has_no_axes_to_mind(mesh_2x2x2):
  """Nor has an axis of one device on a larger mesh: a reshape of a batch of one row loses it."""
  alone = sharding.one_device_mesh()
  with jax.set_mesh(alone):
    assert sharding.spec(("batch", "mlp")) is None
  assert sharding.fewest_rows(alone) == 1
  assert sharding.fewest_rows(mesh_2x2x2) == 4
  assert sharding.fewest_rows(sharding.abstract_mesh({"tensor": 4})) == 1
  with jax.set_mesh(sharding.make_mesh({"fsdp": 4, "context": 2})):
    assert sharding.spec(("batch", "mlp")) == jax.P("fsdp", None)
    assert sharding.spec(("part",)) == jax.P(("fsdp", "context"))


def test_one_axis_takes_the_devices_that_remain():
  assert dict(sharding.make_mesh({"fsdp": -1, "tensor": 2}).shape) == {"fsdp": 4, "tensor": 2}
  with pytest.raises(ValueError, match=r"\['data', 'fsdp'\] are all -1"):
    sharding.make_mesh({"data": -1, "fsdp": -1})
  with pytest.raises(ValueError, match="8 devices do not divide by 3"):
    sharding.make_mesh({"data": 3, "fsdp": -1})
  with pytest.raises(ValueError, match="mesh axes {'tensor': 0}; expected at least 1"):
    sharding.make_mesh({"tensor": 0})


def test_without_context_every_shard_stays_where_it_is():
  mesh = sharding.make_mesh({"fsdp": 2, "context": 2, "tensor": 2})
  folded = sharding.without_context(mesh)
  assert dict(folded.shape) == {"fsdp": 4, "tensor": 2}
  specs = {"w": P.ParamSpec((8, 6), ("embed", "mlp"), P.normal(1.0))}
  here, there = (sharding.shardings(specs, m)["w"] for m in (mesh, folded))
  assert here.devices_indices_map((8, 6)) == there.devices_indices_map((8, 6))

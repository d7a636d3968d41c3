"""Logical axis names to mesh axes, in one table; nothing else in the project names a mesh axis."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

import jax
from jax.sharding import AxisType

from hulu_jax.core import platform
from hulu_jax.core import tree

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh

MESH_AXES = ("data", "fsdp", "tensor")

# Parameter axes first, activation axes below.  A weight's `embed` is spread over fsdp and gathered
# where it is used; an activation's is whole.
RULES: Mapping[str, str | tuple[str, ...] | None] = {
  "layer": None,
  "embed": "fsdp",
  "heads": "tensor",
  "kv_heads": "tensor",
  "head_dim": None,
  "mlp": "tensor",
  "vocab": "tensor",
  "pixels": None,
  "rank": None,
  "batch": ("data", "fsdp"),
  "seq": None,
  "act_embed": None,
}


def make_mesh(shape: Mapping[str, int]) -> jax.sharding.Mesh:
  """A mesh with explicit axes, e.g. {"data": 2, "fsdp": 2, "tensor": 2}; a missing axis is 1.

  Raises:
    ValueError: an unknown axis, or a product that differs from the number of devices.
    RuntimeError: emulated devices that would hang.
  """
  platform.check()
  sizes = _sizes(shape)
  if math.prod(sizes) != jax.device_count():
    raise ValueError(
      f"mesh {dict(zip(MESH_AXES, sizes, strict=True))} needs {math.prod(sizes)} devices, "
      f"found {jax.device_count()} ({jax.default_backend()})"
    )
  return jax.make_mesh(sizes, MESH_AXES, axis_types=_types(sizes))


def mesh_over(shape: Mapping[str, int], devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  """The same mesh over devices that need not be here: those of a topology, to compile for."""
  sizes = _sizes(shape)
  return jax.make_mesh(sizes, MESH_AXES, axis_types=_types(sizes), devices=devices)


def one_device_mesh() -> jax.sharding.Mesh:
  """A mesh of the first device alone, however many there are."""
  sizes = (1,) * len(MESH_AXES)
  first = jax.local_devices()[:1]
  return jax.make_mesh(sizes, MESH_AXES, axis_types=_types(sizes), devices=first)


def abstract_mesh(shape: Mapping[str, int]) -> jax.sharding.AbstractMesh:
  """The same mesh without devices, for tracing at any size on any machine."""
  sizes = _sizes(shape)
  return jax.sharding.AbstractMesh(sizes, MESH_AXES, axis_types=_types(sizes))


def _types(sizes: tuple[int, ...]) -> tuple[AxisType, ...]:
  """Explicit axes, but for one device: it has nothing to shard, and may run a batch of one row,
  whose axis explicit types lose in a reshape."""
  kind = AxisType.Auto if math.prod(sizes) == 1 else AxisType.Explicit
  return (kind,) * len(sizes)


def _sizes(shape: Mapping[str, int]) -> tuple[int, ...]:
  unknown = sorted(set(shape) - set(MESH_AXES))
  if unknown:
    raise ValueError(f"unknown mesh axes {unknown}; there are {list(MESH_AXES)}")
  return tuple(shape.get(name, 1) for name in MESH_AXES)


def spec(axes: tuple[str | None, ...]) -> jax.P | None:
  """Logical axes as a PartitionSpec of the current mesh; None where no explicit mesh is set.

  None lets the same model code run without a mesh (a notebook, a Flax module) and under one.

  Raises:
    KeyError: an axis that RULES does not know.
    ValueError: two axes that claim one mesh axis.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or AxisType.Explicit not in mesh.axis_types:
    return None
  return _translate(axes)


def per_shard(
  f: Callable[..., Any],
  inputs: tuple[tuple[str | None, ...], ...],
  outputs: tuple[tuple[str | None, ...], ...],
) -> Callable[..., Any]:
  """`f` on each device's own part of its arguments, for kernels that know no mesh.

  inputs, outputs: the logical axes of every array argument and of every result (f returns a tuple).
  An argument without a batch axis is whole on every device; its gradient is summed over them.
  Without an explicit mesh, f itself.
  """
  if spec(inputs[0]) is None:
    return f
  return jax.shard_map(
    f,
    in_specs=tuple(_translate(axes) for axes in inputs),
    out_specs=tuple(_translate(axes) for axes in outputs),
    check_vma=False,  # interpreted kernels fail the check on CPU, whatever they are told
  )


def _translate(axes: tuple[str | None, ...]) -> jax.P:
  mesh_axes = [None if a is None else RULES[a] for a in axes]
  used = [m for a in mesh_axes for m in _tuple(a)]
  if len(used) != len(set(used)):
    raise ValueError(f"{axes} maps to {mesh_axes}: a mesh axis is used twice")
  return jax.P(*mesh_axes)


def _tuple(mesh_axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
  if mesh_axes is None:
    return ()
  return (mesh_axes,) if isinstance(mesh_axes, str) else mesh_axes


def shardings(specs: Any, mesh: Mesh) -> Any:
  """Anything with `.shape` and `.axes` at its leaves to NamedShardings, same structure.

  Raises:
    ValueError: a dimension that its mesh axes do not divide, named with its path.
  """

  def one(name: str, s: Any) -> jax.NamedSharding:
    for axis, size, mesh_axes in zip(s.axes, s.shape, _translate(s.axes), strict=True):
      ways = math.prod(mesh.shape[m] for m in _tuple(mesh_axes))
      if size % ways:
        raise ValueError(
          f"{name}: {axis} = {size} does not divide over mesh axes {mesh_axes} ({ways} ways)"
        )
    return jax.NamedSharding(mesh, _translate(s.axes))

  return tree.map_named(one, specs)


def concrete(shapes: Any, mesh: jax.sharding.Mesh) -> Any:
  """What `jax.eval_shape` found under `mesh`, as shapes that a restore can place on its devices."""

  def one(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    where = jax.P() if x.sharding is None else x.sharding.spec
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, where))

  return jax.tree.map(one, shapes)


def batch_sharding(mesh: Mesh) -> jax.NamedSharding:
  """How every leaf of a batch lies: rows over the data axes, the rest whole."""
  return jax.NamedSharding(mesh, _translate(("batch",)))


def fewest_rows(mesh: Mesh) -> int:
  """Rows of the smallest batch: a multiple of `batch_ways`, and two where axes are explicit."""
  ways = batch_ways(mesh)
  return ways if mesh.size == 1 or ways > 1 else 2


def batch_ways(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are split."""
  return ways("batch", mesh)


def ways(axis: str, mesh: Mesh) -> int:
  """Into how many parts `mesh` splits a logical axis."""
  return math.prod(mesh.shape[name] for name in _tuple(RULES[axis]))


def parts(where: Any, mesh: Mesh) -> int:
  """Into how many parts `mesh` splits an array; where: its sharding, or None where it has none."""
  axes = () if where is None else where.spec
  return math.prod(mesh.shape[name] for entry in axes for name in _tuple(entry))


def data_shards(mesh: jax.sharding.Mesh) -> tuple[int, int]:
  """(shard, shards) of the batch rows that this process loads.

  Derived from the batch sharding: where `tensor` spans hosts, several processes load the same rows.
  """
  rows = batch_ways(mesh)
  local = batch_sharding(mesh).addressable_devices_indices_map((rows,)).values()
  starts = {index[0].indices(rows)[0] for index in local if index is not None}
  first, count = min(starts), len(starts)
  if starts != set(range(first, first + count)) or rows % count or first % count:
    raise ValueError(f"this process holds rows {sorted(starts)} of {rows}, not one even share")
  return first // count, rows // count

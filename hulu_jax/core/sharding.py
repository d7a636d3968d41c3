"""Logical axis names to mesh axes, in one table; nothing else in the project names a mesh axis."""

from collections.abc import Callable, Mapping, Sequence
import math
from typing import Any

import jax
from jax.sharding import AxisType

from hulu_jax.core import platform
from hulu_jax.core import tree

Mesh = jax.sharding.Mesh | jax.sharding.AbstractMesh

# Neighbouring devices differ in `tensor`, which talks most, then in `context`.
MESH_AXES = ("data", "fsdp", "context", "tensor")

# Parameter axes first, activation axes below.  A weight's `embed` is spread over fsdp and context
# and gathered where it is used; an activation's is whole.  `part`: a row's share of one device of
# context, which the encoder treats as a row of its own (`core.context`).
RULES: Mapping[str, str | tuple[str, ...] | None] = {
  "layer": None,
  "embed": ("fsdp", "context"),
  "heads": "tensor",
  "kv_heads": "tensor",
  "head_dim": None,
  "mlp": "tensor",
  "vocab": "tensor",
  "pixels": None,
  "rank": None,
  "batch": ("data", "fsdp"),
  "part": ("data", "fsdp", "context"),
  "seq": "context",
  "act_embed": None,
}


def make_mesh(shape: Mapping[str, int]) -> jax.sharding.Mesh:
  """A mesh with explicit axes, e.g. {"data": 2, "fsdp": -1}: a missing axis is 1, and -1, at one
  axis, is as many as the devices that remain.

  Raises:
    ValueError: an unknown axis, or a product that differs from the number of devices.
    RuntimeError: emulated devices that would hang.
  """
  platform.check()
  sizes = _sizes(filled(shape, jax.device_count()))
  if math.prod(sizes) != jax.device_count():
    raise ValueError(
      f"mesh {dict(zip(MESH_AXES, sizes, strict=True))} needs {math.prod(sizes)} devices, "
      f"found {jax.device_count()} ({jax.default_backend()}); the product of the axes of "
      "config.mesh is the number of devices, and -1 at one axis takes what remains"
    )
  return jax.make_mesh(*_axes(sizes))


def mesh_over(shape: Mapping[str, int], devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
  """The same mesh over devices that need not be here: those of a topology, to compile for."""
  return jax.make_mesh(*_axes(_sizes(filled(shape, len(devices)))), devices=devices)


def without_context(mesh: jax.sharding.Mesh) -> jax.sharding.Mesh:
  """The same devices with `context` counted to `fsdp`, for programs that keep rows whole.

  Every parameter lies on the devices where it lay, so handing it over (`moved`) moves nothing.
  """
  if context_ways(mesh) == 1:
    return mesh
  data, fsdp, context, tensor = (mesh.shape.get(name, 1) for name in MESH_AXES)
  sizes, names, types = _axes((data, fsdp * context, 1, tensor))
  return jax.sharding.Mesh(mesh.devices.reshape(sizes), names, axis_types=types)


def moved(arrays: Any, mesh: jax.sharding.Mesh) -> Any:
  """A tree of arrays of some mesh on `without_context` of it."""

  def one(x: jax.Array) -> jax.Array:
    axes = [
      tuple(dict.fromkeys("fsdp" if m == "context" else m for m in _tuple(entry)))
      for entry in x.sharding.spec
    ]
    spec = jax.P(*(entry or None for entry in axes))
    return jax.device_put(x, jax.NamedSharding(mesh, spec))

  return jax.tree.map(one, arrays)


def one_device_mesh() -> jax.sharding.Mesh:
  """A mesh of the first device alone, however many there are."""
  return jax.make_mesh(*_axes((1,) * len(MESH_AXES)), devices=jax.local_devices()[:1])


def abstract_mesh(shape: Mapping[str, int]) -> jax.sharding.AbstractMesh:
  """The same mesh without devices, for tracing at any size on any machine."""
  sizes, names, types = _axes(_sizes(shape))
  return jax.sharding.AbstractMesh(sizes, names, axis_types=types)


def _axes(sizes: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[str, ...], tuple[AxisType, ...]]:
  """Sizes, names and types of the axes that split something, explicit.

  An axis of one device is left out: a batch of one row would lose it in a reshape, and programs
  would sum over it.  One device alone has all axes, and no explicit one.
  """
  if math.prod(sizes) == 1:
    return sizes, MESH_AXES, (AxisType.Auto,) * len(sizes)
  split = [(size, name) for size, name in zip(sizes, MESH_AXES, strict=True) if size > 1]
  found, names = zip(*split, strict=True)
  return found, names, (AxisType.Explicit,) * len(split)


def filled(shape: Mapping[str, int], devices: int) -> dict[str, int]:
  """`shape` with the devices that remain in place of a -1."""
  open_axes = [name for name, size in shape.items() if size == -1]
  if len(open_axes) > 1:
    raise ValueError(f"mesh axes {open_axes} are all -1; one at most takes what remains")
  taken = math.prod(size for size in shape.values() if size != -1)
  if open_axes and (taken < 1 or devices % taken):
    raise ValueError(f"mesh {dict(shape)}: {devices} devices do not divide by {taken}")
  return {name: devices // taken if size == -1 else size for name, size in shape.items()}


def _sizes(shape: Mapping[str, int]) -> tuple[int, ...]:
  unknown = sorted(set(shape) - set(MESH_AXES))
  if unknown:
    raise ValueError(f"unknown mesh axes {unknown}; there are {list(MESH_AXES)}")
  small = {name: size for name, size in shape.items() if size < 1}
  if small:
    raise ValueError(f"mesh axes {small}; expected at least 1")
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
  return _translate(axes, mesh)


def ways(axis: str, mesh: Mesh | None = None) -> int:
  """Into how many parts a mesh splits a logical axis; None: the current one, if it is explicit."""
  if mesh is None:
    mesh = jax.sharding.get_abstract_mesh()
    if spec((axis,)) is None:
      return 1
  return _parts(mesh, RULES[axis])


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
    in_specs=tuple(spec(axes) for axes in inputs),
    out_specs=tuple(spec(axes) for axes in outputs),
    check_vma=False,  # interpreted kernels fail the check on CPU, whatever they are told
  )


def _translate(
  axes: tuple[str | None, ...], mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
) -> jax.P:
  """Of the table's mesh axes those that the mesh has."""
  mesh_axes = [() if a is None else _tuple(RULES[a]) for a in axes]
  used = [m for group in mesh_axes for m in group]
  if len(used) != len(set(used)):
    raise ValueError(f"{axes} maps to {mesh_axes}: a mesh axis is used twice")
  real = [tuple(m for m in group if m in mesh.shape) for group in mesh_axes]
  return jax.P(*(g[0] if len(g) == 1 else g or None for g in real))


def _parts(mesh: Mesh, mesh_axes: Any) -> int:
  return math.prod(mesh.shape.get(name, 1) for name in _tuple(mesh_axes))


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
    where = _translate(s.axes, mesh)
    for axis, size, mesh_axes in zip(s.axes, s.shape, where, strict=True):
      ways = _parts(mesh, mesh_axes)
      if size % ways:
        raise ValueError(
          f"{name}: {axis} = {size} does not divide over mesh axes {mesh_axes} ({ways} ways)"
        )
    return jax.NamedSharding(mesh, where)

  return tree.map_named(one, specs)


def concrete(shapes: Any, mesh: jax.sharding.Mesh) -> Any:
  """What `jax.eval_shape` found under `mesh`, as shapes that a restore can place on its devices."""

  def one(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    where = jax.P() if x.sharding is None else x.sharding.spec
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=jax.NamedSharding(mesh, where))

  return jax.tree.map(one, shapes)


def batch_sharding(mesh: Mesh) -> jax.NamedSharding:
  """How every leaf of a batch lies: rows over the data axes, the rest whole.

  So it is under `context` too: the step cuts its own share out of a row (`core.context`).
  """
  return jax.NamedSharding(mesh, _translate(("batch",), mesh))


def fewest_rows(mesh: Mesh) -> int:
  """Rows of the smallest batch."""
  return batch_ways(mesh)


def context_ways(mesh: Mesh) -> int:
  """Into how many parts every row is split."""
  return ways("seq", mesh)


def batch_ways(mesh: Mesh) -> int:
  """Into how many parts the rows of a batch are split."""
  return ways("batch", mesh)


def parts(where: Any, mesh: Mesh) -> int:
  """Into how many parts `mesh` splits an array; where: its sharding, or None where it has none."""
  axes = () if where is None else where.spec
  return math.prod(_parts(mesh, entry) for entry in axes)


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

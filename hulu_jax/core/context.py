"""How a row is dealt over the mesh axis `context`: its tokens, its slots, and what it looks up.

With c devices the tokens of a row fall into 2 c chunks of which device i gets i and 2 c - 1 - i, so
that causal attention is the same work on all of them.  Slots of patches, which see nothing but
themselves, are dealt in order.  A batch arrives whole in its rows; without context (c = 1) nothing
here is called, or does nothing.
"""

from typing import Any

import jax
import jax.numpy as jnp

from hulu_jax.core import sharding

AXIS = sharding.RULES["seq"]
_TOKENS = ("batch", "seq")


def ways() -> int:
  """Devices over which a row is dealt, under the current mesh."""
  return sharding.ways("seq")


def order(devices: int) -> tuple[int, ...]:
  """The number of the chunk that lies at each place: device by device, two each."""
  return tuple(chunk for i in range(devices) for chunk in (i, 2 * devices - 1 - i))


def deal(x: jax.Array) -> jax.Array:
  """Tokens [batch, L, ...], whole on every device, to the same ones in the order in which they lie
  over context.

  Raises:
    ValueError: an L that does not fall into equal chunks.
  """
  if ways() == 1:
    return x
  _check(x.shape[1], 2 * ways(), "tokens")
  return _along(_reordered(x, order(ways())), AXIS)


def whole(x: jax.Array) -> jax.Array:
  """`deal` undone: every token on every device, in the order of the row."""
  if ways() == 1:
    return x
  return _undone(_along(x, None), ways())


def gathered(x: jax.Array, devices: int) -> jax.Array:
  """The same inside a `shard_map` over `devices` of context: [batch, L / devices, ...] of each to
  [batch, L, ...]."""
  return _undone(jax.lax.all_gather(x, AXIS, axis=1, tiled=True), devices)


def chunks(devices: int) -> tuple[jax.Array, jax.Array]:
  """Inside a `shard_map`: which two chunks of a row this device holds, in their order."""
  here = jax.lax.axis_index(AXIS)
  return here, 2 * devices - 1 - here


def take(x: jax.Array, index: jax.Array) -> jax.Array:
  """Dealt tokens x [batch, L, ...] at places of the row, int [batch, K] -> [batch, K, ...], K over
  context in order.

  A place past the end gives zeros.  Each device looks up what it holds, and one sum puts together
  what all of them found, of which one number at most is not zero.

  Raises:
    ValueError: a K that does not fall into equal parts.
  """
  devices, length = ways(), x.shape[1]
  _check(index.shape[1], devices, "supervised positions")
  chunk = length // (2 * devices)
  number = index // chunk
  first, second = 2 * number, 2 * (2 * devices - 1 - number) + 1
  place = jnp.where(number < devices, first, second) * chunk + index % chunk
  place = jnp.where(index < length, place, length)

  def local(x: jax.Array, place: jax.Array) -> jax.Array:
    n = x.shape[1]
    own = place - jax.lax.axis_index(AXIS) * n
    found = _rows(x, jnp.where((own >= 0) & (own < n), own, n))
    return jax.lax.psum_scatter(found, AXIS, scatter_dimension=1, tiled=True)

  inputs = _placed(_TOKENS, x.ndim), _placed(("batch",), 2)
  return jax.shard_map(local, in_specs=inputs, out_specs=inputs[0])(x, place)


def part(x: jax.Array) -> jax.Array:
  """[batch, n, ...], whole in n, to [batch * c, n / c, ...]: each device's share of n becomes rows
  of its own, for work in which shares do not meet.

  Raises:
    ValueError: an n that does not fall into equal parts.
  """
  if ways() == 1:
    return x
  _check(x.shape[1], ways(), "slots")
  cut, rows = _placed(_TOKENS, x.ndim), _placed(("part",), x.ndim)
  return jax.shard_map(lambda x: x, in_specs=cut, out_specs=rows)(jax.reshard(x, cut))


def look_up(x: jax.Array, index: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
  """What dealt tokens find in parts: x [batch * c, n / c, embed], index int [batch, L] into n, a
  place past its end gives zeros -> [batch, L, embed].

  sizes: n is so many consecutive groups, each of which was cut into parts by itself.
  """
  devices, share = ways(), x.shape[1]
  place, start = jnp.full_like(index, devices * share), 0
  for size in sizes:
    own = size // devices
    inside = index - start
    here = (inside >= 0) & (inside < size)
    found = inside // own * share + start // devices + inside % own
    place = jnp.where(here, found, place)
    start += size

  def local(x: jax.Array, place: jax.Array) -> jax.Array:
    return _rows(jax.lax.all_gather(x, AXIS, axis=1, tiled=True), place)

  inputs = _placed(("part",), x.ndim), _placed(_TOKENS, 2)
  return jax.shard_map(local, in_specs=inputs, out_specs=_placed(_TOKENS, x.ndim))(x, place)


def _rows(x: jax.Array, index: jax.Array) -> jax.Array:
  return jax.vmap(lambda row, i: row.at[i].get(mode="fill", fill_value=0))(x, index)


def _undone(x: jax.Array, devices: int) -> jax.Array:
  places = order(devices)
  return _reordered(x, tuple(places.index(chunk) for chunk in range(len(places))))


def _reordered(x: jax.Array, chunks: tuple[int, ...]) -> jax.Array:
  """The equal chunks of axis 1 in another order."""
  size = x.shape[1] // len(chunks)
  return jnp.concatenate([x[:, n * size : (n + 1) * size] for n in chunks], axis=1)


def _check(length: int, number: int, what: str) -> None:
  if length % number:
    raise ValueError(f"{length} {what} of a row do not fall into {number} equal parts for context")


def _along(x: jax.Array, axis: Any) -> jax.Array:
  """x with its tokens split over a mesh axis, or over none; everything else as it is."""
  placed = jax.typeof(x).sharding.spec
  return jax.reshard(x, jax.P(placed[0], axis, *placed[2:]))


def _placed(axes: tuple[str | None, ...], ndim: int) -> Any:
  return sharding.spec(axes + (None,) * (ndim - len(axes)))

"""What the compiled 2x2x2 train step moves between devices: parameters, gradients, sums; no media.

Every array with a length of the batch in its shape (tokens, patches, visual tokens, supervised
positions) is an activation; no parameter or shard of one has such a length (see `mixed.SHAPE`).
"""

import math
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest

from hulu_jax.models import hulu
from hulu_jax.models import presets
from tests.models.mixed import SHAPE

KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter|collective-broadcast"
_LINE = re.compile(rf"= (?P<out>\(.*?\)|\S+) (?P<kind>{KINDS})(?:-start)?\((?P<rest>.*)$")
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
AXES = ("data", "fsdp", "tensor")


class Collective(NamedTuple):
  kind: str
  arrays: list[tuple[str, tuple[int, ...]]]  # dtype and shape of what comes out
  axes: set[str]  # mesh axes over which its groups stretch
  line: str


def collectives(hlo: str) -> list[Collective]:
  found = []
  for line in hlo.splitlines():
    match = _LINE.search(line)
    if match:
      arrays = [
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in _ARRAY.findall(match["out"])
      ]
      found.append(Collective(match["kind"], arrays, spanned(groups(match["rest"])), line.strip()))
  return found


def groups(text: str) -> list[list[int]]:
  """Device groups of an instruction, from whichever of XLA's spellings it uses."""
  if pairs := re.search(r"source_target_pairs=\{\{(.*?)\}\}", text):
    return [[int(i) for i in pair.split(",")] for pair in pairs[1].split("},{")]
  if lists := re.search(r"replica_groups=\{\{(.*?)\}\}", text):
    return [[int(i) for i in group.split(",")] for group in lists[1].split("},{")]
  if iota := re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text):
    return arranged(iota[2], iota[3]).reshape(numbers(iota[1])).tolist()
  named = re.search(
    r"replica_groups=mesh\[(.*?)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?\{(.*?)\}",
    text,
  )
  if not named:
    raise AssertionError(f"groups in a spelling that this test does not read: {text[:300]}")
  names, sizes = zip(*re.findall(r"'(\w+)'=(\d+)", named[1]), strict=True)
  sizes = [int(n) for n in sizes]
  devices = arranged(named[2] or str(math.prod(sizes)), named[3]).reshape(sizes)
  over = [names.index(name) for name in re.findall(r"'(\w+)'", named[4])]
  rest = [i for i in range(len(sizes)) if i not in over]
  grouped = devices.transpose(*rest, *over)
  return grouped.reshape(-1, math.prod(sizes[i] for i in over)).tolist()


def numbers(text: str) -> list[int]:
  return [int(n) for n in text.split(",")]


def arranged(dims: str, order: str | None) -> np.ndarray:
  """Devices counted off in a box of `dims`, its axes then put in `order`."""
  box = np.arange(math.prod(numbers(dims))).reshape(numbers(dims))
  return (box.transpose(numbers(order)) if order else box).ravel()


def spanned(device_groups: list[list[int]]) -> set[str]:
  """Mesh axes along which the members of a group differ; device 4 * data + 2 * fsdp + tensor."""
  found = set()
  for group in device_groups:
    places = np.array([np.unravel_index(device, (2, 2, 2)) for device in group])
    found |= {axis for axis, column in zip(AXES, places.T, strict=True) if len(set(column)) > 1}
  return found


PATCHES = [g.slots * g.size for g in SHAPE.groups]
POOLED = [g.pooled for g in SHAPE.groups]
BATCH_LENGTHS = {
  SHAPE.tokens,
  SHAPE.supervised,
  SHAPE.visual,
  *PATCHES,
  sum(PATCHES),
  *(g.size for g in SHAPE.groups),
  *POOLED[:3],  # the last is too short to tell from a head count
  sum(POOLED),
}


def parameter_lengths() -> set[int]:
  """Every length of a parameter or of a shard of one."""
  lengths = {n for s in jax.tree.leaves(hulu.specs(presets.TINY)) for n in s.shape}
  # A grey patch reads the kernel summed over its three channels.
  return lengths | {n // 2 for n in lengths} | {n // 3 for n in lengths if n == 588} | {98}


def is_activation(shape: tuple[int, ...]) -> bool:
  return bool(set(shape) & BATCH_LENGTHS)


@pytest.fixture(scope="module")
def found(run_on_2x2x2) -> list[Collective]:
  return collectives(run_on_2x2x2.hlo)


def test_the_lengths_tell_activations_from_parameters():
  assert not BATCH_LENGTHS & parameter_lengths()


def test_the_reader_of_groups_reads_every_spelling():
  tensor_pairs = [[0, 1], [2, 3], [4, 5], [6, 7]]
  assert groups("replica_groups={{0,1},{2,3},{4,5},{6,7}}, x") == tensor_pairs
  assert groups("replica_groups=[4,2]<=[8], x") == tensor_pairs
  assert groups("replica_groups=mesh['a'=4,'b'=1,'c'=2] {'c'}, x") == tensor_pairs
  assert spanned(tensor_pairs) == {"tensor"}
  assert spanned(groups("replica_groups=[4,2]<=[4,2]T(1,0)")) == {"data", "fsdp"} - {"data"}
  assert spanned(groups("replica_groups=[4,2]<=[2,2,2]T(2,1,0)")) == {"data"}
  turned = "replica_groups=mesh['a'=1,'b'=2,'c'=4], device_ids=([2,2,2]T(1,0,2)) {'b'}, x"
  assert spanned(groups(turned)) == {"fsdp"}
  assert spanned(groups("source_target_pairs={{0,0},{1,2},{4,4},{5,6}}")) == {"fsdp", "tensor"}
  with pytest.raises(AssertionError, match="spelling"):
    groups("replica_groups=something")


def test_there_is_something_to_judge(found):
  kinds = {c.kind for c in found}
  assert {"all-gather", "all-reduce"} <= kinds
  assert any(is_activation(shape) for c in found for _, shape in c.arrays)


def test_no_bytes_of_a_picture_travel(found):
  """Patches are the only uint8 of a step; as floats they are [..., 588] or [..., 196] wide."""
  for c in found:
    for dtype, shape in c.arrays:
      assert dtype not in ("u8", "s16"), c.line
      assert not (is_activation(shape) and shape[-1] in (196, 588)), c.line


def test_activations_are_only_summed_and_only_over_tensor(found):
  """Why each sum there is may be there, and nothing else.

  Heads and MLP columns are split over `tensor`, so their products are partial sums: an all-reduce
  after attention and one after the MLP of each layer, forward and backward, and after the
  projector.  The embedding lookup adds what each slice of the vocabulary found; the loss's softmax
  adds over the vocabulary.  A gather, a permutation, or any sum over `data` or `fsdp` would move
  one row's features to another row's device.
  """
  for c in found:
    if any(is_activation(shape) for _, shape in c.arrays):
      assert c.kind == "all-reduce", c.line
      assert c.axes == {"tensor"}, c.line


def test_summed_activations_are_embeddings_or_loss_terms(found):
  """What is added over tensor is as wide as `embed`, or one number per supervised position."""
  embed = presets.TINY.decoder.embed
  for c in found:
    for _, shape in c.arrays:
      if is_activation(shape):
        assert shape[-1] == embed or shape[-1] == SHAPE.supervised, c.line


def test_what_else_travels_are_parameters_and_their_gradients(found):
  """Parameters lie split over `fsdp` and are gathered where they are used.

  XLA may hand shards on by a permutation first.  Gradients are summed over the rows, that is over
  `data` and `fsdp`, and over `tensor` where a leaf is whole there; scalars are the loss, its weight
  and norms.
  """
  allowed = parameter_lengths() | {1, 2, 3}
  for c in found:
    for _, shape in c.arrays:
      if not is_activation(shape):
        assert set(shape) <= allowed, c.line
    if c.kind == "all-gather":
      assert "data" not in c.axes, c.line  # nothing is split over data but rows
    assert c.kind != "all-to-all", c.line

"""Greedy answers of many prompts on a mesh, and how many of them are the expected text exactly."""

from collections.abc import Callable, Sequence
import dataclasses

import jax
from jax.experimental import multihost_utils
import numpy as np

from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.data.schema import Example
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.inference import generate
from hulu_jax.inference import prompts as prompts_lib
from hulu_jax.inference.sample import GREEDY
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asker:
  """Asks on a mesh, about `rows` prompts at a time; several processes call it alike.

  mesh: of the parameters; answering keeps rows whole, so its `context` counts to `fsdp`.  rows:
  made a multiple of what that needs; new_tokens: of an answer at most.
  """

  config: HuluConfig
  compute: Compute
  tokenizer: Tokenizer
  mesh: jax.sharding.Mesh
  rows: int
  new_tokens: int

  def check(self, prompts: Sequence[Example]) -> None:
    """Raises ValueError where a prompt and its answer exceed the model's positions."""
    longest = max((len(p.tokens) for p in prompts), default=0) + self.new_tokens
    most = self.config.decoder.max_positions
    if longest > most:
      raise ValueError(
        f"evaluation.new_tokens = {self.new_tokens}: prompt and answer would take {longest} "
        f"positions, the model holds {most}"
      )

  def answers(self, params: P.Params, prompts: Sequence[Example]) -> list[str]:
    """One greedy answer per prompt, all padded to one shape, so that one program serves them.

    Call it under `jax.set_mesh(mesh)`.
    """
    if not prompts:
      return []
    mesh = sharding.without_context(self.mesh)
    if mesh is self.mesh:
      return self._answers(params, prompts, mesh, self.rows)
    fewest = sharding.fewest_rows(mesh)
    with jax.set_mesh(mesh):
      rows = -(-self.rows // fewest) * fewest
      return self._answers(sharding.moved(params, mesh), prompts, mesh, rows)

  def _answers(
    self, params: P.Params, prompts: Sequence[Example], mesh: jax.sharding.Mesh, rows: int
  ) -> list[str]:
    shape = prompts_lib.shape_for(prompts, rows)
    plan = generate.Plan(
      config=self.config,
      # Nothing is differentiated, and a prompt's slots need not fall into the passes of a step.
      compute=dataclasses.replace(self.compute, vision_pass=None),
      merges=tuple(group.merge for group in shape.groups),
      eos=self.tokenizer.eos,
      new_tokens=self.new_tokens,
      sampling=GREEDY,
    )
    number, shards = sharding.data_shards(mesh)
    size = rows // shards
    where = sharding.batch_sharding(mesh)
    found: list[str] = []
    for start in range(0, len(prompts), rows):
      asked = prompts[start : start + rows]
      own = prompts_lib.fill(asked[number * size :][:size], shape._replace(rows=size))
      batch = jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(where, np.asarray(x)), own
      )
      ids = generate.generate(params, batch, jax.random.key(0), plan)
      found += [self._text(row) for row in _fetched(ids)[: len(asked)]]
    return found

  def _text(self, ids: np.ndarray) -> str:
    ends = np.flatnonzero(np.isin(ids, self.tokenizer.eos))
    return self.tokenizer.decode(ids[: ends[0]] if len(ends) else ids)


def _fetched(ids: jax.Array) -> np.ndarray:
  """All rows, on every process."""
  if jax.process_count() == 1:
    return np.asarray(ids)
  return np.asarray(multihost_utils.process_allgather(ids, tiled=True))


def matches(answers: Sequence[str], expected: Sequence[str]) -> list[bool]:
  """Whether each answer is the expected text, outer white space aside."""
  return [a.strip() == e.strip() for a, e in zip(answers, expected, strict=True)]


def fractions(
  name: str, hits: Sequence[bool], of: Sequence[str], key: Callable[[str], str]
) -> dict[str, float]:
  """`name`, the fraction of hits, and per group of `of`, named by `key(group)`."""
  out = {name: float(np.mean(hits))}
  for group in sorted(set(of)):
    own = [hit for hit, label in zip(hits, of, strict=True) if label == group]
    out[key(group)] = float(np.mean(own))
  return out

"""What `hulu convert --verify` does: both sides answer the same prompts, and are held together."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from hulu_jax import api
from hulu_jax.api import Model
from hulu_jax.cli import _convert_torch
from hulu_jax.data import compression
from hulu_jax.data.examples import Builder
from hulu_jax.data.schema import Example
from hulu_jax.inference import prompts as prompts_lib
from hulu_jax.models import hulu
from hulu_jax.weights import checkpoint
from hulu_jax.weights import unpickle

MODALITIES = ("text", "image", "images", "volume", "video")
# Of the largest logit.  float32 differs by the order of sums over some dozen layers; bfloat16 keeps
# 8 bits, and its errors add up likewise.
TOLERANCE = {"float32": 1e-4, "bfloat16": 6e-2}
_NEW = 8  # tokens that both sides go on by


class Found(NamedTuple):
  """One modality: largest difference of a logit, largest logit, greedy tokens that agree."""

  error: float
  largest: float
  agree: int
  tokens: int


@dataclasses.dataclass(frozen=True)
class Check:
  """dtype: of the computation; tolerance: largest difference over the largest logit; ema: whether
  of a run its average was converted."""

  tokenizer: Path | None
  dtype: str
  tolerance: float
  ema: bool


def compare(source: Path, target: Path, check: Check) -> bool:
  """Prints a table by modality; returns whether all are within the tolerance.

  Raises:
    ValueError: no tokenizer anywhere.
  """
  theirs, ours = _sides(source, target)
  words = check.tokenizer or next((p for p in (target, source) if p.is_dir()), None)
  print(f"verify in {check.dtype}: hulu_jax on {ours.name}, the other side on {theirs.name}")
  average = check.ema and ours == source
  model = api.load(ours, tokenizer=words, dtype=check.dtype, ema=average)
  print(f"{'modality':<10}{'max error':>12}{'largest':>12}{'of it':>12}{'greedy':>10}")
  fine = True
  for name, found in _compared(model, theirs, check):
    share = found.error / found.largest
    print(
      f"{name:<10}{found.error:12.3e}{found.largest:12.3e}{share:12.3e}"
      f"{found.agree:>6}/{found.tokens}"
    )
    fine &= share <= check.tolerance  # not a number is not fine
  verdict = "within" if fine else "BEYOND"
  print(f"{verdict} the tolerance of {check.tolerance:g} of the largest logit")
  return fine


def _sides(source: Path, target: Path) -> tuple[Path, Path]:
  """(what PyTorch opens, what we open): both sides of the conversion, where each can."""
  if not (target / "config.json").is_file():
    return (target if checkpoint.is_run(source) else source), target
  opens = checkpoint.is_run(source) or (source / "config.json").is_file()
  return target, source if opens and not unpickle.found(source) else target


def _compared(model: Model, theirs: Path, check: Check) -> Iterator[tuple[str, Found]]:
  if checkpoint.is_run(theirs):
    raise ValueError(f"neither side is PyTorch's: {theirs} is a run folder")
  torch = _convert_torch.Torch(theirs, model.config, check.dtype)
  prompts = _prompts(model)
  assert model.tokenizer is not None
  image = model.tokenizer.special["image"]
  answers = [torch.answer(example, image, _NEW) for example in prompts.values()]
  whole = [_longer(e, tokens) for e, (tokens, _) in zip(prompts.values(), answers, strict=True)]
  ours = _logits(model, whole)
  for (name, example), (tokens, want), got in zip(prompts.items(), answers, ours, strict=True):
    greedy = got[len(example.tokens) - 1 : -1].argmax(axis=-1)
    yield (
      name,
      Found(
        error=float(np.abs(got - want).max()),
        largest=float(np.abs(want).max()),
        agree=int((greedy == tokens).sum()),
        tokens=len(tokens),
      ),
    )


def _prompts(model: Model) -> Mapping[str, Example]:
  """A prompt for each modality, its pixels drawn from a fixed seed; nothing is dropped."""
  if model.tokenizer is None:
    raise ValueError("--verify asks in words: give --tokenizer=PATH")
  random = np.random.default_rng(0)

  def item(kind: str, *shape: int) -> dict[str, object]:
    return {"type": kind, "frames": random.integers(0, 256, shape, dtype=np.uint8)}

  media = {
    "text": [],
    "image": [item("image", 1, 84, 112, 3)],
    "images": [item("image", 1, 70, 70, 3), item("image", 1, 56, 98, 1)],
    "volume": [item("volume", 5, 112, 140, 1)],
    "video": [{**item("video", 3, 112, 112, 3), "timestamps": [0.0, 1.0, 2.0]}],
  }
  assert tuple(media) == MODALITIES
  policy = dataclasses.replace(model.policy, compression=compression.OFF)
  builder = Builder(tokenizer=model.tokenizer, policy=policy, root=None)
  text = {"type": "text", "text": "Is there a finding? Describe it."}
  return {
    name: builder.build([{"role": "user", "content": [*items, text]}], name, generate=True)
    for name, items in media.items()
  }


def _longer(example: Example, tokens: np.ndarray) -> Example:
  return dataclasses.replace(
    example,
    tokens=np.concatenate([example.tokens, tokens]),
    weights=np.concatenate([example.weights, np.zeros(len(tokens), np.float32)]),
  )


def _logits(model: Model, examples: Sequence[Example]) -> list[np.ndarray]:
  """float32 [tokens, vocab] of each conversation; one program, a row for each."""
  batch, shape = prompts_lib.to_batch(examples, len(examples))
  merges = tuple(group.merge for group in shape.groups)
  with jax.set_mesh(model.mesh):
    found = np.asarray(_forward(model.params, batch, merges, model.config, model.compute))
  return [row[: len(example.tokens)] for row, example in zip(found, examples, strict=True)]


_forward = jax.jit(hulu.logits, static_argnums=(2, 3, 4))

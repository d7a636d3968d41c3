"""One conversion: everything is checked, then a folder is written beside its place and renamed."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Protocol

import numpy as np

from hulu_jax.weights import atomic
from hulu_jax.weights import card as card_lib
from hulu_jax.weights import checkpoint
from hulu_jax.weights import hf_write
from hulu_jax.weights import sources
from hulu_jax.weights import targets
from hulu_jax.weights.assemble import Model
from hulu_jax.weights.card import Card
from hulu_jax.weights.rows import Rows
from hulu_jax.weights.targets import Progress

# What a user calls a layout, and what the table of names calls it; None: a run folder of ours.
LAYOUTS: Mapping[str, str | None] = {
  "hulu_jax": None,
  "hulu-med": "hulumed",
  "hulu-med-local": "hulumed_local",
  "transformers": "video_llama_3",
}


class Words(Protocol):
  """What a conversion needs of a `data.tokenizer.Tokenizer`."""

  special: Mapping[str, int]
  eos: tuple[int, ...]
  size: int

  def save(self, folder: pathlib.Path) -> None:
    """Writes the tokenizer into `folder`."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Order:
  """What is wanted.  dtype: None keeps each tensor's; shard_size: most bytes of a file.

  made: one sentence for the model card; source: what may not be replaced.
  """

  layout: str
  dtype: np.dtype | None
  shard_size: int
  words: Words | None
  card: Card
  made: str
  source: pathlib.Path | None
  force: bool


def run(model: Model, target: pathlib.Path, order: Order, progress: Progress) -> list[str]:
  """Writes `target`; returns what was decided on the way, a line each.

  Raises:
    FileExistsError, FileNotFoundError: `target` is there, or its parent is not.
    OSError: a full disk.
    ValueError: an architecture that the layout cannot say, or values that may not travel.
  """
  layout, words, c = LAYOUTS[order.layout], order.words, model.config
  if layout is not None:
    hf_write.refuse(c, layout)
  if words is not None and words.size > c.decoder.vocab:
    raise ValueError(f"the tokenizer has {words.size} ids, the model {c.decoder.vocab}")
  rows = Rows(
    used=None if words is None else words.size,
    image=None if words is None else words.special["image"],
    notes=[],
  )
  items = sources.items(model.source, c, layout or "hulumed", order.dtype)
  atomic.check_space(target.absolute().parent, sum(item.size for item in items))
  with atomic.folder(target, source=order.source, force=order.force) as new:
    if layout is None:
      targets.write_run(new, items, model.source, rows, progress)
      checkpoint.write_description(new, c, model.policy)
    else:
      targets.write_torch(new, items, model.source, rows, order.shard_size, progress)
    said = _describe(new, model, order, items) if layout else _words(new, words)
    notes = [*model.notes, *rows.notes, *said]
    card_lib.write(new, order.card, order.made, model.policy, [*rows.notes, *said])
  return notes


def _words(new: pathlib.Path, words: Words | None) -> list[str]:
  if words is None:
    return ["no tokenizer was found, none is written; give --tokenizer=PATH"]
  words.save(new)
  return []


def _describe(
  new: pathlib.Path, model: Model, order: Order, items: Sequence[sources.Item]
) -> list[str]:
  """Everything of a Hugging Face folder but the weights."""
  layout, words = LAYOUTS[order.layout], order.words
  assert layout is not None
  notes = _words(new, words)
  ids = _ids(new, layout, words)
  config = hf_write.config(model.config, layout, model.policy, sources.common_dtype(items), ids)
  (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
  hf_write.write_processor(new, layout, model.policy)
  if words is not None:
    hf_write.write_generation(new, words.eos, ids["pad"])
    if (new / "tokenizer.json").is_file():
      hf_write.write_tokenizer_config(new, model.config.decoder.max_positions)
    else:
      notes.append("the tokenizer is a SentencePiece model, which transformers does not read here")
  return [*notes, *hf_write.differences(model.config, layout, model.policy)]


def _ids(new: pathlib.Path, layout: str, words: Words | None) -> dict[str, int | None]:
  """Token ids of a layout; None where no tokenizer says one."""
  if words is None:
    return dict.fromkeys(("image", "video", "eos", "pad"))
  ends = {"eos": words.eos[0], "pad": words.eos[-1]}
  if layout != "video_llama_3" or not (new / "tokenizer.json").is_file():
    return {"image": words.special["image"], "video": None, **ends}
  added = json.loads((new / "tokenizer.json").read_text())["added_tokens"]
  known = {token["content"]: token["id"] for token in added}
  lost = [token for token in (hf_write.IMAGE, hf_write.VIDEO) if token not in known]
  if lost:
    raise ValueError(f"the tokenizer has no {' and no '.join(lost)}, which transformers needs")
  return {"image": known[hf_write.IMAGE], "video": known[hf_write.VIDEO], **ends}

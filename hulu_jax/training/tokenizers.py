"""Which tokenizer a run uses: its own, a given one, or one trained on its data sets' text."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from hulu_jax.data import chat
from hulu_jax.data import examples
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.media.errors import BadRecord
from hulu_jax.training import start

# Records of each data set whose text a fresh tokenizer is trained on.
_RECORDS = 500


def prepare(cfg: ConfigDict, vocab: int, datasets: Sequence[Any], workdir: Path) -> Tokenizer:
  """The run's own tokenizer, else `cfg.tokenizer`, else the first that a place of `cfg.init_from`
  holds, else a fresh one.

  Raises:
    FileNotFoundError: `cfg.tokenizer` holds none.
    ValueError: more ids than the model's vocabulary, or a vocabulary too large to train.
  """
  if tokenizer_lib.exists(workdir):
    found = tokenizer_lib.load(workdir)
  elif cfg.tokenizer:
    found = tokenizer_lib.load(Path(cfg.tokenizer))
  elif places := [place for place in start.places(cfg) if tokenizer_lib.exists(place)]:
    found = tokenizer_lib.load(places[0])
  elif vocab >= tokenizer_lib.QWEN_VOCAB:
    raise ValueError(f"{cfg.model} needs --config.tokenizer=PATH, a Qwen tokenizer.json")
  else:
    found = tokenizer_lib.train(_texts(datasets), vocab)
  if found.size > vocab:
    raise ValueError(f"the tokenizer has {found.size} ids, {cfg.model} holds {vocab}")
  return found


def _texts(datasets: Sequence[Any]) -> Iterator[str]:
  for dataset in datasets:
    for i in range(min(len(dataset), _RECORDS)):
      try:
        _, messages = examples.conversation(dataset[i])
      except BadRecord as bad:
        # The pipeline meets the record again and counts it.
        logging.warning("the tokenizer learns without a record: %s", bad)
        continue
      for message in messages:
        yield from chat.texts(message)

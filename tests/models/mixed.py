"""A mixed batch small enough for every test, and the conversations it is packed from."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.kernels import choice
from hulu_jax.models.scan import FLOAT32
from hulu_jax.training import optimizer as optimizer_lib

# No length of a batch equals a length of a parameter (or a shard of one), so that an array in the
# compiled step can be told by its shape.
SHAPE = StepShape(
  rows=4,
  tokens=113,
  supervised=23,
  visual=41,
  groups=(Group(2, 18, 3, 1), Group(2, 19, 1, 1), Group(2, 36, 1, 2), Group(1, 20, 3, 2)),
)
MERGES = tuple(g.merge for g in SHAPE.groups)
PLAIN = dataclasses.replace(FLOAT32, kernels=choice.automatic("cpu"))
REMAT = dataclasses.replace(PLAIN, vision_remat="full", decoder_remat="save_attention")
# A gradient can be read off the optimizer's first moment: no clipping, and b1 = 0.5 halves it.
SETTINGS = optimizer_lib.Settings(
  learning_rates={"vision": 1e-3, "projector": 2e-3, "decoder": 3e-3},
  warmup=0.1,
  decay_start=0.5,
  final=0.1,
  b1=0.5,
  b2=0.99,
  eps=1e-6,
  weight_decay=0.1,
  clip=1e6,
)


def record(*content: Any, question: str, answer: str) -> list[Any]:
  items = [*content, {"type": "text", "text": question}]
  return [
    {"role": "user", "content": items},
    {"role": "assistant", "content": answer},
  ]


def medium(kind: str, frames: int, height: int, width: int, channels: int, seed: int) -> Any:
  rng = np.random.default_rng(seed)
  # Smooth in time, so that compression drops some tokens and keeps others.
  base = rng.integers(0, 200, (1, height, width, channels))
  step = rng.integers(0, 40, (frames, height // 14, width // 14, channels)).repeat(14, 1)
  pixels = np.clip(base + step.repeat(14, 2), 0, 255).astype(np.uint8)
  times = {} if kind != "video" else {"timestamps": [0.5 * t for t in range(frames)]}
  return {"type": kind, "frames": pixels, **times}


CONVERSATIONS = {
  "pictures": record(
    medium("image", 1, 42, 56, 1, 0),
    medium("image", 1, 28, 84, 3, 1),
    question="Which ?",
    answer="The right one.",
  ),
  "both": record(
    medium("volume", 2, 56, 84, 1, 4),
    medium("image", 1, 28, 28, 1, 5),
    question="And now?",
    answer="Clear, 3 mm.",
  ),
  "text": record(question="Is the heart normal?", answer="Yes."),
  "volume": record(medium("volume", 3, 56, 56, 1, 2), question="Third?", answer="middle"),
  "clip": record(medium("video", 2, 28, 56, 3, 3), question="What moves?", answer="No."),
}


class Mixed(NamedTuple):
  """A batch in which text, grey and colour pictures, a volume and a clip share rows."""

  examples: list[Example]
  batch: Batch
  places: dict[str, tuple[int, slice]]  # example -> its row and where in it

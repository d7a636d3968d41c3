"""A batch of every kind of input, and the tiny model's forward pass compiled for it."""

from typing import Any

import jax
import pytest

from hulu_jax.data import packing
from hulu_jax.data.schema import Batch
from hulu_jax.models import hulu
from hulu_jax.models import presets
from tests.models.mixed import CONVERSATIONS
from tests.models.mixed import MERGES
from tests.models.mixed import PLAIN
from tests.models.mixed import SHAPE


@pytest.fixture(scope="session")
def packed(builder) -> Batch:
  packer = packing.Packer(SHAPE)
  for name, messages in CONVERSATIONS.items():
    assert packer.add(builder.build(messages, name, generate=False))
  return packer.batch()


@pytest.fixture(scope="session")
def forward(quick) -> Any:
  """(params, batch) -> float32 logits [rows, tokens, vocab]."""

  def run(w: Any, batch: Batch) -> jax.Array:
    return hulu.logits(w, batch, MERGES, presets.TINY, PLAIN)

  return jax.jit(run, compiler_options=quick)

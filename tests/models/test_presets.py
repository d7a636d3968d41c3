"""The table of sizes against the parameter counts of the published models."""

import pytest

from hulu_jax.core import params as P
from hulu_jax.models import decoder
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import projector
from hulu_jax.models import vision

ENCODER = 412_147_440
# Decoder, projector.
COUNTS = {
  "hulu-4b": (4_022_468_096, 9_507_840),
  "hulu-7b": (7_615_616_512, 16_980_992),
  "hulu-14b": (14_768_307_200, 32_122_880),
  "hulu-32b": (32_763_876_352, 32_122_880),
}


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_counts(name):
  c = presets.get(name)
  assert P.count(vision.specs(c.vision)) == ENCODER
  assert (P.count(decoder.specs(c.decoder)), P.count(projector.specs(c))) == COUNTS[name]
  assert P.count(hulu.specs(c)) == ENCODER + sum(COUNTS[name])


def test_an_untied_head_is_one_more_table():
  tied = presets.get("hulu-4b").decoder
  table = tied.vocab * tied.embed
  assert P.count({"embed": decoder.specs(tied)["embed"]}) == table == 388_956_160
  assert "head" not in decoder.specs(tied)
  assert "head" in decoder.specs(presets.get("hulu-14b").decoder)


def test_the_tiny_preset_is_tiny_and_has_every_part():
  c = presets.get("tiny")
  assert 200_000 <= P.count(hulu.specs(c)) <= 3_000_000
  assert c.decoder.kv_heads < c.decoder.heads


def test_an_unknown_preset_lists_those_there_are():
  with pytest.raises(ValueError, match="no preset 'hulu-8b'; there are: tiny, hulu-4b, hulu-7b"):
    presets.get("hulu-8b")

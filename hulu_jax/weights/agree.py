"""Whether a config.json says the architecture of a run: what no tensor's shape shows."""

from collections.abc import Iterator
import dataclasses
import pathlib

from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import files
from hulu_jax.weights import hf_config
from hulu_jax.weights import names

# How long a context a checkpoint was trained for, and how a table was once drawn, bind nobody.
_FREE = ("max_positions", "embed_std")


def check(place: pathlib.Path, config: HuluConfig, layout: str, shapes: hf_config.Shapes) -> None:
  """Compares the config.json of a folder with `config`; a file, or a projector, has none.

  Raises:
    ValueError: every number that differs, e.g. of the rotary positions.
  """
  parts = names.parts(layout)
  if not place.is_dir() or parts == ("projector",):
    return
  where = place / "config.json"
  raw = files.read_json(where)
  differ: list[str] = []
  if "vision" in parts:
    said = hf_config.vision(raw, str(where), shapes, layout)
    differ += _differences("vision", said, config.vision)
  if "decoder" in parts:
    text = hf_config.decoder(raw, str(where), shapes, layout)
    differ += _differences("decoder", text, config.decoder)
  if differ:
    raise ValueError(f"{where} is of another architecture: {'; '.join(differ)}")


def _differences(part: str, said: object, expected: object) -> Iterator[str]:
  there, here = (dataclasses.asdict(c) for c in (said, expected))  # type: ignore[call-overload]
  for name in here:
    if name not in _FREE and there[name] != here[name]:
      yield f"{part} {name} = {there[name]} there, {here[name]} in the model of the experiment"

"""What a conversion starts from: any checkpoint, or a model put together from parts of several."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import pathlib
import tempfile
from typing import Any

import numpy as np

from hulu_jax.data.vision import Policy
from hulu_jax.models import presets
from hulu_jax.models.config import HuluConfig
from hulu_jax.weights import checkpoint
from hulu_jax.weights import files
from hulu_jax.weights import fit
from hulu_jax.weights import hf_config
from hulu_jax.weights import hf_read
from hulu_jax.weights import names
from hulu_jax.weights import sources
from hulu_jax.weights import unpickle
from hulu_jax.weights.files import Tensors
from hulu_jax.weights.sources import Source

PARTS = ("vision", "projector", "decoder")
# An encoder or a projector may be new; a decoder that is new knows no language.
MAY_BE_FRESH = ("vision", "projector")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
  """A whole model, not read yet.  layout: what was found; notes: what was decided, a line each."""

  config: HuluConfig
  policy: Policy
  source: Source
  layout: str
  notes: list[str]


@dataclasses.dataclass(frozen=True)
class _Piece:
  path: pathlib.Path
  stored: Tensors
  layout: str
  raw: Mapping[str, Any]

  @property
  def where(self) -> str:
    return str(self.path / "config.json")


@contextlib.contextmanager
def opened(
  paths: Sequence[pathlib.Path],
  usual: Policy,
  *,
  fresh: Sequence[str] = (),
  seed: int = 0,
  ema: bool = False,
  scratch: pathlib.Path,
) -> Iterator[Model]:
  """The model that `paths` hold: a part that several have comes from the last of them.

  usual: how media are shown where no file says; fresh: parts that are drawn anew from `seed`; ema:
  of a run, the moving average of what trained in place of the last values; scratch: a folder with
  room for what .bin files hold.

  Raises:
    ValueError: parts that nothing holds; tensors that do not fit, all of them.
  """
  if len(paths) == 1 and checkpoint.is_run(paths[0]):
    config, policy = checkpoint.read_description(paths[0])
    run = sources.Run(paths[0], config, ema=ema)
    yield Model(config=config, policy=policy, source=run, layout="hulu_jax", notes=[])
    return
  if ema:
    raise ValueError("--ema: only a run folder of hulu_jax, converted alone, holds an average")
  if unknown := sorted(set(fresh) - set(MAY_BE_FRESH)):
    raise ValueError(f"--fresh={','.join(unknown)}; expected some of {', '.join(MAY_BE_FRESH)}")
  with contextlib.ExitStack() as stack:
    pieces = [_piece(path, scratch, stack) for path in paths]
    yield _model(pieces, usual, fresh, seed)


def _piece(path: pathlib.Path, scratch: pathlib.Path, stack: contextlib.ExitStack) -> _Piece:
  if checkpoint.is_run(path):
    raise ValueError(f"{path} is a run folder: it is converted alone, not put together with others")
  if not path.exists():
    raise FileNotFoundError(f"no {path}; expected a folder or a file with tensors")
  place = path
  if pickles := unpickle.found(path):
    place = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
    unpickle.to_safetensors(pickles, place)
  stored = stack.enter_context(files.opened(place))
  layout = names.detect(stored.shapes)
  described = path.is_dir() and set(names.parts(layout)) != {"projector"}
  raw = files.read_json(path / "config.json") if described else {}
  return _Piece(path, stored, layout, raw)


def _model(pieces: Sequence[_Piece], usual: Policy, fresh: Sequence[str], seed: int) -> Model:
  holder = {part: piece for piece in pieces for part in names.parts(piece.layout)}
  for part in fresh:
    holder.pop(part, None)
  lost = [part for part in PARTS if part not in holder and part not in fresh]
  if lost:
    found = "; ".join(f"{p.path} holds {', '.join(names.parts(p.layout))}" for p in pieces)
    able = [part for part in lost if part in MAY_BE_FRESH]
    hint = f", or draw anew with --fresh={','.join(able)}" if able else ""
    raise ValueError(f"no {' and no '.join(lost)}: {found}; give --add=PATH{hint}")
  config = _config(holder)
  notes = []
  opened: dict[str, Source] = {}
  for piece in pieces:
    own = names.parts(piece.layout)
    if not any(holder.get(part) is piece for part in own):
      continue
    fit.check(names.entries(config, piece.layout), piece.stored, str(piece.path))
    one = sources.Torch(piece.stored, config, piece.layout)
    opened |= {part: one for part in own if holder.get(part) is piece}
    used = ", ".join(part for part in own if holder.get(part) is piece)
    notes.append(f"{used} from {piece.path.name} ({piece.layout})")
    notes += [*hf_config.ignored(piece.raw), *_tying(piece)]
  main = holder["decoder"]
  dtype = opened["decoder"].dtype("decoder/embed", 0)
  for part in fresh:
    opened[part] = sources.Fresh(config, seed, dtype)
    notes.append(f"{part} drawn anew from seed {seed}")
  policy = hf_read.policy(main.path, usual) if main.path.is_dir() else usual
  if main.raw.get("use_token_compression") is True:
    notes.append("config.json says use_token_compression: the policy keeps compression off")
  return Model(
    config=config, policy=policy, source=sources.Parts(opened), layout=main.layout, notes=notes
  )


def _config(holder: Mapping[str, _Piece]) -> HuluConfig:
  text = holder["decoder"]
  decoder = hf_config.decoder(text.raw, text.where, text.stored.shapes, text.layout)
  if "vision" not in holder:
    return HuluConfig(vision=presets.SIGLIP, decoder=decoder)
  eye = holder["vision"]
  vision = hf_config.vision(eye.raw, eye.where, eye.stored.shapes, eye.layout)
  return HuluConfig(vision=vision, decoder=decoder)


def _tying(piece: _Piece) -> Iterator[str]:
  """A line where a config says that the head is the embedding, and a head is stored."""
  if "decoder" not in names.parts(piece.layout) or not piece.raw.get("tie_word_embeddings"):
    return
  table, head = (names.torch_name(f"decoder/{n}", piece.layout) for n in ("embed", "head"))
  if head not in piece.stored.shapes:
    return
  both = (piece.stored.blocks(name, 1) for name in (table, head))
  same = piece.stored.shapes[table] == piece.stored.shapes[head] and all(
    np.array_equal(a.view(np.uint8), b.view(np.uint8)) for a, b in zip(*both, strict=True)
  )
  yield (
    f"config.json says tied embeddings, but {head} is stored and "
    f"{'equal' if same else 'DIFFERS'}: it is kept"
  )

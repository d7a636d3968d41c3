"""`hulu convert`: a checkpoint from one layout to another, to PyTorch and back, bit by bit."""

import argparse
import importlib.util
from pathlib import Path
import sys

import jax.numpy as jnp
import numpy as np

from hulu_jax.cli import _convert_verify
from hulu_jax.cli import _progress
from hulu_jax.core import platform
from hulu_jax.core.notice import NOTICE
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data import vision
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.weights import assemble
from hulu_jax.weights import atomic
from hulu_jax.weights import card as card_lib
from hulu_jax.weights import convert
from hulu_jax.weights import hub

_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9}
_ABOUT = """\
from: Hulu-Med, VideoLLaMA3 and transformers' video_llama_3 folders (safetensors, or .bin), run
folders of hulu_jax, and parts alone: a Qwen2.5 or Qwen3 decoder, a SigLIP-NaViT encoder, a
projector.  What it is is told by its tensors' names.

example: hulu convert Hulu-Med-7B exported --to=transformers --verify
         hulu convert Qwen3-4B new --add=SigLIP-NaViT --fresh=projector --to=hulu_jax"""


def main(argv: list[str]) -> int:
  """Converts; 2 for bad input, with one line on stderr; 1 where --verify finds a difference."""
  args = _parser().parse_args(argv)
  platform.narrow()
  try:
    if args.verify:
      _check_verify(args)
    _convert(args)
    same = not args.verify or _verify(args)
  except (ValueError, OSError) as error:
    print(f"hulu convert: {error}", file=sys.stderr)
    return 2
  print(NOTICE, file=sys.stderr)
  return 0 if same else 1


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="hulu convert",
    description=__doc__,
    epilog=_ABOUT,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("source", metavar="SRC", help="folder, file, or name on the hub")
  parser.add_argument("target", metavar="DST", type=Path, help="folder to make")
  parser.add_argument("--to", required=True, choices=list(convert.LAYOUTS))
  parser.add_argument("--add", action="append", default=[], metavar="PATH", help="more parts")
  parser.add_argument("--fresh", default="", metavar="PARTS", help="draw vision,projector anew")
  parser.add_argument("--seed", type=int, default=0, help="of fresh parts")
  parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="default: kept")
  parser.add_argument("--tokenizer", type=Path, help="file or folder, where SRC has none")
  parser.add_argument("--revision", help="commit, tag or branch on the hub")
  parser.add_argument("--shard-size", default="5GB", help="most bytes of a file, e.g. 500MB")
  parser.add_argument("--ema", action="store_true", help="of a run, the average of its weights")
  parser.add_argument("--force", action="store_true", help="replace the checkpoint at DST")
  parser.add_argument("--licence", default="", help="of the weights, for the model card")
  parser.add_argument("--base", default="", help="model it was made from, for the card")
  parser.add_argument("--data", default="", help="what it was trained on, for the card")
  parser.add_argument("--verify", action="store_true", help="compare the logits of both sides")
  parser.add_argument("--verify-dtype", default="float32", choices=list(_convert_verify.TOLERANCE))
  parser.add_argument(
    "--tolerance", type=float, help="of --verify, as a share of the largest logit"
  )
  return parser


def _convert(args: argparse.Namespace) -> None:
  args.source = _found(args.source, args.revision)
  added = [_found(path, args.revision) for path in args.add]
  fresh = [part for part in args.fresh.split(",") if part]
  words = _tokenizer(args.tokenizer, [args.source, *added])
  atomic.check_target(args.target.absolute(), args.source, force=args.force)
  with atomic.scratch(args.target) as scratch:
    paths = [args.source, *added]
    with assemble.opened(
      paths, vision.HULUMED, fresh=fresh, seed=args.seed, ema=args.ema, scratch=scratch
    ) as model:
      order = convert.Order(
        layout=args.to,
        dtype=None if args.dtype is None else np.dtype(jnp.dtype(args.dtype)),
        shard_size=_bytes(args.shard_size),
        words=words,
        card=_card(args),
        made=f"Converted by `hulu convert` from {_named(args.source)} to the layout `{args.to}`.",
        source=args.source,
        force=args.force,
      )
      with _progress.Line("convert", 1000) as line:
        notes = convert.run(
          model, args.target, order, lambda done, total: line.update(1000 * done // total, {})
        )
  for note in notes:
    print(f"- {note}")
  print(f"{args.target}: layout {args.to}, from {model.layout}")


def _found(source: str | Path, revision: str | None) -> Path:
  if not hub.is_name(str(source)):
    return Path(source)
  path, commit = hub.fetch(str(source), revision)
  print(f"{source}: revision {commit}")
  return path


def _named(path: Path) -> str:
  """The last part alone: where it lay is nobody's business."""
  return f"`{path.resolve().name}`"


def _tokenizer(given: Path | None, places: list[Path]) -> Tokenizer | None:
  """The given one, else that of the first place that has one."""
  if given is not None:
    return tokenizer_lib.load(given)
  for place in places:
    if place.is_dir() and tokenizer_lib.exists(place):
      return tokenizer_lib.load(place)
  return None


def _card(args: argparse.Namespace) -> card_lib.Card:
  known = card_lib.read(args.source)
  return card_lib.Card(
    licence=args.licence or known.licence,
    base=args.base or known.base,
    data=args.data or known.data,
  )


def _bytes(text: str) -> int:
  number, unit = text[:-2], text[-2:].upper()
  if unit not in _UNITS or not number.isdigit() or not int(number):
    raise ValueError(f"--shard-size={text}; expected a number and KB, MB or GB, as in 5GB")
  return int(number) * _UNITS[unit]


def _check_verify(args: argparse.Namespace) -> None:
  """What would only be found out after a long conversion."""
  for package in ("torch", "transformers"):
    if importlib.util.find_spec(package) is None:
      raise ValueError(f"--verify needs {package}: pip install 'hulu_jax[verify]'")
  if args.to == "hulu_jax" and (args.add or args.fresh):
    raise ValueError("--verify needs one whole model on PyTorch's side: SRC is in parts")


def _verify(args: argparse.Namespace) -> bool:
  # What was rounded on the way differs by that much, however exactly it is computed.
  coarse = "float32" if args.dtype in (None, "float32") else "bfloat16"
  usual = max(_convert_verify.TOLERANCE[kind] for kind in (coarse, args.verify_dtype))
  tolerance = usual if args.tolerance is None else args.tolerance
  check = _convert_verify.Check(args.tokenizer, args.verify_dtype, tolerance, args.ema)
  # A model in parts is opened whole at DST alone: there both readers must agree.
  source = args.target if args.add or args.fresh else args.source
  return _convert_verify.compare(source, args.target, check)

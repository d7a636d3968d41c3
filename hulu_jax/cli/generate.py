"""`hulu generate`: one question about text, pictures, volumes or clips, one answer."""

import argparse
import sys
from typing import Any

from hulu_jax import api
from hulu_jax.core import platform
from hulu_jax.core.notice import NOTICE


class _Medium(argparse.Action):
  """Keeps media in the order they were given, each with its type."""

  def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
    item = {"type": str(option_string).removeprefix("--"), "path": values}
    namespace.media = [*(namespace.media or []), item]


def main(argv: list[str]) -> int:
  """Prints the answer; bad input is one line on stderr and exit code 2."""
  parser = argparse.ArgumentParser(
    prog="hulu generate",
    description=__doc__,
    epilog="example: hulu generate --model=runs/quickstart --image=scan.png "
    "--prompt='is there a disc ?'",
  )
  parser.add_argument("--model", required=True, help="run folder, Hugging Face folder or preset")
  parser.add_argument("--tokenizer", help="tokenizer.json or .model, where the model has none")
  parser.add_argument("--prompt", required=True)
  for kind in ("image", "volume", "video"):
    parser.add_argument(f"--{kind}", action=_Medium, dest="media", metavar="PATH")
  parser.add_argument("--modality", help="of volumes that cannot say, e.g. CT for NIfTI")
  parser.add_argument("--window", help="by name, e.g. lung; CT only")
  parser.add_argument("--max-new-tokens", type=int, default=64)
  parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy")
  parser.add_argument("--top-p", type=float, default=1.0)
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args(argv)
  platform.narrow()
  try:
    print(_answer(args))
  except (ValueError, OSError) as error:
    print(f"hulu generate: {error}", file=sys.stderr)
    return 2
  print(NOTICE, file=sys.stderr)
  return 0


def _answer(args: argparse.Namespace) -> str:
  media = args.media or []
  if not media and "<image>" in args.prompt:
    raise ValueError("the prompt says <image>, but no --image, --volume or --video was given")
  asked = {"modality": args.modality, "window": args.window}
  given = {name: value for name, value in asked.items() if value is not None}
  content = [*({**item, **given} for item in media), {"type": "text", "text": args.prompt}]
  model = api.load(args.model, tokenizer=args.tokenizer)
  return model.generate(
    [[{"role": "user", "content": content}]],
    max_new_tokens=args.max_new_tokens,
    temperature=args.temperature,
    top_p=args.top_p,
    seed=args.seed,
  )[0]

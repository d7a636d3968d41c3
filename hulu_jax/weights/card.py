"""The model card of a converted folder: where it comes from, what it was, what it is not."""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import re

from hulu_jax.core.notice import NOTICE
from hulu_jax.data.vision import Policy

_UNKNOWN = "not stated"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """What only a person or the source's own card knows; empty where nobody said.

  base: the model this one was made from; data: what it was trained on.
  """

  licence: str
  base: str
  data: str


def read(folder: pathlib.Path) -> Card:
  """What the front matter of a folder's README.md says, as far as it says it in one line."""
  path = folder / "README.md"
  text = path.read_text(errors="replace")[:100_000] if path.is_file() else ""
  front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
  said = (
    dict(re.findall(r"^(license|base_model|datasets):[ \t]*(\S.*)$", front[1], re.M))
    if front
    else {}
  )
  plain = {key: value.strip(" '\"") for key, value in said.items()}
  return Card(
    licence=plain.get("license", ""),
    base=plain.get("base_model", ""),
    data=plain.get("datasets", ""),
  )


def write(
  folder: pathlib.Path, card: Card, made: str, policy: Policy, notes: Sequence[str]
) -> None:
  """README.md of a folder; made: how it came about, one sentence; notes: what a user must know."""
  front = {
    "license": card.licence or "unknown",
    "library_name": "transformers" if (folder / "config.json").is_file() else "hulu_jax",
    "pipeline_tag": "image-text-to-text",
    "tags": ["medical", "not-a-medical-device"],
  }
  if card.base:
    front["base_model"] = card.base
  lines = [
    "---",
    *(f"{key}: {json.dumps(value)}" for key, value in front.items()),
    "---",
    "",
    f"**{NOTICE}**",
    "",
    made,
    "",
    f"- Licence of the weights: {card.licence or _UNKNOWN}",
    f"- Base model: {card.base or _UNKNOWN}",
    f"- Training data: {card.data or _UNKNOWN}",
    f"- Preprocessing: preset `{policy.preset}`, {policy.min_tokens} to {policy.max_tokens} visual "
    f"tokens a conversation, merged {_merges(policy)}, pixels scaled to [-1, 1]",
    f"- Token compression: `{policy.compression.mode}`",
    *(f"- {note}" for note in notes),
    "",
  ]
  (folder / "README.md").write_text("\n".join(lines))


def _merges(policy: Policy) -> str:
  return ", ".join(f"{m} x {m} ({kind})" for kind, m in sorted(policy.merge.items()))

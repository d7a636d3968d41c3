"""What a user must know of a dataset before training on it, and the table of all of them."""

import dataclasses

from hulu_jax.core import plugins

PACKAGE = "hulu_jax.data.datasets"
# A caveat of every set whose questions were made from labels by a rule.
DERIVED = "questions derived from labels: a check of the pipeline, not of medicine"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
  """title: of the set.  licence: of the data, as its authors state it.  url: where it is described.

  kinds: of records: "text", "image", "volume", "video".
  group: what a patient is known by; "none" where nothing is known.
  split: where `split` comes from.
  caveats: what the set does not show, or must not be used for.
  """

  title: str
  licence: str
  url: str
  kinds: tuple[str, ...]
  group: str
  split: str
  caveats: tuple[str, ...]


def cards() -> dict[str, Card]:
  """The card of every plugin that has one, by the plugin's name."""
  modules = {name: vars(plugins.load(PACKAGE, name)) for name in plugins.names(PACKAGE)}
  return {name: names["CARD"] for name, names in modules.items() if "CARD" in names}


def table() -> str:
  """The cards as a Markdown table, one row each: docs/datasets.md holds it."""
  heads = ("`name`", "set", "licence", "kinds", "group", "split", "caveats")
  rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
  for name, card in cards().items():
    title = f"[{card.title}]({card.url})"
    cells = (
      f"`{name}`",
      title,
      card.licence,
      ", ".join(card.kinds),
      card.group,
      card.split,
      "; ".join(card.caveats),
    )
    rows.append(f"| {' | '.join(cells)} |")
  return "\n".join(rows)

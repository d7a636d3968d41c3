"""Every dataset says under which licence it stands, what it cannot show, and how a record looks."""

import ast
import importlib

import pytest

from hulu_jax.core import plugins
from hulu_jax.data.datasets import _card

# Plugins that read a format, not a set: the user's own data, or data that is drawn.
FORMATS = {"jsonl", "json_list", "synthetic_disc", "prepared", "parquet"}
SETS = sorted(set(plugins.names(_card.PACKAGE)) - FORMATS)


def test_the_sets_are_those_that_were_promised():
  promised = """bccd mednist hannover_cxr pubmedqa medmcqa medquad casimedicos mts_dialog
    totalsegmentator pocus_lung vqa_rad slake path_vqa pmc_vqa m3d amos_mm mimic_cxr cholec80_vqa"""
  assert set(promised.split()) <= set(SETS)
  assert set(_card.cards()) == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_a_card_and_an_example(name):
  module = importlib.import_module(f"{_card.PACKAGE}.{name}")
  card = module.CARD
  for field in ("title", "licence", "url", "group", "split"):
    assert getattr(card, field).strip(), field
  assert card.url.startswith("https://")
  assert card.kinds and set(card.kinds) <= {"text", "image", "volume", "video"}
  assert card.caveats and all(caveat.strip() for caveat in card.caveats)
  text = ast.get_docstring(ast.parse(open(module.__file__).read()))
  assert "Layout, of " in text, "the docstring cites where the layout is described"
  assert "Example" in text and '"messages"' in text, "the docstring has one record"


def test_what_must_be_known_is_said():
  cards = _card.cards()
  said = {name: " ".join((card.licence, *card.caveats)) for name, card in cards.items()}
  derived = ("bccd", "mednist", "hannover_cxr", "totalsegmentator", "pocus_lung", "cholec80_vqa")
  assert all("check of the pipeline, not of medicine" in said[name] for name in derived)
  assert "a model's output" in said["totalsegmentator"]
  assert "different sources and scanners" in said["mednist"]
  assert "redentialed" in said["mimic_cxr"]
  for name in ("mednist", "pmc_vqa"):
    assert "share-alike" in said[name]


def test_the_documentation_holds_the_cards(root):
  page = (root / "docs" / "datasets.md").read_text()
  begin, end = "<!-- cards -->\n", "\n<!-- /cards -->"
  written = page.partition(begin)[2].partition(end)[0]
  assert written == _card.table(), (
    "docs/datasets.md is behind the cards; between its marks belongs what this prints:\n"
    'python -c "from hulu_jax.data.datasets import _card; print(_card.table())"'
  )


def test_the_documentation_names_every_field(root):
  """A mixture entry in the page for each set, with exactly the fields its Source takes."""
  page = (root / "docs" / "datasets.md").read_text()
  for name in SETS:
    tree = ast.parse(open(importlib.import_module(f"{_card.PACKAGE}.{name}").__file__).read())
    source = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == "Source")
    init = next(n for n in source.body if isinstance(n, ast.FunctionDef) and n.name == "__init__")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` | `"))
    fields = row.split("|")[2]
    assert [f.strip(" `") for f in fields.split(",")] == [a.arg for a in init.args.kwonlyargs]

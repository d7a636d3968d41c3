"""Every example of the documentation runs, and prints what the page says it prints."""

import contextlib
import dataclasses
import io
import os
from pathlib import Path
import re
import subprocess
import sys
from typing import Any, NamedTuple

import pytest

from hulu_jax.cli import inspect
from hulu_jax.media import limits
from hulu_jax.media import types
from hulu_jax.media import windows
from tests.cli.test_inspect import KEYS
from tests.training.small_run import XLA_FLAGS

ROOT = Path(__file__).parents[2]
MEDIA = ROOT / "docs" / "media.md"
PAGES = sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")})
RUN = ("python", "sh")
# On pages whose other examples need a trained model or a file of the reader's, this line stands
# before an example that is run.
MARK = "<!-- tested -->"
# This one stands before the text of a file that later examples read.
FILE = r"<!-- file: (?P<file>\S+) -->"
FENCE = re.compile(
  rf"^(?:(?P<mark>{MARK})\n+|{FILE}\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
  re.MULTILINE | re.DOTALL,
)
# Seconds that one example may take, on a busy machine.
PATIENCE = 200


class Snippet(NamedTuple):
  """line: where it begins; language: of `RUN`, or "file"; shown: what the page says it prints, if
  it does; file: where a file's text goes."""

  line: int
  language: str
  text: str
  marked: bool
  shown: str | None
  file: str | None = None


def snippets(page: Path) -> list[Snippet]:
  """The examples of a page in order; a fence `output` after one is what it prints."""
  text = page.read_text()
  found: list[Snippet] = []
  for fence in FENCE.finditer(text):
    line = text.count("\n", 0, fence.start("text"))
    if fence["language"] == "output":
      assert found and found[-1].shown is None, f"{page.name}:{line}: output of what?"
      found[-1] = found[-1]._replace(shown=fence["text"])
    elif fence["file"] is not None:
      found.append(Snippet(line, "file", fence["text"], True, None, fence["file"]))
    elif fence["language"] in RUN:
      found.append(Snippet(line, fence["language"], fence["text"], fence["mark"] is not None, None))
  return found


def printed(snippet: Snippet, page: Path, names: dict[str, Any]) -> str:
  """Runs an example in this folder; those in Python share `names`, as in a notebook."""
  if snippet.language == "python":
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
      exec(compile(snippet.text, f"{page}:{snippet.line}", "exec"), names)
    return out.getvalue()
  if snippet.file is not None:
    Path(snippet.file).write_text(snippet.text)
    return ""
  # `hulu` and `python` of the environment that the tests run in.
  path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
  command = ["bash", "-euo", "pipefail", "-c", snippet.text]
  environment = {**os.environ, "PATH": path, "COLUMNS": "100", "XLA_FLAGS": XLA_FLAGS}
  done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


def check(shown: str, found: str) -> None:
  """Asserts that the lines of `shown` are printed in this order, white space aside.

  A line that ends in "..." goes on in another way each time.
  """
  lines = iter(" ".join(line.split()) for line in found.splitlines())
  for line in shown.splitlines():
    wanted = " ".join(line.split())
    start = wanted.removesuffix("...")
    fits = (f == wanted or (start != wanted and f.startswith(start)) for f in lines)
    assert any(fits), f"{wanted!r} is not (or not there) in:\n{found}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run_and_print_what_the_page_says(page, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "experiments").symlink_to(ROOT / "experiments")  # readers are in the repository
  names: dict[str, Any] = {"__name__": "__main__"}
  chosen = snippets(page)
  if page != MEDIA:
    # Their examples read the file that the first one of the page on media makes.
    chosen = [snippets(MEDIA)[0], *(s for s in chosen if s.marked)]
  for snippet in chosen:
    found = printed(snippet, page, names)
    if snippet.shown is not None:
      check(snippet.shown, found)


def test_the_page_on_media_has_an_example_for_most_questions():
  text = MEDIA.read_text()
  questions = text.count("\n## ")
  assert questions >= 10 and len(snippets(MEDIA)) >= questions / 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
  for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
    if "://" in target:
      continue
    file, _, heading = target.partition("#")
    other = (page.parent / file).resolve() if file else page
    assert other.exists(), target
    if heading:
      titles = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
      anchors = {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}
      assert heading in anchors, target


def table(heading: str) -> dict[str, list[str]]:
  """The first table under a heading: its first column, without code marks, to the others."""
  part = MEDIA.read_text().split(f"\n## {heading}")[1].split("\n## ")[0]
  lines = [line for line in part.splitlines() if line.startswith("| ")][1:]
  rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
  return {row[0].strip("`"): row[1:] for row in rows}


def test_the_windows_are_those_of_the_code():
  shown = {name: (float(c), float(w)) for name, (w, c) in table("Which window?").items()}
  assert shown == windows.TABLE


def test_the_ranges_of_maps_are_those_of_the_code():
  shown = {k: v[0].split()[:3] for k, v in table("How is MR shown?").items()}
  assert shown == {
    name: [f"{q.low:g}", "to", f"{q.high:g}"] for name, q in windows.QUANTITIES.items()
  }


def test_a_record_may_say_every_option_and_each_has_a_flag(capsys):
  shown = table("What may a record")
  assert set(shown) == {field.name for field in dataclasses.fields(types.Options)}
  inspect.main(["--help"])
  help_text = capsys.readouterr().out
  for _, flag in shown.values():
    assert f"  {flag.strip('`')} " in help_text, flag


def test_every_limit_is_named():
  for field in dataclasses.fields(limits.Limits):
    assert f"`{field.name}`" in MEDIA.read_text(), field.name


def test_every_key_of_the_json_is_documented():
  shown = ",".join(table("What does `--json` print?")).replace("`", "")
  assert {key.strip() for key in shown.split(",")} == KEYS

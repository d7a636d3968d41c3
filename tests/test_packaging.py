"""What is declared is imported, pinned and shipped; nothing of this machine is in the files."""

import ast
from collections.abc import Iterator
import configparser
from importlib import metadata
from pathlib import Path
import re
import subprocess
import sys

from packaging.requirements import Requirement
from packaging.version import Version
import pytest

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parents[1]
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
# Import name -> distribution name, where they differ.
DISTRIBUTIONS = {
  "PIL": "pillow",
  "absl": "absl-py",
  "openjpeg": "pylibjpeg-openjpeg",
  "orbax": "orbax-checkpoint",
}
NOT_IMPORTED = {
  # pydicom finds this decoder by itself.
  "pyjpegls",
  # Named by the design for prepared shards, checkpoint verification, checks and chat templates.
  "array-record",
  "tensorstore",
  "chex",
  "jinja2",
}
PINS = sorted((ROOT / "constraints").glob("*.txt"))


def lines(section: str, key: str) -> list[Requirement]:
  return [Requirement(line) for line in SETUP[section][key].splitlines() if line.strip()]


def name(requirement: Requirement) -> str:
  return requirement.name.lower().replace("_", "-")


def required() -> dict[str, Requirement]:
  return {name(r): r for r in lines("options", "install_requires")}


def extras() -> dict[str, dict[str, Requirement]]:
  section = "options.extras_require"
  return {key: {name(r): r for r in lines(section, key)} for key in SETUP[section]}


def imported(folder: str) -> Iterator[tuple[str, str]]:
  """(file, distribution) of every import of something that is neither ours nor Python's."""
  for file in sorted((ROOT / folder).rglob("*.py")):
    for node in ast.walk(ast.parse(file.read_text())):
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      if isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
      for top in {n.split(".")[0] for n in names} - {"hulu_jax", "experiments", "tests", ""}:
        if top not in sys.stdlib_module_names:
          yield str(file.relative_to(ROOT)), DISTRIBUTIONS.get(top, top).lower().replace("_", "-")


def test_every_import_is_declared():
  # Those of extras are imported inside functions: `test_layers.py` sees to it.
  optional = {
    name for extra in ("quickstart", "verify", "hub", "track") for name in extras()[extra]
  }
  known = set(required()) | {n.replace("_", "-") for n in optional} | {"scikit-image", "skimage"}
  wrong = [f"{file}: {found}" for file, found in imported("hulu_jax") if found not in known]
  assert not wrong, "\n".join(wrong)


def test_every_requirement_is_imported():
  found = {distribution for _, distribution in imported("hulu_jax")}
  found |= {distribution for _, distribution in imported("experiments")}
  unused = set(required()) - found - NOT_IMPORTED
  assert not unused, sorted(unused)


def test_torch_is_for_verification_only():
  assert "torch" not in required() and "transformers" not in required()
  holders = {extra for extra, names in extras().items() if "torch" in names}
  assert holders == {"verify"}


def test_the_supported_line():
  assert SETUP["options"]["python_requires"] == ">=3.11"
  assert str(required()["jax"].specifier) == "<0.13,>=0.10.2"


@pytest.mark.parametrize("path", PINS, ids=lambda path: path.stem)
def test_pins_are_plain_and_above_the_lower_bounds(path):
  pins = {}
  for line in path.read_text().splitlines():
    assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line), line
    distribution, version = line.split("==")
    pins[distribution.lower().replace("_", "-")] = Version(version)
  needed = required() | extras()["quickstart"] | {"pytest": Requirement("pytest>=9.0")}
  for distribution, requirement in needed.items():
    assert distribution in pins, f"{distribution} is not pinned"
    assert requirement.specifier.contains(pins[distribution]), (distribution, pins[distribution])


def test_both_ends_of_the_line_are_pinned():
  found = {p.stem: re.search(r"^jax==(\S+)$", p.read_text(), re.M)[1] for p in PINS}
  assert Version(found["py311"]) == Version("0.10.2")
  assert Version("0.12") <= Version(found["py313"]) < Version("0.13")


def test_lower_bounds_are_the_versions_that_are_tested():
  text = (ROOT / "constraints" / "py311.txt").read_text()
  pins = {n.lower().replace("_", "-"): v for n, v in re.findall(r"^(\S+)==(\S+)$", text, re.M)}
  for distribution, requirement in (required() | extras()["quickstart"]).items():
    assert f">={pins[distribution]}" in str(requirement.specifier).split(","), distribution


def test_every_folder_with_code_is_a_package():
  for folder in {file.parent for file in (ROOT / "hulu_jax").rglob("*.py")}:
    assert (folder / "__init__.py").is_file(), folder
  assert (ROOT / "hulu_jax" / "py.typed").is_file()


def test_the_installed_package_has_its_command():
  (entry,) = [e for e in metadata.entry_points(group="console_scripts") if e.name == "hulu"]
  assert callable(entry.load())
  assert metadata.version("hulu_jax") == SETUP["metadata"]["version"]


def test_the_licence_is_whole():
  text = (ROOT / SETUP["metadata"]["license_files"]).read_text()
  assert SETUP["metadata"]["license"] == "Apache-2.0"
  assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text


def tracked() -> list[Path]:
  command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
  out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  if out.returncode:
    pytest.skip("not a git checkout: which files belong to the project is not known")
  return [ROOT / f for f in out.stdout.splitlines() if (ROOT / f).is_file()]


# Paths of the machines this was written on, and names of package indexes; `.` keeps this file out.
FOREIGN = re.compile(r"/wor[k]/|/hom[e]/\w|/roo[t]/|index-ur[l]|pypi\.or[g]|artifactor[y]")


def test_no_file_knows_the_machine_it_was_written_on():
  wrong = []
  for file in tracked():
    if file.suffix in (".png", ".gz", ".npz") or file.stat().st_size > 1_000_000:
      continue
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
      if FOREIGN.search(line):
        wrong.append(f"{file.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
  assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
  "page", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "docs/architecture.md"]
)
def test_links_and_paths_of_a_page_exist(page):
  text = (ROOT / page).read_text()
  for target in re.findall(r"\]\(([^)#\s]+)\)", text):
    if "://" not in target:
      assert ((ROOT / page).parent / target).exists(), target
  for path in re.findall(r"`((?:hulu_jax|tests|experiments|launch)/[\w/.]+\.\w+)`", text):
    assert (ROOT / path).exists(), path


def test_the_page_for_contributors_is_one_page():
  assert len((ROOT / "CONTRIBUTING.md").read_text().split()) < 800

"""Who may import whom, and what never happens when a module is merely imported."""

import ast
from collections.abc import Iterator
import json
from pathlib import Path
import subprocess
import sys

PACKAGE = Path(__file__).parents[1] / "hulu_jax"
# Room -> the rooms below it that it may import.  See docs/architecture.md.
BELOW = {
  "core": [],
  "media": [],
  "data": ["media"],
  "kernels": ["core"],
  "models": ["core", "kernels"],
  "peft": ["core"],
  "weights": ["core", "kernels", "models", "peft"],
  "training": ["core", "kernels", "models", "peft", "weights", "media", "data"],
  "inference": ["core", "kernels", "models", "media", "data"],
  "eval": ["core", "kernels", "models", "media", "data", "inference"],
  "api": ["core", "kernels", "models", "peft", "weights", "media", "data", "inference"],
  "interop": ["core", "kernels", "models"],
  "__init__": ["api"],
  "cli": ["*"],
  "__main__": ["cli"],
}
# Single modules that a room may use beside its rooms.
BESIDE = {
  "data": ["hulu_jax.core.plugins"],  # finds datasets by file name; imports nothing of JAX
  "weights": [
    # A checkpoint says how its media became tokens: `Policy` and its `Compression`.
    "hulu_jax.data.compression",
    "hulu_jax.data.vision",
  ],
}
NOT_IN_MODELS = ("flax", "optax", "hulu_jax.data", "orbax", "grain")
NEVER_AT_IMPORT = ("torch", "transformers", "tensorflow", "gradio")
# The only files that know the process they run in: the thread pool must be set before XLA starts,
# and Grain reads absl's flags, which a notebook never parses.
ENVIRONMENT = {"__init__.py", "core/platform.py"}
FLAGS = {"data/pipeline.py"}


def files() -> list[Path]:
  return sorted(PACKAGE.rglob("*.py"))


def room(file: Path) -> str:
  first = file.relative_to(PACKAGE).parts[0]
  return first.removesuffix(".py")


def imports(file: Path) -> Iterator[str]:
  """Full names of everything imported anywhere in a file."""
  for node in ast.walk(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
      assert not node.level, f"{file}: relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def may_import(own: str, name: str) -> bool:
  parts = name.split(".")
  other = parts[1] if len(parts) > 1 else ""
  allowed = BELOW[own]
  beside = any(name == m or name.startswith(f"{m}.") for m in BESIDE.get(own, []))
  return other in (own, "__version__") or "*" in allowed or other in allowed or beside


def test_every_room_is_in_the_table():
  assert {room(file) for file in files()} <= set(BELOW)


def test_imports_point_down():
  wrong = [
    f"{file.relative_to(PACKAGE)} imports {name}"
    for file in files()
    for name in imports(file)
    if name.split(".")[0] == "hulu_jax" and not may_import(room(file), name)
  ]
  assert not wrong, "\n".join(wrong)


def test_the_table_has_no_circle():
  def reach(own: str, seen: tuple[str, ...]) -> None:
    assert own not in seen, f"{' -> '.join(seen)} -> {own}"
    for below in BELOW[own]:
      if below != "*":
        reach(below, (*seen, own))

  for own in BELOW:
    reach(own, ())


def test_models_know_neither_data_nor_flax_nor_optax():
  wrong = [
    f"{file.relative_to(PACKAGE)} imports {name}"
    for file in files()
    for name in imports(file)
    if room(file) == "models" and name.startswith(NOT_IN_MODELS)
  ]
  assert not wrong, "\n".join(wrong)


def test_nothing_below_the_command_line_reads_environment_or_flags():
  wrong = []
  for file in files():
    name = str(file.relative_to(PACKAGE))
    text = file.read_text()
    if name.startswith("cli/"):
      continue
    if ("os.environ" in text or "getenv" in text) and name not in ENVIRONMENT:
      wrong.append(f"{name} reads the environment")
    if any(i.startswith("absl.flags") for i in imports(file)) and name not in FLAGS:
      wrong.append(f"{name} knows flags")
    if "sys.argv" in text:
      wrong.append(f"{name} reads sys.argv")
  assert not wrong, "\n".join(wrong)


IMPORT_AND_TELL = """
import importlib, json, sys
for name in json.loads(sys.argv[1]):
  importlib.import_module(name)
print(json.dumps(sorted(sys.modules)))
"""


def loaded_by(modules: list[str]) -> set[str]:
  """Everything in `sys.modules` of a fresh interpreter that imported `modules`."""
  command = [sys.executable, "-c", IMPORT_AND_TELL, json.dumps(modules)]
  out = subprocess.run(command, capture_output=True, text=True, check=False)
  assert out.returncode == 0, out.stderr
  return set(json.loads(out.stdout))


def modules(*rooms: str) -> list[str]:
  names = []
  for file in files():
    if (not rooms or room(file) in rooms) and file.name != "__main__.py":
      parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
      names.append(".".join(parts).removesuffix(".__init__"))
  return names


def test_reading_media_and_making_batches_needs_no_jax():
  """All but what needs Grain, which imports JAX by itself."""
  loud = {"hulu_jax.data.pipeline", "hulu_jax.data.mixture"}
  quiet = [name for name in modules("media", "data") if name not in loud]
  assert len(quiet) > 15
  assert not loaded_by(quiet) & {"jax", "jaxlib", "flax", "optax"}


def test_inspect_starts_without_jax():
  assert "jax" not in loaded_by(["hulu_jax", "hulu_jax.cli.main", "hulu_jax.cli.inspect"])


def test_importing_the_package_loads_no_other_framework():
  found = loaded_by(modules())
  assert not found & set(NEVER_AT_IMPORT)
  assert "jax" in found


def test_no_file_names_another_framework_outside_a_function():
  wrong = []
  for file in files():
    for node in ast.parse(file.read_text()).body:
      names = []
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      if isinstance(node, ast.ImportFrom):
        names = [node.module or ""]
      wrong += [f"{file.name}: {n}" for n in names if n.split(".")[0] in NEVER_AT_IMPORT]
  assert not wrong, "\n".join(wrong)

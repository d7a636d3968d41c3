"""The house's style, as far as a machine can read it: sizes, docstrings, idioms, linter, types."""

import ast
from collections.abc import Iterator
from pathlib import Path
import re
import subprocess
import sys
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.repository

ROOT = Path(__file__).parents[1]
CODE = sorted([*(ROOT / "hulu_jax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")])
TESTS = sorted((ROOT / "tests").rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS, NESTING = 400, 60, 8, 3
# A table of data is as long as its data.
TABLES: set[str] = set()

Function = ast.FunctionDef | ast.AsyncFunctionDef
BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
TREES = {file: ast.parse(file.read_text()) for file in [*CODE, *TESTS]}


def place(file: Path, node: ast.AST) -> str:
  return f"{file.relative_to(ROOT)}:{node.lineno}"


def functions(file: Path) -> Iterator[Function]:
  yield from (n for n in ast.walk(TREES[file]) if isinstance(n, Function))


def report(wrong: list[str]) -> None:
  assert not wrong, "\n" + "\n".join(wrong)


def test_files_are_short():
  sizes = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in TREES}
  report([f"{f}: {n} lines" for f, n in sizes.items() if n > FILE_LINES and str(f) not in TABLES])


def test_functions_are_short_with_few_parameters():
  wrong = []
  for file in TREES:
    for f in functions(file):
      lines = f.end_lineno - f.lineno + 1
      if lines > FUNCTION_LINES and str(file.relative_to(ROOT)) not in TABLES:
        wrong.append(f"{place(file, f)} {f.name}: {lines} lines")
      if len(names := parameters(f)) > PARAMETERS and file in CODE:
        wrong.append(f"{place(file, f)} {f.name}: {len(names)} parameters")
  # An experiment is data: its one function is a table.
  report([w for w in wrong if "get_config: " not in w])


def parameters(f: Function) -> list[ast.arg]:
  own = [*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs]
  return [a for a in own if a.arg not in ("self", "cls")]


def test_blocks_nest_three_deep_at_most():
  def depth(node: ast.AST) -> int:
    inner = 0
    for child in ast.iter_child_nodes(node):
      if isinstance(child, Function):
        continue  # judged by itself
      # `elif` is an `If` in an `If`'s else: as deep as the first.
      chained = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
      inner = max(inner, depth(child) + (isinstance(child, BLOCKS) and not chained))
    return inner

  report(
    [
      f"{place(file, f)} {f.name}: {depth(f)} deep"
      for file in CODE
      for f in functions(file)
      if depth(f) > NESTING
    ]
  )


def test_every_module_says_what_it_is_for():
  wrong = []
  for file in TREES:
    text = ast.get_docstring(TREES[file])
    first = (text or "").split("\n\n")[0]
    if not first.endswith("."):
      wrong.append(f"{file.relative_to(ROOT)}: {first!r}")
  report(wrong)


def public(tree: ast.Module) -> Iterator[tuple[str, Function | ast.ClassDef]]:
  """Public classes and functions of a module, and the public methods of its classes."""
  for node in tree.body:
    if isinstance(node, (ast.ClassDef, *Function.__args__)) and not node.name.startswith("_"):
      yield node.name, node
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      for method in node.body:
        if isinstance(method, Function) and not method.name.startswith("_"):
          yield f"{node.name}.{method.name}", method


def package() -> Iterator[Path]:
  return (file for file in CODE if file.is_relative_to(ROOT / "hulu_jax"))


def overrides(file: Path, name: str) -> bool:
  """Whether a method's meaning is written in a base class, or in a protocol of the same file."""
  owner, _, method = name.rpartition(".")
  bases = {n.name: [ast.unparse(b) for b in n.bases] for n in classes(file)}
  written = {n.name for c in classes(file) if c.name != owner for n in methods(c) if documented(n)}
  return bool(owner) and (bool(bases[owner]) or method in written)


def classes(file: Path) -> list[ast.ClassDef]:
  return [n for n in ast.walk(TREES[file]) if isinstance(n, ast.ClassDef)]


def methods(node: ast.ClassDef) -> list[Function]:
  return [n for n in node.body if isinstance(n, Function)]


def documented(node: ast.AST) -> bool:
  return ast.get_docstring(node) is not None


def test_everything_public_has_a_docstring():
  report(
    [
      f"{place(file, node)} {name}"
      for file in package()
      for name, node in public(TREES[file])
      if not documented(node) and not overrides(file, name)
    ]
  )


def test_everything_public_is_annotated():
  wrong = []
  for file in package():
    for name, node in public(TREES[file]):
      if isinstance(node, ast.ClassDef):
        continue
      bare = [a.arg for a in parameters(node) if a.annotation is None]
      if bare or node.returns is None:
        wrong.append(f"{place(file, node)} {name}: {', '.join([*bare, 'its result'][:4])}")
  report(wrong)


class Ban(NamedTuple):
  """What is not written here, as a pattern of source text, and what is written instead."""

  pattern: str
  instead: str


BANNED = (
  Ban(r"\bpjit\b", "jax.jit with NamedSharding"),
  Ban(r"\bPRNGKey\b", "jax.random.key"),
  Ban(r"\bjax\.tree_map\b|tree_util\.tree_map\b", "jax.tree.map"),
  Ban(r"experimental\.shard_map|experimental import shard_map", "jax.shard_map"),
  Ban(r"\bjnp\.empty(_like)?\b", "jnp.zeros"),
  Ban(r"\bwith_sharding_constraint\b", "jax.reshard or out_sharding"),
  Ban(r"\bjax\.pmap\b|\bxmap\b", "jax.jit or jax.shard_map"),
  Ban(r"\bthread_resources\b|interpreters\.pxla", "jax.sharding.get_abstract_mesh"),
  Ban(r"\buse_mesh\b", "jax.set_mesh"),
  Ban(r"\bpvary\b", "jax.lax.pcast"),
  Ban(r"partial\(jax\.jit", "@jax.jit(static_argnames=...)"),
  Ban(r"\boptax\.global_norm\b", "optax.tree.norm"),
  Ban(r"flax\.training\.checkpoints", "orbax.checkpoint"),
  Ban(r"xla_force_host_platform_device_count=\d", "jax_num_cpu_devices"),
  Ban(r"^\s*(import|from) (c?[pP]ickle|dill|shelve)\b", "a format that cannot run code"),
  Ban(r"allow_pickle=True", "a format that cannot run code"),
  Ban(r"noqa(?!: [A-Z]+\d+)", "noqa: CODE - reason"),
  Ban(r"type: ignore(?!\[)", "type: ignore[code]"),
)


@pytest.mark.parametrize("ban", BANNED, ids=lambda ban: ban.pattern)
def test_banned_idioms(ban):
  found = [
    f"{file.relative_to(ROOT)}:{number}: {line.strip()}  (write {ban.instead})"
    for file in CODE
    for number, line in enumerate(file.read_text().splitlines(), start=1)
    if re.search(ban.pattern, line)
  ]
  report(found)


def test_nothing_is_guessed_by_name_or_run_from_text():
  """No `hasattr`, no `getattr` with a default, no `exec` or `eval`, no `global`."""
  wrong = []
  for file in CODE:
    for node in ast.walk(TREES[file]):
      if isinstance(node, ast.Global):
        wrong.append(f"{place(file, node)} global")
      if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        continue
      guessed = node.func.id == "getattr" and len(node.args) == 3
      if guessed or node.func.id in ("hasattr", "exec", "eval", "setattr", "__import__"):
        wrong.append(f"{place(file, node)} {node.func.id}")
  report(wrong)


def test_no_function_takes_keywords_to_pass_them_on():
  report(
    [f"{place(file, f)} {f.name}: **{f.args.kwarg.arg}" for file in CODE for f in functions(file)
     if f.args.kwarg]
  )  # fmt: skip


def test_nothing_is_swallowed():
  """A handler does something, and a missing package is never a feature."""
  wrong = []
  for file in CODE:
    for node in ast.walk(TREES[file]):
      if not isinstance(node, ast.ExceptHandler):
        continue
      caught = ast.unparse(node.type) if node.type else "everything"
      if node.type is None:
        wrong.append(f"{place(file, node)} catches everything")
      if all(isinstance(n, (ast.Pass, ast.Continue)) for n in node.body):
        wrong.append(f"{place(file, node)} swallows {caught}")
      if re.search(r"ImportError|ModuleNotFoundError", caught) and "weights" not in file.parts:
        wrong.append(f"{place(file, node)} catches {caught}")
      broad = caught in ("Exception", "BaseException")
      if broad and not any(isinstance(n, ast.Raise) for n in ast.walk(node)):
        wrong.append(f"{place(file, node)} catches {caught} and goes on")
  report(wrong)


def test_architecture_has_no_default_numbers():
  """Configs state every number; a default below them would hide a wrong one."""
  tree = TREES[ROOT / "hulu_jax/models/config.py"]
  report(
    [
      f"{cls.name}.{ast.unparse(field.target)}"
      for cls in tree.body
      if isinstance(cls, ast.ClassDef)
      for field in cls.body
      if isinstance(field, ast.AnnAssign) and field.value is not None
    ]
  )


def run(*command: str) -> None:
  done = subprocess.run(
    [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing():
  run("ruff", "check", ".")


def test_ruff_would_reformat_nothing():
  run("ruff", "format", "--check", ".")


def test_mypy_finds_nothing():
  run("mypy")

"""A file is its own registration."""

import sys

import pytest

from hulu_jax.core import plugins


@pytest.fixture
def package(tmp_path, monkeypatch):
  folder = tmp_path / "some_plugins"
  folder.mkdir()
  (folder / "__init__.py").write_text('"""Plugins of a test."""\n')
  (folder / "good.py").write_text("value = 3\n")
  (folder / "broken.py").write_text("import a_module_that_is_not_there\n")
  (folder / "_helper.py").write_text("")
  monkeypatch.syspath_prepend(tmp_path)
  yield "some_plugins"
  for name in [n for n in sys.modules if n.startswith("some_plugins")]:
    del sys.modules[name]


def test_a_file_is_found_by_its_name(package):
  assert plugins.names(package) == ["broken", "good"]
  assert plugins.load(package, "good").value == 3


def test_an_unknown_name_lists_what_there_is(package):
  with pytest.raises(ValueError, match="no 'bad' in some_plugins; there are: broken, good"):
    plugins.load(package, "bad")
  with pytest.raises(ValueError, match="no '_helper'"):
    plugins.load(package, "_helper")


def test_a_plugin_that_fails_to_import_says_so_itself(package):
  with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
    plugins.load(package, "broken")

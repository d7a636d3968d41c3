"""The small run's data, once for all tests that start processes on it."""

from pathlib import Path

import pytest

from tests.training import small_run


@pytest.fixture(scope="package")
def small_data(tmp_path_factory, tokenizer) -> Path:
  """Records of text, pictures and volumes, their lengths, a tokenizer."""
  folder = tmp_path_factory.mktemp("small")
  small_run.write(folder, tokenizer)
  return folder

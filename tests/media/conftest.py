"""Where the shared real files lie."""

from pathlib import Path

import pytest


@pytest.fixture
def real(shared_data):
  """A real file or folder under ../shared/data; skips where it is absent."""

  def find(name: str) -> Path:
    path = shared_data / name
    if not path.exists():
      pytest.skip(f"needs {name} in ../shared/data, which this machine lacks")
    return path

  return find

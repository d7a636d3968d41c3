"""What the tests of datasets share: how to read a record, and whether patients stay apart."""

from collections import Counter
import json
from pathlib import Path

from PIL import Image
import pytest

from hulu_jax.core import plugins
from hulu_jax.data import records
from hulu_jax.data import splits
from hulu_jax.media.errors import BadRecord


@pytest.fixture
def source():
  """A dataset by its plugin's name, as the pipeline makes it."""

  def make(name, root, **fields):
    return plugins.load("hulu_jax.data.datasets", name).Source(root=str(root), **fields)

  return make


@pytest.fixture
def read():
  """(user's text, answer, media items) of a record with one question."""

  def of(record):
    if isinstance(record, BadRecord):
      raise record
    name, messages = records.normalise(record)
    assert name == record["id"]
    assert [message["role"] for message in messages] == ["user", "assistant"]
    asked, told = (message["content"] for message in messages)
    *media, question = asked
    assert question["type"] == "text" and [item["type"] for item in told] == ["text"]
    assert all(item["type"] in ("image", "volume", "video") for item in media)
    return question["text"], told[0]["text"], media

  return of


@pytest.fixture
def apart(source):
  """Checks that the splits of a set share no group and no record, and that `all` holds them."""

  def check(name, root, **fields):
    groups, ids, left_out, emptied = {}, Counter(), 0, False
    for split in splits.SPLITS:
      try:
        part = source(name, root, split=split, **fields)
      except ValueError as error:
        emptied |= "is also in a stricter split" in str(error)
        assert emptied or "no row of split" in str(error)
        continue
      left_out += part.left_out
      for i in range(len(part)):
        group = part[i].get("group", part[i]["id"])
        assert groups.setdefault(group, split) == split, f"{group} is in two splits"
        ids[part[i]["id"]] += 1
    whole = source(name, root, split="all", **fields)
    assert set(ids) <= {whole[i]["id"] for i in range(len(whole))}
    assert set(ids.values()) == {1}
    assert emptied or len(ids) + left_out == len(whole)
    return groups

  return check


@pytest.fixture
def write():
  """Writes files below a folder: text, JSON, JSON lines, or a small grey picture."""

  def to(root: Path, files):
    for name, content in files.items():
      path = root / name
      path.parent.mkdir(parents=True, exist_ok=True)
      if path.suffix in (".png", ".jpg", ".jpeg"):
        Image.new("L", (16, 14), content).save(path)
      elif path.suffix == ".jsonl" and isinstance(content, list):
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
      elif isinstance(content, str):
        path.write_text(content)
      else:
        path.write_text(json.dumps(content))
    return root

  return to

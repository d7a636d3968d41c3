"""Parquet in the Hugging Face layout: pictures by bytes or path, tags and items, bad rows."""

import dataclasses
import importlib.util
import io

import numpy as np
from PIL import Image
import pytest

from hulu_jax.data import manifest as manifest_lib
from hulu_jax.data import prepare
from hulu_jax.data.datasets import parquet
from hulu_jax.data.datasets import prepared
from hulu_jax.data.prepare import Input
from hulu_jax.media.errors import BadRecord


def png(seed, size=(56, 42)):
  pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, "PNG")
  return file.getvalue(), pixels


def test_without_pyarrow_the_error_names_the_extra(monkeypatch, tmp_path):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(ValueError, match=r"pip install 'hulu_jax\[parquet\]'"):
    parquet.Source(path=str(tmp_path / "a.parquet"))


@pytest.fixture
def library():
  """(pyarrow, pyarrow.parquet): an optional extra."""
  return pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")


def write(library, path, rows, group=2):
  arrow, files = library
  files.write_table(arrow.Table.from_pylist(rows), path, row_group_size=group)


def told(question, answer):
  return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def rows():
  first, second = (png(seed)[0] for seed in range(2))
  return [
    {"id": "a", "messages": told("<image>Is it?", "yes"), "images": [{"bytes": first}],
     "group": None},
    {"id": "b", "messages": told("x <image> y <image>", "no"),
     "images": [{"bytes": first, "path": "1.png"}, {"bytes": None, "path": "below/2.png"}]},
    {"id": None, "messages": told("words only", "no"), "images": []},
    {"id": "c", "messages": told("no tag", "no"), "images": [{"bytes": second}], "group": "p1"},
    {"id": "d", "messages": told("<image> <image>", "no"), "images": [{"bytes": second}]},
    {"id": "e", "messages": told("<image>", "no"), "images": [{"bytes": b"not a picture"}]},
  ]  # fmt: skip


def test_rows_become_examples(library, builder, tmp_path):
  (tmp_path / "below").mkdir()
  (tmp_path / "below" / "2.png").write_bytes(png(1)[0])
  write(library, tmp_path / "a.parquet", rows())
  source = parquet.Source(path=str(tmp_path / "a.parquet"))
  builder = dataclasses.replace(builder, root=tmp_path)
  assert len(source) == 6 and [p.name for p in source.files] == ["a.parquet"]
  built = {i: builder(source[i]) for i in (5, 0, 3, 1, 4, 2)}
  pixels = [png(seed)[1] for seed in range(2)]
  for index, frames in {0: pixels[:1], 1: pixels, 2: [], 3: pixels[1:]}.items():
    direct = builder(
      {
        "id": built[index].id,
        "messages": told([{"type": "image", "frames": f[None]} for f in frames], "no"),
      }
    )
    for got, want in zip(built[index].visuals, direct.visuals, strict=True):
      np.testing.assert_array_equal(got.patches, want.patches)
  assert [built[i].id for i in range(4)] == ["a", "b", "row-2", "c"]
  text = builder.tokenizer.decode(built[1].tokens).replace(" ", "")
  assert text == "user\nx\ny\n\nassistant\nno\n"
  assert source[3]["group"] == "p1"
  assert isinstance(built[4], BadRecord) and isinstance(built[5], BadRecord)


def test_images_among_items_and_llava(library, builder, tmp_path):
  data, pixels = png(0)
  items = [{"type": "image", "text": None}, {"type": "text", "text": "Is it?"}]
  messages = [
    {"role": "user", "content": items},
    {"role": "assistant", "content": [{"type": "text", "text": "yes"}]},
  ]
  write(library, tmp_path / "1.parquet", [{"id": "1", "messages": messages, "images": [data]}])
  said = [{"from": "human", "value": "Is it?\n<image>"}, {"from": "gpt", "value": "yes"}]
  write(library, tmp_path / "2.parquet", [{"id": "2", "conversations": said, "image": data}])
  source = parquet.Source(path=str(tmp_path))
  for index in range(2):
    (visual,) = builder(source[index]).visuals
    again = builder({"id": "x", "messages": told([{"type": "image", "frames": pixels[None]}], "y")})
    np.testing.assert_array_equal(visual.patches, again.visuals[0].patches)


def test_prepared_from_parquet(library, builder, tmp_path):
  write(library, tmp_path / "a.parquet", rows())
  for shard in range(2):
    job = prepare.job(
      Input("parquet", {"path": str(tmp_path / "a.parquet")}),
      dataclasses.replace(builder, root=tmp_path),
      (shard, 2),
      tmp_path / "out",
      frames=True,
      threads=2,
      force=False,
    )
    prepare.run(job, lambda done, bad: None)
  source = prepared.Source(path=str(tmp_path / "out"))
  assert source.numbers.tolist() == [0, 2, 3] and source[2]["group"] == "p1"
  bad = [m.bad for m in manifest_lib.read_all(tmp_path / "out")]
  assert bad == [{"missing": 1}, {"format": 2}]
  plain = parquet.Source(path=str(tmp_path / "a.parquet"))
  for index, number in enumerate(source.numbers):
    got, want = builder(source[index]), builder(plain[number])
    np.testing.assert_array_equal(got.tokens, want.tokens)
    for a, b in zip(got.visuals, want.visuals, strict=True):
      np.testing.assert_array_equal(a.patches, b.patches)


def test_a_file_of_other_columns_is_refused(library, tmp_path):
  write(library, tmp_path / "a.parquet", [{"question": "?", "answer": "!"}])
  with pytest.raises(ValueError, match="columns question, answer; expected messages or"):
    parquet.Source(path=str(tmp_path / "a.parquet"))

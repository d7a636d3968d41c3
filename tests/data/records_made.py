"""A small set of every kind of record, media in files, good and bad: preparing is tested on it."""

import dataclasses
from fractions import Fraction
import json
from pathlib import Path
from typing import Any

import av
import nibabel
import numpy as np
from PIL import Image

from hulu_jax.data import prepare
from hulu_jax.data.compression import Compression
from hulu_jax.data.examples import Builder
from hulu_jax.data.manifest import Manifest
from hulu_jax.data.prepare import Input

SHARDS = 3
BAD = {3: "missing", 8: "format"}  # by number of the record


def write(folder: Path) -> Path:
  """Writes media and train.jsonl into a folder; the path of the latter."""
  rng = np.random.default_rng(0)
  Image.fromarray(rng.integers(0, 256, (75, 60, 3), np.uint8)).save(folder / "skin.png")
  Image.fromarray(rng.integers(0, 256, (61, 90), np.uint8)).save(folder / "chest.png")
  slices = np.cumsum(rng.normal(0, 12, (40, 52, 7)), axis=2).astype(np.int16)
  slices[:, :34] = slices[:, :34, :1]  # nothing changes from slice to slice
  affine = np.diag([0.7, 0.7, 2.5, 1.0])
  nibabel.Nifti1Image(slices, affine).to_filename(folder / "ct.nii.gz")
  _write_clip(folder / "cine.mp4")
  file = folder / "train.jsonl"
  file.write_text("".join(json.dumps(record) + "\n" for record in records()))
  return file


def _write_clip(path: Path) -> None:
  """Five grey frames, a square wandering over them."""
  with av.open(str(path), "w") as container:
    stream = container.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for k in range(5):
      picture = np.full((48, 64, 3), 90, np.uint8)
      picture[10:30, 8 * k : 8 * k + 16] = 200
      frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
      frame.pts, frame.time_base = k, Fraction(1, 10)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def records() -> list[dict[str, Any]]:
  """The records; those of BAD cannot be used."""
  skin = {"type": "image", "path": "skin.png"}
  chest = {"type": "image", "path": "chest.png", "time": 2, "modality": "CR"}
  ct = {"type": "volume", "path": "ct.nii.gz", "modality": "CT", "window": "brain", "label": "now"}
  cine = {"type": "video", "path": "cine.mp4"}
  asked = [
    _record("text-0", []),
    _record("skin", [skin]),
    _record("chest", [chest], group="patient-1", answer_type="closed"),
    _record("gone", [{"type": "image", "path": "gone.png"}]),
    _record("ct", [ct], license="CC0"),
    _record("cine", [cine]),
    _record("all", [skin, ct, chest, cine]),
    {
      "id": "llava",
      "image": ["skin.png", "chest.png"],
      "conversations": [
        {"from": "human", "value": "before <image> after <image> Same?"},
        {"from": "gpt", "value": "No: größer."},
      ],
    },
    {"id": "nothing", "messages": "none"},
    _record("window", [{**ct, "window": "lung"}, {**ct, "window": "abdomen"}]),
  ]
  return asked + [_record(f"text-{n}", []) for n in range(1, 4)]


def _record(name: str, media: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
  question = {"type": "text", "text": f"What does {name} show?"}
  return {
    "id": name,
    "messages": [
      {"role": "system", "content": "Answer shortly."},
      {"role": "user", "content": [*media, question]},
      {"role": "assistant", "content": f"It shows {len(media)}."},
    ],
    **more,
  }


def run(
  source: Input,
  builder: Builder,
  output: Path,
  shard: tuple[int, int] = (0, 1),
  *,
  frames: bool = True,
  threads: int = 2,
  force: bool = False,
) -> tuple[Manifest, bool]:
  """Prepares one shard without reports."""
  job = prepare.job(source, builder, shard, output, frames=frames, threads=threads, force=force)
  return prepare.run(job, lambda done, bad: None)


def prepared(builder: Builder, tmp_path_factory, compression: Compression):
  """The set as an input, a builder for it, and the folder it was prepared into."""
  root, output = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("prepared")
  source = Input("jsonl", {"path": str(write(root))})
  policy = dataclasses.replace(builder.policy, compression=compression, max_tokens=200)
  builder = dataclasses.replace(builder, root=root, policy=policy)
  for shard in range(SHARDS):
    run(source, builder, output, (shard, SHARDS))
  return source, builder, output

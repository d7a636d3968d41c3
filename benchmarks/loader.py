"""How much of the loader's time is decoding: a mix of all kinds of files, through the pipeline.

  PYTHONPATH=. .venv/bin/python benchmarks/loader.py [--threads=2] [--repetitions=5]

Makes seeded files (JPEG, PNG and DICOM pictures of 512 x 512, CT volumes of 64 slices as .nii.gz,
clips of 3 s as .mp4) and reads them as a training run does, policy `HULUMED`.  There are two
floors: the decoders alone (Pillow, nibabel, pydicom, PyAV) on the same files, which is what is
promised; and the same plus Pillow's resize of the frames that are shown, which no loader can leave
out whose pixels are to equal Pillow's.  All in process CPU seconds, so that a machine that others
use matters less; repetitions are interleaved, medians are given.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
import dataclasses
from fractions import Fraction
import itertools
import json
import os
from pathlib import Path
import platform
import statistics
import tempfile
import time
from typing import Any

import av
import nibabel
import numpy as np
import PIL
from PIL import Image
import pydicom
from pydicom.uid import CTImageStorage
from pydicom.uid import ExplicitVRLittleEndian
from pydicom.uid import generate_uid

from hulu_jax import media as media_lib
from hulu_jax.data import chat
from hulu_jax.data import lengths as lengths_lib
from hulu_jax.data import packing
from hulu_jax.data import pipeline
from hulu_jax.data import shapes as shapes_lib
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data import vision
from hulu_jax.data.datasets import jsonl
from hulu_jax.data.examples import Builder
from hulu_jax.data.schema import Example
from hulu_jax.data.schema import StepShape
from hulu_jax.media.errors import BadRecord
from hulu_jax.media.types import Media

SEED, SIDE, SLICES, SECONDS, FPS = 2026, 512, 64, 3, 25
# Files of each kind in the mix: as many bytes of pixels in pictures as in either of the others.
COUNTS = {"jpg": 24, "png": 12, "dcm": 12, "nii.gz": 2, "mp4": 4}
KINDS = {"jpg": "image", "png": "image", "dcm": "image", "nii.gz": "volume", "mp4": "video"}
WORDS = "no focal opacity is seen in the left lower lobe and the heart is of normal size".split()
TOKENS = 18_432  # a volume takes 16,384 at most; the rest is text


def picture(rng: np.random.Generator, channels: int) -> np.ndarray:
  """uint8 [512, 512, channels]: smooth shapes with a little noise, as a camera sees tissue."""
  coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
  smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
  noisy = smooth[..., :channels] + rng.normal(0, 6, (SIDE, SIDE, channels))
  return np.clip(noisy, 0, 255).astype(np.uint8)


def write(path: Path, ending: str, rng: np.random.Generator) -> None:
  """One file of its kind."""
  match ending:
    case "jpg":
      Image.fromarray(picture(rng, 3)).save(path, quality=90)
    case "png":
      Image.fromarray(picture(rng, 1)[..., 0]).save(path)
    case "dcm":
      write_dicom(path, picture(rng, 1)[..., 0].astype(np.int16) * 8 - 1000)
    case "nii.gz":
      slices = [picture(rng, 1)[..., 0] for _ in range(8)]
      values = np.stack([slices[k // 8] for k in range(SLICES)], axis=-1).astype(np.int16) * 8
      values += rng.integers(-20, 20, values.shape, dtype=np.int16) - 1000
      nibabel.Nifti1Image(values, np.diag([0.7, 0.7, 2.5, 1.0])).to_filename(path)
    case "mp4":
      write_clip(path, picture(rng, 3))


def write_dicom(path: Path, values: np.ndarray) -> None:
  """One CT slice, uncompressed, as most archives send it."""
  d = pydicom.Dataset()
  d.file_meta = pydicom.dataset.FileMetaDataset()
  d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  d.SOPClassUID = d.file_meta.MediaStorageSOPClassUID = CTImageStorage
  d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = generate_uid()
  d.Modality, d.PhotometricInterpretation, d.SamplesPerPixel = "CT", "MONOCHROME2", 1
  d.Rows, d.Columns = values.shape
  d.BitsAllocated = d.BitsStored = 16
  d.HighBit, d.PixelRepresentation = 15, 1
  d.RescaleSlope, d.RescaleIntercept, d.RescaleType = 1, 0, "HU"
  d.WindowCenter, d.WindowWidth = 40, 400
  d.PixelSpacing, d.ImageOrientationPatient = [0.7, 0.7], [1, 0, 0, 0, 1, 0]
  d.ImagePositionPatient = [0, 0, 0]
  d.PixelData = values.tobytes()
  d.save_as(path, enforce_file_format=True)


def write_clip(path: Path, ground: np.ndarray) -> None:
  """A bright disc that wanders over the picture."""
  y, x = np.mgrid[:SIDE, :SIDE]
  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=FPS)
    stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
    for k in range(SECONDS * FPS):
      frame = ground.copy()
      frame[(y - 256) ** 2 + (x - 100 - 4 * k) ** 2 < 1600] = 230
      packed = av.VideoFrame.from_ndarray(frame, format="rgb24")
      packed.pts, packed.time_base = k, Fraction(1, FPS)
      container.mux(stream.encode(packed))
    container.mux(stream.encode())


def make(folder: Path) -> Path:
  """All files and the list of records, kinds in turn; the path of the list."""
  rng = np.random.default_rng(SEED)
  names = [f"{n}.{ending}" for ending, count in COUNTS.items() for n in range(count)]
  lines = []
  for number in rng.permutation(len(names)).tolist():
    ending = names[number].partition(".")[2]
    write(folder / names[number], ending, rng)
    medium = {"type": KINDS[ending], "path": names[number]}
    if ending == "nii.gz":
      medium |= {"modality": "CT", "window": "lung"}
    asked, told = (" ".join(rng.choice(WORDS, size)) for size in (60, 200))
    user = {"role": "user", "content": [medium, {"type": "text", "text": asked}]}
    messages = [user, {"role": "assistant", "content": [{"type": "text", "text": told}]}]
    lines.append(json.dumps({"id": names[number], "messages": messages}))
  (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
  return folder / "train.jsonl"


def decode(path: Path, taken: tuple[int, ...] | None) -> list[np.ndarray]:
  """What the decoder alone gives; of a clip all frames are decoded, those taken turned to RGB."""
  match path.name.partition(".")[2]:
    case "jpg" | "png":
      return [np.asarray(Image.open(path))]
    case "dcm":
      return [pydicom.dcmread(path).pixel_array]
    case "nii.gz":
      return [np.asarray(nibabel.nifti1.load(path).dataobj)]
    case _:
      with av.open(str(path)) as container:
        wanted = set(taken or ())
        # One thread, here and for the colours: with more, libav takes more CPU time in all.
        container.streams.video[0].codec_context.thread_count = 1
        frames = enumerate(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24", threads=1) for k, frame in frames if k in wanted]


def resize(frames: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
  """What Pillow alone makes of frames [T, H, W, C]; a grey one has one channel."""
  pictures = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in frames]
  return [np.asarray(p.resize(size[::-1], Image.Resampling.BICUBIC)) for p in pictures]


def cpu(work: Callable[[], object]) -> float:
  """Process CPU seconds of all threads."""
  start = time.process_time()
  work()
  return time.process_time() - start


def ending_of(name: str) -> str:
  """ "nii.gz" of "3.nii.gz"."""
  return Path(name).name.partition(".")[2]


class Stages:
  """The records of one kind, one stage at a time."""

  def __init__(self, builder: Builder, source: jsonl.Source, ending: str):
    assert builder.root is not None
    records = (source[n] for n in range(len(source)))
    sound = [r for r in records if not isinstance(r, BadRecord)]
    self._records = [r for r in sound if ending_of(r["id"]) == ending]
    self._builder, self._paths = builder, [builder.root / r["id"] for r in self._records]
    self._media = [builder.read_all(r["messages"])[0] for r in self._records]
    self._fitted = [vision.fit([m], builder.policy)[0] for m in self._media]
    built = (builder(r) for r in self._records)
    self.examples = [e for e in built if isinstance(e, Example)]

  def decode(self) -> None:
    for path, medium in zip(self._paths, self._media, strict=True):
      decode(path, medium.slices)

  def read(self) -> None:
    for record in self._records:
      self._builder.read_all(record["messages"])

  def resize(self) -> None:
    for medium, fitted in zip(self._media, self._fitted, strict=True):
      resize(medium.frames, fitted.frames.shape[1:3])

  def show(self) -> None:
    """Resize and patches, as the loader does both at once."""
    for medium in self._media:
      vision.visuals([medium], self._builder.policy)

  def tokenize(self) -> None:
    for record, medium, example in zip(self._records, self._media, self.examples, strict=True):
      entries = [chat.Entry(len(medium.frames), medium.timestamps)]
      pieces = chat.render(record["messages"], entries, generate=False)
      chat.encode(pieces, [v.keep for v in example.visuals], self._builder.tokenizer, 0)

  def seconds(self) -> dict[str, float]:
    """CPU seconds of a record, by stage."""
    work = (self.decode, self.read, self.resize, self.show, self.tokenize)
    return {stage.__name__: cpu(stage) / len(self._records) for stage in work}


def pack(examples: Sequence[Example], shapes: Sequence[StepShape]) -> None:
  """Fills and writes batches until every example is in one."""
  waiting = list(examples)
  for shape in itertools.cycle(shapes):
    packer = packing.Packer(shape)
    waiting = [example for example in waiting if not packer.add(example)]
    if packer.examples:
      packer.batch()
    if not waiting:
      return


def pass_over(
  data: pipeline.Data, shapes: Sequence[StepShape], count: int, threads: int
) -> tuple[float, float, Counter[str]]:
  """CPU seconds of a run from its start to its end, samples a second of wall time until `count`
  records had come out, and how many of each kind were read: those built ahead count as well."""
  read: list[str] = []

  def counting(path: str | Path, *args: Any, **fields: Any) -> Media:
    read.append(ending_of(str(path)))
    return media_lib.read(path, *args, **fields)

  builders = [dataclasses.replace(builder, reader=counting) for builder in data.builders]
  options = pipeline.Options(
    lookahead=16, patience=64, threads=threads, prefetch=1, max_bad=0.0, seed=0
  )
  start, begin, records = time.process_time(), time.perf_counter(), 0
  counted = dataclasses.replace(data, builders=builders)
  iterator = pipeline.train_iterator(counted, shapes, (0, 1), options)
  while records < count:
    records += sum(map(len, next(iterator).ids))
  wall = time.perf_counter() - begin
  iterator.close()
  return time.process_time() - start, records / wall, Counter(read)


def main() -> None:
  """Prints the shares of the stages, the floors, and what the pipeline reaches of them."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--threads", type=int, default=2)
  parser.add_argument("--repetitions", type=int, default=5)
  parser.add_argument("--passes", type=int, default=3, help="over the files, per repetition")
  args = parser.parse_args()
  with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    file = make(folder)
    texts = [" ".join(WORDS)] * 8
    tokenizer = tokenizer_lib.train(texts, 400)
    builder = Builder(tokenizer=tokenizer, policy=vision.HULUMED, root=folder)
    source = jsonl.Source(path=str(file))
    report(builder, source, args.threads, args.repetitions, args.passes)


def report(
  builder: Builder, source: jsonl.Source, threads: int, repetitions: int, passes: int
) -> None:
  """Measures and prints."""
  kinds = {ending: Stages(builder, source, ending) for ending in COUNTS}
  examples = [example for stages in kinds.values() for example in stages.examples]
  built = (builder(source[n]) for n in range(len(source)))
  lengths = lengths_lib.collect(lengths_lib.of(e) for e in built if isinstance(e, Example))
  shapes = shapes_lib.suggest(lengths, TOKENS, 1, 0.06, lookahead=16, patience=64, sample=500)
  mixture = [{"name": "jsonl", "label": "mix", "weight": 1.0, "shuffle": True}]
  data = pipeline.Data(mixture=mixture, datasets=[source], builders=[builder], lengths=[lengths])
  runs: list[dict[str, float]] = []
  alone: list[dict[str, tuple[float, float]]] = []
  for _ in range(repetitions):
    by_kind = {ending: stages.seconds() for ending, stages in kinds.items()}
    packed = cpu(lambda: pack(examples, shapes)) / len(examples)
    total, rate, read = pass_over(data, shapes, passes * len(source), threads)
    stages = {
      name: sum(by_kind[ending][name] * n for ending, n in read.items()) / read.total()
      for name in by_kind["jpg"]
    }
    runs.append({**stages, "pack": packed, "pipeline": total / read.total(), "rate": rate})
    alone.append({ending: (s["decode"], s["read"]) for ending, s in by_kind.items()})
  print(f"{len(source)} files {COUNTS}, {threads} threads, load average {os.getloadavg()[0]:.1f}")
  print(f"Python {platform.python_version()}, Pillow {PIL.__version__}, PyAV {av.__version__}")
  show_kinds(alone)
  show_stages({name: statistics.median(run[name] for run in runs) for name in runs[0]})
  for name, floor in (("decode", ("decode",)), ("decode + resize", ("decode", "resize"))):
    ratios = [sum(run[stage] for stage in floor) / run["pipeline"] for run in runs]
    print(f"of the floor, {name}: median {statistics.median(ratios):.2f}, best {max(ratios):.2f}")


def show_kinds(alone: Sequence[dict[str, tuple[float, float]]]) -> None:
  """One row per kind of file."""
  print("| file | decoder alone, CPU ms | our reader | ratio |\n|---|---|---|---|")
  for ending in COUNTS:
    bare, ours = (statistics.median(run[ending][k] for run in alone) * 1e3 for k in (0, 1))
    print(f"| .{ending} | {bare:.1f} | {ours:.1f} | {bare / ours:.2f} |")


def show_stages(each: dict[str, float]) -> None:
  """One row per stage; each: medians in seconds."""
  inside = sum(each[name] for name in ("read", "show", "tokenize", "pack"))
  shares = {
    "decode": each["decode"],
    "read beyond it (grey levels, geometry, checks)": each["read"] - each["decode"],
    "resize": each["resize"],
    "show beyond it (patches, masks)": each["show"] - each["resize"],
    **{name: each[name] for name in ("tokenize", "pack")},
    "other": each["pipeline"] - inside,
  }
  print("| stage | CPU ms a sample | share |\n|---|---|---|")
  for name, value in shares.items():
    print(f"| {name} | {value * 1e3:.2f} | {value / each['pipeline']:.3f} |")
  print(
    f"pipeline: {each['pipeline'] * 1e3:.1f} CPU ms a sample, {1 / each['pipeline']:.1f} samples"
  )
  print(f"a second and core; {each['rate']:.1f} samples a second of wall time")


if __name__ == "__main__":
  main()

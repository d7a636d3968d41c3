"""How often pictures are taken for one another, how often a changed one is missed, and how fast.

  .venv/bin/python benchmarks/duplicates.py --data=../shared/data [--records=200000]

Per set of real pictures: pairs of different pictures that `hulu data dedup` would call near (4 bits
of 64), with the correlation of their pixels, and changed copies that it would not find.  Then the
seconds and bytes that seeded hashes of many records take to search, reading not included.
"""

import argparse
import io
from pathlib import Path
import time

import numpy as np
from PIL import Image

from hulu_jax.data import duplicates
from hulu_jax.data import looks
from hulu_jax.data import marks
from hulu_jax.data import picture_hash
from hulu_jax.data.marks import Marks
from hulu_jax.data.picture_hash import Look
from hulu_jax.media.types import Media

SETS = ("img_hannover_cxr", "img_mednist", "img_bccd", "img_endoscopy_tiles")
BITS = 4
RULE = duplicates.Rule(by="both", bits=BITS, overlap=0.8, common=100)


def jpeg(picture: Image.Image) -> Image.Image:
  """Quality 60."""
  file = io.BytesIO()
  picture.save(file, "JPEG", quality=60)
  return Image.open(file)


def scaled(picture: Image.Image, factor: float) -> Image.Image:
  """Other sides."""
  size = (round(picture.width * factor), round(picture.height * factor))
  return picture.resize(size, Image.Resampling.LANCZOS)


CHANGES = {
  "JPEG 60": jpeg,
  "size x 0.5": lambda p: scaled(p, 0.5),
  "size x 0.73": lambda p: scaled(p, 0.73),
  "x 1.15": lambda p: p.point(lambda v: min(255, round(v * 1.15))),
  "x 0.7": lambda p: p.point(lambda v: round(v * 0.7)),
  "flipped": lambda p: p.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def look(picture: Image.Image) -> Look:
  """Of a grey picture."""
  return picture_hash.look(Media(kind="image", frames=np.asarray(picture)[None, :, :, None]))


def near(a: Look, b: Look) -> bool:
  """As `looks.across` decides."""
  low, high = picture_hash.distances(a, b)
  return bool(low <= BITS and high <= 2 * BITS)


def compare(folder: Path) -> None:
  """One row of the table, and the pairs that were taken for one."""
  files = sorted((folder / "public" / "images").iterdir())
  pictures = [Image.open(file).convert("L") for file in files]
  own = [look(picture) for picture in pictures]
  low, high = (np.concatenate(part) for part in zip(*own, strict=True))
  table = looks.tables(low, high, np.arange(len(files) + 1))[1]
  found = looks.pairs(table, BITS)
  shown = []
  for a, b in zip(found.left, found.right, strict=True):
    i, j = (int(table.media[table.look == k][0]) for k in (a, b))
    pair = [np.asarray(pictures[k].resize((64, 64)), float).ravel() for k in (i, j)]
    shown.append(f"{files[i].name} and {files[j].name}: r = {np.corrcoef(*pair)[0, 1]:.2f}")
  missed = [
    sum(not near(a, look(change(p))) for a, p in zip(own, pictures, strict=True))
    for change in CHANGES.values()
  ]
  pairs = len(files) * (len(files) - 1) // 2
  counts = " | ".join(str(n) for n in missed)
  print(f"| {folder.name} | {len(files)} | {len(shown)} of {pairs} | {counts} |")
  for line in shown:
    print(f"  {line}")


def speed(count: int) -> None:
  """Seeded records, one in a hundred of them planted again with a few bits changed."""
  rng = np.random.default_rng(0)
  store = marks.Store()
  hashes = rng.integers(1, 2**63, (count, 2 + marks.SKETCH), dtype=np.uint64)
  for n, row in enumerate(hashes):
    if n % 100 == 99:
      row[:] = hashes[n - 50]
      row[0] ^= np.uint64(0b1001 << 20)
    text = n % 7 if n % 2 else int(row[2])
    seen = (Look(row[:1], row[1:2]),) if n % 2 else ()
    store.add(Marks("", text + 1, (), np.sort(row[2:]), (n,) * len(seen), seen))
  start = time.process_time()
  pairs = duplicates.find(store, RULE)
  seconds = time.process_time() - start
  print(
    f"{count} records, {store.bytes / count:.0f} bytes each: {len(pairs)} found, {seconds:.1f} s"
  )


def main() -> None:
  """Prints the table and the seconds."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--data", type=Path, required=True, help="the folder of shared data")
  parser.add_argument("--records", type=int, default=200_000)
  args = parser.parse_args()
  print("| set | pictures | different, near | missed: " + " | ".join(CHANGES) + " |")
  print("|---" * (3 + len(CHANGES)) + "|")
  for name in SETS:
    compare(args.data / name)
  speed(args.records)


if __name__ == "__main__":
  main()

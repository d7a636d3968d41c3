"""Row C2: the keep mask and the compaction index, by integers and as the released code does it.

  PYTHONPATH=. python benchmarks/prune_mask.py

Three ways over the same bytes: the released arithmetic re-created in JAX (float32 pixels in
[-1, 1], mean |difference| * 255, / 255 > 0.1, kept indices by a boolean look-up on the host), the
data pipeline's rule (`data.compression`, numpy) and the kernels' reference
(`kernels.visual_tokenizer` and `token_compaction.layout`, jitted).  The first reads float32
patches, as the released processor hands them over; making them is not timed.  Masks are compared
first, on 10^6 random tokens too.  Ratios are of CPU seconds, medians of 9 interleaved rounds.
Exits with 1 where a mask differs beside exact ties, or less than 10 times is gained.
"""

from collections.abc import Callable
import os
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.data import compression
from hulu_jax.kernels.token_compaction import layout
from hulu_jax.kernels.visual_tokenizer import reference
from hulu_jax.kernels.visual_tokenizer import rule as rule_lib

ROUNDS, PROMISED = 9, 10.0
# name -> frames, visual tokens a frame, bytes of one as we hold it, equal channels of the reference
WORK = {"V180 (252 px, grey)": (180, 81, 4 * 196, 3), "Vid60 (336 x 616)": (60, 264, 4 * 588, 1)}
HULUMED = compression.Compression(mode="hulumed")


def draw(frames: int, tokens: int, size: int, seed: int) -> np.ndarray:
  """uint8 [frames, tokens, size]; half of the tokens change by about the threshold."""
  rng = np.random.default_rng(seed)
  noise = rng.integers(-26, 27, (frames, tokens, size), np.int16)
  moving = rng.random((frames, tokens, 1)) < 0.5
  base = rng.integers(40, 200, (1, tokens, size), np.int16)
  return (base + noise * moving).astype(np.uint8)


@jax.jit
def float_score(pixels: jax.Array) -> jax.Array:
  """The released score over 255, float32 [frames, tokens]: see the specification's mask."""
  change = jnp.mean(jnp.abs(pixels[1:] - pixels[:-1]), axis=-1) * 255
  first = jnp.full((1, pixels.shape[1]), 1.1, jnp.float32)
  return jnp.concatenate([first, change]) / 255


def as_released(pixels: jax.Array) -> tuple[np.ndarray, np.ndarray]:
  """Mask and indices of kept tokens; the host waits for the mask to know how many there are."""
  keep = np.array(float_score(pixels) > 0.1)
  keep[~keep.any(axis=1), 0] = True
  return keep, np.flatnonzero(keep)


def by_numpy(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The data pipeline's."""
  keep = compression.keep_mask(tokens, HULUMED)
  return keep, np.flatnonzero(keep)


@jax.jit
def by_integers(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The kernel's reference, into a buffer of all tokens: no look from the host."""
  rule = rule_lib.of(
    mode="hulumed", frames=len(tokens), values=tokens.shape[2], grey=None, against="previous"
  )
  _, keep = reference.mask(
    tokens, jnp.int32(rule.limit), first_whole=rule.first_whole, last_kept=rule.last_kept
  )
  return keep, layout.compaction_index(keep.reshape(1, -1), keep.size)[0][0]


def unit(tokens: np.ndarray, channels: int) -> jax.Array:
  """What the released processor gives for these bytes."""
  pixels = jnp.asarray(np.tile(tokens, (1, 1, channels)), jnp.float32)
  return (pixels * np.float32(1 / 255) - 0.5) / 0.5


def check_random(count: int, size: int) -> bool:
  """Masks of `count` tokens, a tenth of them at the threshold or one grey level beside it."""
  rng = np.random.default_rng(5)
  limit, part = int(12.75 * size), 50_000
  wrong, found = 0, np.zeros(3, int)
  for _ in range(count // part):
    drawn = np.frombuffer(rng.bytes(part * size), np.uint8).reshape(part, size)
    before, change = drawn >> 1, (drawn & 15) + np.uint8(5)  # mean 12.5, the threshold is 12.75
    near = rng.random(part) < 0.1
    more = limit - 12 * size + rng.integers(-1, 2, near.sum())
    change[near] = 12 + (np.arange(size) < more[:, None])
    tokens = np.stack([before, before + change])
    score = compression.change_scores(*tokens)
    ours = score > 12.75 * size
    theirs = np.asarray(float_score(unit(tokens, 1)))[1] > 0.1
    ties = score == 12.75 * size
    wrong += int((ours != theirs)[~ties].sum())
    found += [ties.sum(), ours[ties].sum(), theirs[ties].sum()]
  print(
    f"{count:,} random tokens of {size} bytes: {wrong} differ beside ties; of {found[0]:,} exact "
    f"ties the integer rule keeps {found[1]}, float32 keeps {found[2]:,}"
  )
  return not wrong and found[0] > 0 and not found[1]


def timed(run: Callable[[], object]) -> float:
  """CPU seconds of the process for one call, with its result there: others use the machine too."""
  start = time.process_time()
  jax.block_until_ready(run())
  return time.process_time() - start


def measure(name: str) -> bool:
  """Compares masks and indices, then times the three ways in turn."""
  frames, size_of, size, channels = WORK[name]
  tokens = draw(frames, size_of, size, seed=1)
  pixels, bytes_ = unit(tokens, channels), jnp.asarray(tokens)
  keep, index = as_released(pixels)
  ours, ours_index = by_integers(bytes_)
  ties = np.zeros_like(keep)
  ties[1:] = compression.change_scores(tokens[:-1], tokens[1:]) == 12.75 * size
  same = bool(((np.asarray(ours) == keep) | ties).all())
  same &= bool((by_numpy(tokens)[0] == np.asarray(ours)).all())
  if not ties.any():
    same &= bool((np.asarray(ours_index)[: len(index)] == index).all())
  seconds = [
    (
      timed(lambda: as_released(pixels)),
      timed(lambda: by_numpy(tokens)),
      timed(lambda: by_integers(bytes_)),
      timed(bytes_.copy),
    )
    for _ in range(ROUNDS)
  ]
  gain = statistics.median(a / c for a, _, c, _ in seconds)
  by_np = statistics.median(a / b for a, b, _, _ in seconds)
  floor = statistics.median(c / d for _, _, c, d in seconds)
  print(
    f"{name}: masks {'equal' if same else 'DIFFER'} ({keep.mean():.2f} kept), integers {gain:.1f} "
    f"x as fast as float32 in JAX (numpy {by_np:.1f} x), {floor:.1f} x the time of copying bytes"
  )
  return same and gain >= PROMISED


def main() -> int:
  """0 if masks agree and every promise is kept."""
  print(f"jax {jax.__version__}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
  right = [measure(name) for name in WORK]
  return int(not all([*right, check_random(1_000_000, 784)]))


if __name__ == "__main__":
  sys.exit(main())

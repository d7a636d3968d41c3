"""The timed rows of `gpu.py`: what runs, its floor, its FLOPs, its rival, its error.

Floors are computed, not measured: FLOPs at 790 TFLOP/s, what dense bfloat16 products reach on an
H100, or bytes at 3.0 TB/s, whichever is longer.
"""

from collections.abc import Callable, Iterator
import math
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import gpu_rivals
from benchmarks import kernel_cases
from benchmarks.gpu_rivals import Rival
from hulu_jax.core import params as P
from hulu_jax.kernels import choice
from hulu_jax.kernels.attention import api as attention_api
from hulu_jax.kernels.visual_tokenizer import api as visual_tokenizer
from hulu_jax.kernels.visual_tokenizer.rule import Rule
from hulu_jax.models import decoder
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.models import vision
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute
from hulu_jax.training import losses

FLOPS, BYTES = 790e12, 3.0e12  # a second
INPUTS = 3  # different ones, in turn, so that no cache holds what is read
# A repeat lasts at least this long: calls are queued and waited for once, so that what the host
# needs to start one does not count.
SECONDS = 5e-3


class Sizes(NamedTuple):
  """config: whose widths; a volume of `frames` of `side` x `side` patches; a row of `tokens` in
  `samples`, with `supervised` positions; decoders' (heads, kv_heads) at `head_dim`."""

  config: HuluConfig
  frames: int
  side: int
  tokens: int
  samples: int
  supervised: int
  heads: tuple[tuple[int, int], ...]
  head_dim: int


REAL = Sizes(presets.get("hulu-7b"), 180, 18, 16384, 12, 2048, ((28, 4), (40, 8)), 128)
SMOKE = Sizes(presets.TINY, 3, 4, 96, 2, 16, ((4, 2),), 16)


class Row(NamedTuple):
  """milliseconds: median; flops: of one call, 0 where bytes decide; aim: of perf.md, as text;
  rival: its name, or why there is none; error: ours against float32, at most `allowed`."""

  name: str
  milliseconds: float
  floor: float
  flops: float
  aim: str
  rival: str
  rival_milliseconds: float | None
  error: float
  allowed: float


def milliseconds(f: Callable[..., Any], inputs: list[tuple[Any, ...]], repeats: int) -> float:
  """Median of `repeats` of one call of f, the inputs in turn."""
  for one in inputs:
    jax.block_until_ready(f(*one))
  start = time.perf_counter()
  jax.block_until_ready([f(*one) for one in inputs])
  each = (time.perf_counter() - start) / len(inputs)
  calls = max(1, math.ceil(SECONDS / each))
  found = []
  for r in range(repeats):
    start = time.perf_counter()
    jax.block_until_ready([f(*inputs[(r + i) % len(inputs)]) for i in range(calls)])
    found.append((time.perf_counter() - start) / calls * 1e3)
  return statistics.median(found)


def _rms(got: Any, want: Any) -> float:
  """Root mean square of the difference over that of `want`, the worst leaf."""
  worst = 0.0
  for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
    g, w = np.asarray(g, np.float64), np.asarray(w, np.float64)
    if not np.isfinite(g).all():
      return math.inf
    worst = max(worst, float(np.sqrt(np.mean((g - w) ** 2) / np.mean(w**2))))
  return worst


def _row(name: str, f: Any, inputs: Any, repeats: int, flops: float, aim: str) -> Row:
  taken = milliseconds(f, inputs, repeats)
  return Row(name, taken, flops / FLOPS * 1e3, flops, aim, "-", None, math.inf, 0.0)


def _beside(row: Row, rival: Rival, want: Any) -> Row:
  """The row with its rival, whose own error must be no larger than ours may be."""
  if rival.milliseconds is None:
    return row._replace(rival=rival.name)
  off = _rms(rival.output, want)
  name = rival.name if off <= row.allowed else f"{rival.name} (wrong: {off:.1e})"
  return row._replace(rival=name, rival_milliseconds=rival.milliseconds)


def encode_volume(sizes: Sizes, where: str, repeats: int, seed: int) -> Iterator[Row]:
  """G1: all layers of the encoder over one grey volume, bfloat16 weights and activations."""
  c = sizes.config.vision
  rng = np.random.default_rng(seed)
  patches = sizes.side**2
  shape = (1, sizes.frames, patches)
  grid = np.stack(np.divmod(np.arange(patches), sizes.side), axis=-1).astype(np.int16)
  hw = jnp.asarray(np.broadcast_to(grid, (*shape, 2)))
  segments = jnp.ones(shape, jnp.int32)
  draw = jax.jit(lambda key: P.initialize(key, vision.specs(c)))
  weights = jax.tree.map(lambda w: w.astype(jnp.bfloat16), draw(jax.random.key(seed)))
  volumes = [
    jnp.asarray(rng.integers(0, 256, (*shape, c.patch**2), np.uint8)) for _ in range(INPUTS)
  ]
  compute = Compute(
    dtype=jnp.bfloat16,
    vision_pass=None,
    loss_chunk=None,
    vision_remat="none",
    decoder_remat="none",
    kernels=choice.automatic(where),
  )

  def encode(w: Any, p: jax.Array, s: jax.Array, hw: jax.Array, compute: Compute) -> jax.Array:
    return vision.forward(w, (p,), (s,), (hw,), c, compute)

  fast = jax.jit(encode, static_argnames="compute")
  inputs = [(weights, volume, segments, hw) for volume in volumes]
  # Per patch: projections and MLP of every layer, the embedding, attention over its own frame.
  layer = 4 * c.embed * c.heads * c.head_dim + 2 * c.embed * c.mlp
  own = c.layers * (2 * layer + 4 * patches * c.heads * c.head_dim) + 2 * c.patch**2 * c.embed
  row = _row(
    f"G1 encode_V{sizes.frames}, {sizes.frames * patches} patches",
    lambda *x: fast(*x, compute),
    inputs,
    repeats,
    own * sizes.frames * patches,
    "105 ms",
  )
  few = min(4, sizes.frames)  # frames do not see each other, so some stand for all
  with jax.default_matmul_precision("highest"):
    exact = [x[:, :few] for x in inputs[0][1:]]
    want = fast(weights, *exact, scan.FLOAT32)
  got = fast(*inputs[0], compute)[:, : few * patches]
  row = row._replace(error=_rms(got, want), allowed=0.05)
  rival = gpu_rivals.encoder(weights, volumes, np.asarray(grid), c, repeats)
  if rival.milliseconds is not None:
    rival = rival._replace(output=rival.output[:, : few * patches])
  yield _beside(row, rival, want)


def attention_packed(sizes: Sizes, where: str, repeats: int, seed: int) -> Iterator[Row]:
  """G2: frames of one volume, and a packed row of samples, forward and both ways."""
  c = sizes.config.vision
  patches = sizes.side**2
  frames = np.ones((1, sizes.frames, patches), np.int32)
  rng = np.random.default_rng(seed)
  cuts = np.sort(rng.choice(np.arange(1, sizes.tokens), sizes.samples - 1, replace=False))
  row = np.zeros((1, sizes.tokens), np.int32)
  row[0, cuts] = 1
  row = np.cumsum(row, axis=1, dtype=np.int32) + 1
  # An interpreter's time says nothing.
  names = kernel_cases.implementations("encoder_attention", where)
  for name in (n for n in names if not n.endswith("_interpret")):
    encoder = (name, (c.heads, c.heads), c.head_dim, False)
    yield from _attention(f"{sizes.frames} x {patches}", frames, encoder, repeats, seed)
    for heads in sizes.heads:
      label, own = f"{sizes.tokens} in {sizes.samples} samples", (name, heads, sizes.head_dim, True)
      yield from _attention(label, row, own, repeats, seed)


def _attention(
  label: str, segments: np.ndarray, form: tuple[str, Any, int, bool], repeats: int, seed: int
) -> Iterator[Row]:
  name, (heads, kv_heads), width, causal = form
  keys = jax.random.split(jax.random.key(seed), 3 * INPUTS)
  each = [(*segments.shape, h, width) for h in (heads, kv_heads, kv_heads)]
  drawn = [jax.random.normal(k, each[i % 3], jnp.bfloat16) for i, k in enumerate(keys)]
  inputs = [tuple(drawn[i : i + 3]) for i in range(0, len(drawn), 3)]
  own = jnp.asarray(segments)

  def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    return attention_api.attention(q, k, v, own, causal=causal, implementation=name)

  def both(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
    out, back = jax.vjp(attend, q, k, v)
    return out, back(out)

  lengths = np.bincount(segments.reshape(-1) if causal else [])[1:]
  squares = (lengths**2).sum() / 2 if causal else segments.size * segments.shape[-1]
  forward = 4.0 * float(squares) * heads * width
  want = by_segment(inputs[0], segments, causal)
  wide = f"{heads}/{kv_heads} heads of {width}"
  least = "300 TFLOP/s" if width < 128 else "400 TFLOP/s"
  for part, f, flops in (("forward", attend, forward), ("both ways", both, 3.5 * forward)):
    gradient = f is both
    fast = jax.jit(f)
    row = _row(f"G2 {label}, {wide}, {name}, {part}", fast, inputs, repeats, flops, least)
    got = fast(*inputs[0])
    wanted = want if gradient else want[0]
    row = row._replace(error=_rms(got, wanted), allowed=0.02)
    rival = gpu_rivals.attention(inputs, segments, causal, gradient, repeats)
    yield _beside(row, rival, wanted)


def by_segment(arrays: tuple[jax.Array, ...], segments: np.ndarray, causal: bool) -> Any:
  """Float32 attention of one segment at a time, and its gradients for the output as cotangent.

  Segments are runs of equal numbers; written apart from the kernels' reference.
  """

  def one(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    group = q.shape[-2] // k.shape[-2]
    k, v = (jnp.repeat(x, group, axis=-2) for x in (k, v))
    logits = jnp.einsum("...qhd,...khd->...hqk", q, k) / math.sqrt(q.shape[-1])
    if causal:
      later = jnp.triu(jnp.ones(logits.shape[-2:], bool), 1)
      logits = jnp.where(later, -jnp.inf, logits)
    return jnp.einsum("...hqk,...khd->...qhd", jax.nn.softmax(logits, axis=-1), v)

  @jax.jit
  def both(*given: jax.Array) -> Any:
    out, back = jax.vjp(one, *[x.astype(jnp.float32) for x in given])
    # The kernels' own cotangent is their output, in their dtype.
    return out, back(out.astype(given[0].dtype).astype(jnp.float32))

  with jax.default_matmul_precision("highest"):
    found = [
      jax.device_get(both(*[x[..., start:stop, :, :] for x in arrays]))
      for start, stop in gpu_rivals.runs(segments)
    ]
  return jax.tree.map(lambda *parts: np.concatenate(parts, axis=-3), *found)


def loss_head(sizes: Sizes, where: str, repeats: int, seed: int) -> Iterator[Row]:
  """A guard: supervised positions gathered, logits, loss, and back to hidden states and head."""
  del where  # one form everywhere
  c = sizes.config.decoder
  keys = jax.random.split(jax.random.key(seed), 2 * INPUTS + 2)
  head = jax.random.normal(keys[-1], (c.vocab, c.embed), jnp.bfloat16) * c.embed**-0.5
  index = jnp.sort(jax.random.permutation(keys[-2], sizes.tokens)[: sizes.supervised])[None]
  inputs = []
  for hidden_key, target_key in zip(keys[:INPUTS], keys[INPUTS : 2 * INPUTS], strict=True):
    hidden = jax.random.normal(hidden_key, (1, sizes.tokens, c.embed), jnp.bfloat16)
    targets = jax.random.randint(target_key, (1, sizes.supervised), 0, c.vocab)
    inputs.append((hidden, head, targets))

  def loss(hidden: jax.Array, head: jax.Array, targets: jax.Array) -> jax.Array:
    at = hulu.take_rows(hidden, index)
    weights = {"embed" if c.tied else "head": head}
    return jnp.mean(losses.token_losses(decoder.logits(weights, at, c), targets, 0.0))

  fast = jax.jit(jax.value_and_grad(loss, (0, 1)))
  memory = fast.lower(*inputs[0]).compile().memory_analysis().temp_size_in_bytes / 1e9
  flops = 6.0 * sizes.supervised * c.vocab * c.embed
  name = f"loss_head, {sizes.supervised} of {sizes.tokens} x {c.vocab}, {memory:.2f} GB temporary"
  row = _row(name, fast, inputs, repeats, flops, "14 ms, 1.5 GB")
  hidden, head, targets = inputs[0]
  with jax.default_matmul_precision("highest"):
    want = fast(hidden.astype(jnp.float32), head.astype(jnp.float32), targets)
  yield row._replace(error=_rms(fast(*inputs[0]), want), allowed=0.02, rival="none named")


def preprocess(sizes: Sizes, where: str, repeats: int, seed: int) -> Iterator[Row]:
  """A guard: one grey volume from bytes to embeddings, change scores and mask, merge 2."""
  c = sizes.config.vision
  rng = np.random.default_rng(seed)
  shape = (sizes.frames, sizes.side**2 // 4, 4, c.patch**2)
  volumes = [rng.integers(0, 256, shape, np.uint8) for _ in range(INPUTS)]
  kernel = rng.normal(0, 0.05, (c.channels * c.patch**2, c.embed)).astype(np.float32)
  bias = rng.normal(0, 0.05, c.embed).astype(np.float32)
  limit = 85 * 4 * c.patch**2  # random bytes differ by 85 on the mean: half of them survive
  rule = Rule(limit=limit, first_whole=True, last_kept=False)
  change = np.abs(np.diff(volumes[0].astype(np.int64), axis=0)).sum(axis=(2, 3)) > limit
  keep = np.concatenate([np.ones_like(change[:1]), change])
  folded = kernel.reshape(c.channels, -1, c.embed).sum(axis=0)
  few = min(2, sizes.frames)
  want = (volumes[0][:few] / 127.5 - 1) @ folded.astype(np.float64) + bias
  inputs = [(jnp.asarray(v), jnp.asarray(kernel), jnp.asarray(bias)) for v in volumes]
  patches = volumes[0].size // c.patch**2
  flops = 2.0 * patches * c.patch**2 * c.embed
  moved = volumes[0].nbytes + 2 * patches * c.embed  # bytes in, bfloat16 out
  for name in ["reference", *kernel_cases.implementations("visual_tokenizer", where)]:

    def run(*x: jax.Array, name: str = name) -> visual_tokenizer.Tokenized:
      return visual_tokenizer.tokenize(*x, rule=rule, dtype=jnp.bfloat16, implementation=name)

    fast = jax.jit(run)
    label = f"preprocess to embeddings and mask, {patches} patches, {name}"
    row = _row(label, fast, inputs, repeats, flops, "0.080 ms")
    got = jax.device_get(fast(*inputs[0]))
    kept = keep.any(axis=1).all() and np.array_equal(got.keep, keep)
    error = _rms(got.embeddings[:few], want) if kept else math.inf
    floor = max(row.floor, moved / BYTES * 1e3)
    yield row._replace(floor=floor, error=error, allowed=0.02, rival="none named")


ROWS: tuple[Callable[[Sizes, str, int, int], Iterator[Row]], ...] = (
  encode_volume,
  attention_packed,
  loss_head,
  preprocess,
)

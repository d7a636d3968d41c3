"""The same work in torch, on the same numbers: what the rows of `gpu.py` are compared with.

Attention is torch's `scaled_dot_product_attention` by cuDNN, the fastest that torch has on Hopper;
elsewhere (the smoke run) whatever torch picks.  A rival that cannot run is named with its reason
in the table; it never makes a row of ours right or wrong.
"""

from collections.abc import Callable
import contextlib
import importlib.util
import statistics
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from hulu_jax.models.config import VisionConfig


class Rival(NamedTuple):
  """name, or why there is none; milliseconds: median, None where it did not run; output: float32
  arrays as ours."""

  name: str
  milliseconds: float | None
  output: Any


def runs(segments: np.ndarray) -> list[tuple[int, int]]:
  """Where runs of equal numbers start and stop along the last axis; alike in all rows."""
  first = segments.reshape(-1, segments.shape[-1])
  if (first != first[0]).any():
    raise ValueError("rows of different segments")
  cuts = np.flatnonzero(np.diff(first[0])) + 1
  edges = [0, *cuts.tolist(), segments.shape[-1]]
  return list(zip(edges[:-1], edges[1:], strict=True))


def _tensor(x: jax.Array) -> Any:
  import torch

  where = "cuda" if torch.cuda.is_available() else "cpu"
  exact = torch.from_numpy(np.array(x, np.float32))
  return exact.to(where, torch.bfloat16 if x.dtype == jax.numpy.bfloat16 else torch.float32)


def _cudnn() -> contextlib.AbstractContextManager[Any]:
  import torch
  from torch.nn.attention import SDPBackend
  from torch.nn.attention import sdpa_kernel

  if torch.cuda.is_available():
    return sdpa_kernel(SDPBackend.CUDNN_ATTENTION)
  return contextlib.nullcontext()


def _timed(f: Callable[..., Any], inputs: list[Any], repeats: int) -> tuple[float, Any]:
  """(median milliseconds, what f gives for the first input)."""
  import torch

  def wait() -> None:
    if torch.cuda.is_available():
      torch.cuda.synchronize()

  first = f(*inputs[0])
  for one in inputs:
    f(*one)
  wait()
  start = time.perf_counter()
  f(*inputs[0])
  wait()
  calls = max(1, int(5e-3 / (time.perf_counter() - start)))
  found = []
  for r in range(repeats):
    start = time.perf_counter()
    for i in range(calls):
      f(*inputs[(r + i) % len(inputs)])
    wait()
    found.append((time.perf_counter() - start) / calls * 1e3)
  return statistics.median(found), first


def _measured(
  name: str, make: Callable[[], tuple[Callable[..., Any], list[Any]]], repeats: int
) -> Rival:
  if importlib.util.find_spec("torch") is None:
    return Rival("torch is not installed", None, None)
  try:
    f, inputs = make()
    taken, first = _timed(f, inputs, repeats)
  except (RuntimeError, TypeError, AttributeError) as error:  # torch's own, shown in the table
    return Rival(f"{name} failed: {str(error).splitlines()[0][:80]}", None, None)
  output = jax.tree.map(lambda t: t.detach().float().cpu().numpy(), first)
  return Rival(name, taken, output)


def attention(
  inputs: list[tuple[jax.Array, ...]],
  segments: np.ndarray,
  causal: bool,
  gradient: bool,
  repeats: int,
) -> Rival:
  """inputs: (q, k, v) [..., n, heads, head_dim] each; a segment is one call of torch's attention.

  The cotangent is the output, as in `gpu_rows`.
  """

  def make() -> tuple[Callable[..., Any], list[Any]]:
    import torch

    def heads_first(x: jax.Array) -> Any:
      t = _tensor(x).flatten(0, -4).transpose(1, 2).contiguous()
      return t.requires_grad_(gradient)

    def attend(q: Any, k: Any, v: Any) -> Any:
      parts = [
        torch.nn.functional.scaled_dot_product_attention(
          q[:, :, a:b],
          k[:, :, a:b],
          v[:, :, a:b],
          is_causal=causal,
          enable_gqa=q.shape[1] > k.shape[1],
        )
        for a, b in runs(segments)
      ]
      return torch.cat(parts, dim=2) if len(parts) > 1 else parts[0]

    def back(x: Any) -> Any:
      return x.transpose(1, 2).reshape(*segments.shape, x.shape[1], x.shape[3])

    def f(q: Any, k: Any, v: Any) -> Any:
      with _cudnn():
        out = attend(q, k, v)
        if not gradient:
          return back(out)
        grads = torch.autograd.grad(out, (q, k, v), out.detach())
      return back(out), tuple(back(g) for g in grads)

    return f, [tuple(heads_first(x) for x in one) for one in inputs]

  return _measured("torch, cuDNN, a call a segment", make, repeats)


def encoder(
  weights: Any, volumes: list[jax.Array], grid: np.ndarray, c: VisionConfig, repeats: int
) -> Rival:
  """All layers over volumes uint8 [1, frames, patches, pixels], batched by frame, compiled where
  there is a GPU; output [1, frames * patches, embed]."""

  def make() -> tuple[Callable[..., Any], list[Any]]:
    import torch

    w = jax.tree.map(_tensor, weights)
    turns = _turns(grid, c)
    cos, sin = (_tensor(jax.numpy.asarray(x, jax.numpy.float32)) for x in turns)
    layers = [jax.tree.map(lambda t, i=i: t[i], w["layers"]) for i in range(c.layers)]

    def through(x: Any, own: Any) -> Any:
      return _torch_layer(x, own, cos, sin, c)

    if torch.cuda.is_available():
      through = torch.compile(through)
    kernel = w["patch"]["kernel"].reshape(c.channels, -1, c.embed).sum(dim=0)

    def f(volume: Any) -> Any:
      with torch.no_grad(), _cudnn():
        x = (volume.float() * (2 / 255) - 1).to(kernel.dtype) @ kernel + w["patch"]["bias"]
        for own in layers:
          x = through(x, own)
        return _torch_norm(x, w["norm"], c).reshape(1, -1, c.embed)

    where = "cuda" if torch.cuda.is_available() else "cpu"
    return f, [(torch.from_numpy(np.array(v[0])).to(where),) for v in volumes]

  return _measured("torch, compiled, cuDNN", make, repeats)


def _turns(grid: np.ndarray, c: VisionConfig) -> tuple[np.ndarray, np.ndarray]:
  """Cosine and sine [patches, 1, head_dim / 2]: half the pairs by row, half by column."""
  half = c.head_dim // 2
  frequencies = c.rope_theta ** -(np.arange(0, half, 2) / half)
  angles = np.concatenate([grid[:, :1] * frequencies, grid[:, 1:] * frequencies], axis=1)
  return np.cos(angles)[:, None], np.sin(angles)[:, None]


def _torch_norm(x: Any, w: Any, c: VisionConfig) -> Any:
  import torch

  return torch.nn.functional.layer_norm(x, (c.embed,), w["scale"], w["bias"], c.norm_eps)


def _torch_layer(x: Any, w: Any, cos: Any, sin: Any, c: VisionConfig) -> Any:
  """One pre-norm block, x: [frames, patches, embed]."""
  import torch

  def turned(t: Any) -> Any:
    a, b = t.float().chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

  frames, patches, _ = x.shape
  width = c.heads * c.head_dim
  h = _torch_norm(x, w["attn_norm"], c)
  q, k, v = (
    (h @ w[n].reshape(c.embed, width) + w[f"{n}_bias"].reshape(width)).reshape(
      frames, patches, c.heads, c.head_dim
    )
    for n in "qkv"
  )
  q, k, v = (t.transpose(1, 2) for t in (turned(q), turned(k), v))
  a = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
  x = x + a.reshape(frames, patches, width) @ w["o"].reshape(width, c.embed) + w["o_bias"]
  h = _torch_norm(x, w["mlp_norm"], c)
  h = torch.nn.functional.gelu(h @ w["up"] + w["up_bias"], approximate="tanh")
  return x + h @ w["down"] + w["down_bias"]

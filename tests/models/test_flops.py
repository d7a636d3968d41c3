"""Counted operations are those of the program that XLA compiles, and of a layer counted by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from hulu_jax import peft
from hulu_jax.core import params as P
from hulu_jax.core import tree
from hulu_jax.data import packing
from hulu_jax.data.schema import Group
from hulu_jax.data.schema import StepShape
from hulu_jax.models import flops
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models import scan
from hulu_jax.training import step as step_lib

# Wide enough that norms and softmax, which are not counted, stay below the tolerance.
CONFIG = dataclasses.replace(
  presets.TINY,
  vision=dataclasses.replace(presets.TINY.vision, embed=256, heads=4, head_dim=64, mlp=1024),
  decoder=dataclasses.replace(
    presets.TINY.decoder,
    embed=512,
    heads=8,
    kv_heads=4,
    head_dim=64,
    mlp=1536,
    layers=2,
    vocab=4096,
  ),
)
SHAPE = StepShape(2, 256, 64, 96, (Group(1, 192, 3, 1), Group(3, 128, 1, 2)))
MERGES = (1, 2)
SPECS = hulu.specs(CONFIG)
LORA = peft.named(
  {
    "method": "lora",
    "rank": 8,
    "alpha": 16.0,
    "rslora": False,
    "targets": "decoder/layers/(q|k|v|o|gate|up|down)",
  }
)


def trains(pattern, specs=SPECS):
  return tree.names(tree.partition(specs, pattern)[0])


@pytest.fixture
def unrolled(monkeypatch):
  """Layers one after the other: XLA counts the body of a scan once."""

  def over_layers(layer, x, stacked, remat):
    layers, given = jax.tree.leaves(stacked)[0].shape[0], []
    for i in range(layers):
      x, own = scan.REMAT[remat](layer)(x, jax.tree.map(lambda leaf, i=i: leaf[i], stacked))
      given.append(own)
    return x, None if given[0] is None else jax.tree.map(lambda *own: jnp.stack(own), *given)

  monkeypatch.setattr(scan, "over_layers", over_layers)


def compiled(pattern, specs=SPECS):
  """What XLA counts in loss and gradient; None for `pattern`: in the loss alone."""
  loss = step_lib.make_loss(CONFIG, MERGES, scan.FLOAT32, 1, 0.0)
  params = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), specs)
  batch = packing.empty_batch(SHAPE)
  if pattern is None:
    nothing = jax.tree.map(lambda _: None, params)
    run = jax.jit(loss).lower(params, nothing, batch)
  else:
    run = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(
      *tree.partition(params, pattern), batch
    )
  return run.compile({"xla_backend_optimization_level": 0}).cost_analysis()["flops"]


def dense(counted):
  """The reference attention that is compiled masks what is not causal, and computes it."""
  return counted.total + counted.decoder_attention


def test_forward_is_what_xla_counts(unrolled):
  assert dense(flops.forward(CONFIG, SPECS, SHAPE)) == pytest.approx(compiled(None), rel=0.02)


@pytest.mark.parametrize(
  "pattern",
  (
    ".*",
    "(vision|projector)/.*",  # a frozen decoder passes gradients on
    "projector/.*",
    "(projector|decoder)/.*",  # a frozen encoder has no backward
    "decoder/.*",
    "decoder/head",
  ),
)
def test_a_step_is_what_xla_counts(unrolled, pattern):
  counted = flops.step(CONFIG, SPECS, trains(pattern), SHAPE)
  assert dense(counted) == pytest.approx(compiled(pattern), rel=0.02)


def test_adapters_leave_out_the_gradients_of_their_base(unrolled):
  specs = LORA.specs(SPECS)
  pattern = f"{LORA.pattern(SPECS)}|projector/.*"
  counted = flops.step(CONFIG, specs, trains(pattern, specs), SHAPE)
  assert dense(counted) == pytest.approx(compiled(pattern, specs), rel=0.02)
  assert counted.decoder < 0.8 * flops.step(CONFIG, SPECS, trains(".*"), SHAPE).decoder


def test_a_layer_by_hand():
  """Of hulu-7b, one token: every number below stands in the published configuration."""
  config = presets.get("hulu-7b")
  shape = StepShape(1, 1000, 10, 100, (Group(2, 500, 1, 2),))
  found = flops.forward(config, hulu.specs(config), shape)
  decoder_layer = 2 * (3584 * 3584 * 2 + 3584 * 512 * 2 + 3 * 3584 * 18944)
  assert found.decoder == 28 * 1000 * decoder_layer
  assert found.decoder_attention == 28 * (2 * 2 * 1000 * 1000 * 28 * 128) / 2
  encoder_layer = 2 * (4 * 1152 * 1152 + 2 * 1152 * 4304)
  assert found.encoder == 1000 * (27 * encoder_layer + 2 * 196 * 1152)
  assert found.encoder_attention == 27 * 2 * (2 * 2 * 500 * 500 * 1152)
  assert found.projector == 100 * 2 * (1152 * 3584 + 3584 * 3584)
  assert found.head == 10 * 2 * 152064 * 3584
  everything = flops.step(config, hulu.specs(config), trains(".*", hulu.specs(config)), shape)
  patch = 1000 * 2 * 196 * 1152  # whose input is bytes
  assert everything.total == pytest.approx(3 * found.total - patch, rel=1e-12)


def test_a_tied_table_is_the_head():
  config = presets.get("hulu-4b")
  found = flops.forward(config, hulu.specs(config), StepShape(1, 100, 7, 10, ()))
  assert found.head == 7 * 2 * 151936 * 2560
  assert (found.encoder, found.encoder_attention, found.projector) == (0, 0, 0)


def test_parameters_that_multiply_all_stand_in_the_table():
  """But for tables and biases, norms and bare vectors."""
  specs = LORA.specs(SPECS)
  shape = SHAPE._replace(rows=1, tokens=1, supervised=1, visual=1, groups=(Group(1, 1, 3, 1),))
  found = flops.forward(CONFIG, specs, shape)
  weights = {n: s for n, s in zip(tree.names(specs), jax.tree.leaves(specs), strict=True)}
  matrices = {n: s for n, s in weights.items() if not ("bias" in n or "norm" in n)}
  del matrices["decoder/embed"]
  attention = found.encoder_attention + found.decoder_attention
  assert found.total - attention == 2 * P.count(matrices)


@pytest.mark.parametrize("remat", ("none", "full", "save_attention", "save_qkv_out", "save_dots"))
def test_recomputation(remat):
  compute = dataclasses.replace(scan.FLOAT32, vision_remat=remat, decoder_remat=remat)
  once = flops.forward(CONFIG, SPECS, SHAPE)
  again = flops.recomputed(CONFIG, SPECS, trains(".*"), SHAPE, compute)
  d = CONFIG.decoder
  down = 2 * d.layers * d.mlp * d.embed * SHAPE.rows * SHAPE.tokens
  projections = 2 * d.embed * d.head_dim * 2 * (d.heads + d.kv_heads)
  made = {
    "full": once.decoder - down,
    "save_attention": once.decoder - down,
    "save_qkv_out": once.decoder - down - projections * d.layers * SHAPE.rows * SHAPE.tokens,
  }
  assert again.decoder == made.get(remat, 0)
  assert again.decoder_attention == once.decoder_attention * (remat in ("full", "save_dots"))
  assert again.encoder_attention == once.encoder_attention * (remat in ("full", "save_dots"))
  assert again.head == again.projector == 0
  frozen = flops.recomputed(CONFIG, SPECS, trains("decoder/head"), SHAPE, compute)
  assert frozen.total == 0


def test_passes_and_chunks_run_forward_once_more():
  compute = dataclasses.replace(scan.FLOAT32, vision_pass=192, loss_chunk=32)
  once = flops.forward(CONFIG, SPECS, SHAPE)
  again = flops.recomputed(CONFIG, SPECS, trains(".*"), SHAPE, compute)
  assert again.encoder == once.encoder and again.encoder_attention == once.encoder_attention
  assert again.head == once.head and again.decoder == 0

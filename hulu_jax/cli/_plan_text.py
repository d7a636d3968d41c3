"""How `hulu plan` says what it found: a few lines on a stage and a row for every step shape."""

from collections.abc import Iterator, Mapping, Sequence
import math

from ml_collections import ConfigDict

from hulu_jax.core import sharding
from hulu_jax.core.topology import Topology
from hulu_jax.training import plan
from hulu_jax.training.advice import Advice
from hulu_jax.training.aot import Compiled
from hulu_jax.training.footprint import Footprint
from hulu_jax.training.plan import StagePlan
from hulu_jax.training.plan import StepPlan


def heading(name: str, cfg: ConfigDict, topology: Topology | None) -> str:
  """Which stage, of what, where."""
  axes = [axis for axis in sharding.MESH_AXES if cfg.mesh.get(axis, 1) > 1]
  mesh = " x ".join(f"{axis} {cfg.mesh[axis]}" for axis in axes) or "of one device"
  where = (
    f"{topology.name} ({topology.size} chip{'s' if topology.size > 1 else ''}), "
    if topology
    else ""
  )
  rows = f"{cfg.rows} rows" + (f" in {cfg.accumulate} microbatches" if cfg.accumulate > 1 else "")
  return f"{cfg.model}, stage {name}: {cfg.steps} steps of {rows} on {where}mesh {mesh}"


def counts(found: StagePlan) -> str:
  """Parameters, and what the state of one chip takes."""
  of = found.shapes[0].footprint
  share = found.trains / found.parameters
  return (
    f"parameters {_many(found.parameters)}, of which {_many(found.trains)} train ({share:.1%}); a "
    f"chip holds weights {_gb(of.weights)}, moments {_gb(of.moments)} and "
    f"gradients {_gb(of.gradients)} GB"
  )


def memory(
  shapes: Sequence[StepPlan], compiled: Mapping[str, Compiled | str], topology: Topology | None
) -> Iterator[str]:
  """The table of memory, GB a chip: estimated, and compiled where it was."""
  limit = f" of {topology.chip.memory / 1e9:.0f}" if topology else ""
  yield f"  {'GB a chip':16} {'state':>7} {'batch':>7} {'saved':>7} {'working':>7} " + (
    f"{'estimate' + limit:>15} {'compiled':>9}"
  )
  for step in shapes:
    of = step.footprint
    state, working = of.weights + of.moments, of.temporary - of.saved
    parts = " ".join(f"{_gb(n):>7}" for n in (state, of.batch, of.saved, working))
    found = compiled.get(step.shape)
    said = "-" if found is None else found if isinstance(found, str) else _gb(found.total)
    yield f"  {step.shape:16} {parts} {_gb(of.total):>15} {said:>9}"


def work(
  shapes: Sequence[StepPlan], topology: Topology | None, chips: int, utilisation: float
) -> Iterator[str]:
  """The table of work: FLOPs of a step, and its time where the chip is known."""
  yield f"  {'TFLOP a chip':16} {'encoder':>8} {'decoder':>8} {'head':>6} {'all':>8} " + (
    f"{'again':>6}" + (f" {'seconds':>8}" if topology else "")
  )
  for step in shapes:
    f = step.flops
    parts = (f.encoder + f.encoder_attention + f.projector, f.decoder + f.decoder_attention, f.head)
    encoder, decoder, head = (_tera(n / chips) for n in parts)
    again = f"{step.recomputed.total / f.total:.0%}"
    line = f"  {step.shape:16} {encoder:>8} {decoder:>8} {head:>6} {_tera(f.total / chips):>8} "
    line += f"{again:>6}"
    yield line + (f" {step.seconds(topology, utilisation):8.2f}" if topology else "")


def cost(found: StagePlan, steps: int, topology: Topology, utilisation: float) -> str:
  """Time and chip-hours of a stage, from all steps of the cheapest shape to all of the dearest."""
  seconds = sorted(step.seconds(topology, utilisation) for step in found.shapes)
  hours = [steps * s / 3600 for s in (seconds[0], seconds[-1])]
  chips = [h * topology.size for h in hours]
  busy = max(step.busy(utilisation) for step in found.shapes)
  peak = f"{topology.chip.flops / 1e12:.0f} TFLOP/s"
  return (
    f"at {utilisation:.0%} of {peak}: {_span(hours)} hours, {_span(chips)} chip-hours (chips work "
    f"at up to {busy:.0%}, recomputation included)"
  )


def verdict(worst: float, fits: bool, topology: Topology) -> str:
  """Whether the step that needs most fits; worst: its bytes, infinite where a compiler refused."""
  memory = topology.chip.memory
  if math.isinf(worst):
    return "does not fit: the compiler itself refuses it"
  share = f"{_gb(worst)} of {memory / 1e9:.0f} GB ({worst / memory:.0%})"
  if fits:
    return f"fits: a chip needs {share}"
  return f"does not fit: a chip would need {share}, allowed are {plan.SHARE:.0%}"


def advised(found: Advice | None, fits_now: bool, of: Footprint, topology: Topology) -> str:
  """Which knob to turn, or that none is left."""
  if found is not None and not found.change:
    return "advice: none recomputes less that fits"
  if found is not None:
    why = "recomputes less and fits" if fits_now else "fits"
    return (
      f"advice: {found.flags} {why}: {_gb(found.footprint.total)} GB a chip by estimate, "
      f"{found.recomputed:.0%} recomputed"
    )
  state = of.weights + of.moments + of.gradients
  if state > plan.allowed(topology):
    return (
      f"advice: weights, moments and gradients alone take {_gb(state)} GB a chip: more fsdp on a "
      "bigger topology, or train less (config.peft, config.trainable)"
    )
  return (
    "advice: no accumulate, remat, vision_pass, loss_chunk or fsdp makes it fit; take a bigger "
    "topology or shapes of fewer tokens and patches"
  )


def _gb(n: float) -> str:
  return f"{n / 1e9:.2f}" if n >= 1e9 else f"{n / 1e9:.2g}"


def _many(n: float) -> str:
  return f"{n / 1e9:.3f} B" if n >= 1e9 else f"{n / 1e6:.3f} M"


def _tera(n: float) -> str:
  return f"{n / 1e12:.3g}" if n < 1e13 else f"{n / 1e12:.0f}"


def _span(numbers: Sequence[float]) -> str:
  low, high = (f"{n:.3g}" if n < 1000 else f"{n:,.0f}" for n in numbers)
  return low if low == high else f"{low} to {high}"

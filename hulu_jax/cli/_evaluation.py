"""What `hulu train` asks of a run between its steps: answer loss and exact match, held out."""

from collections.abc import Mapping
import json

from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.data import heldout
from hulu_jax.data import mixture
from hulu_jax.data import settings
from hulu_jax.data.heldout import Held
from hulu_jax.data.schema import MODALITIES
from hulu_jax.eval import exact_match
from hulu_jax.eval.exact_match import Asker
from hulu_jax.training import answer_loss
from hulu_jax.training import inputs
from hulu_jax.training import processes
from hulu_jax.training.loop import Evaluate
from hulu_jax.training.loop import Setting
from hulu_jax.training.metrics import EVALUATION
from hulu_jax.training.state import TrainState


def make(setting: Setting) -> Evaluate:
  """Reads the records of `evaluation.mixture`; what it returns asks them of a state.

  Raises:
    ValueError: a mixture that cannot be meant, no record that can be used, answers that would not
      fit the model's positions, processes that read different records.
  """
  stage, program, mesh = setting.stage, setting.program, setting.mesh
  cfg = stage.cfg.evaluation
  held = _read(setting)
  labels = [entry["label"] for entry in cfg.mixture]
  loss = answer_loss.make(program, labels, mesh)
  asker = Asker(
    config=program.config,
    specs=program.specs,
    compute=program.compute,
    tokenizer=setting.words,
    mesh=mesh,
    rows=program.shapes[0].rows,
    new_tokens=cfg.new_tokens,
  )
  asker.check([r.question.prompt for r in held.records if r.question is not None])

  def evaluate(state: TrainState) -> Mapping[str, float]:
    batches = heldout.batches(held, program.shapes, sharding.data_shards(mesh))
    counts = {"records": float(len(held.records)), "skipped": float(held.skipped)}
    found = {**loss(state, batches), **_asked(asker, held, labels, state), **counts}
    return {f"{EVALUATION}{name}": value for name, value in found.items()}

  return evaluate


def _read(setting: Setting) -> Held:
  """The first `limit` records of the mixture, each at most once."""
  cfg, program = setting.stage.cfg, setting.program
  once = [{**entry, "epochs": 1} for entry in settings.mixture(cfg.evaluation.mixture)]
  datasets = mixture.sources(once)
  order = mixture.order(datasets, once, cfg.seed)
  refs = [order[position] for position in range(min(cfg.evaluation.limit, len(order)))]
  with inputs.decoding(cfg.data) as read:
    builders = inputs.builders(cfg, program, len(datasets), setting.words, read)
    held = heldout.read(refs, datasets, builders, program.shapes)
  known = [(r.example.id, r.example.source, len(r.example.tokens)) for r in held.records]
  processes.agree({"the records of evaluation.mixture": json.dumps(known)})
  return held


def _asked(asker: Asker, held: Held, labels: list[str], state: TrainState) -> Mapping[str, float]:
  """Exact match over the records that end with an answer, step shape by step shape."""
  params = tree.merge(state.trainable, state.frozen)
  hits: list[bool] = []
  datasets, modalities = [], []
  for shape in sorted({record.shape for record in held.records}):
    asked = [r for r in held.records if r.shape == shape and r.question is not None]
    questions = [r.question for r in asked if r.question is not None]
    answers = asker.answers(params, [q.prompt for q in questions])
    hits += exact_match.matches(answers, [q.answer for q in questions])
    datasets += [labels[r.example.source] for r in asked]
    modalities += [MODALITIES[r.example.modality] for r in asked]
  if not hits:
    return {}
  return {
    **exact_match.fractions("exact", hits, datasets, "exact/{}".format),
    **exact_match.fractions("exact", hits, modalities, "exact_by_modality/{}".format),
  }

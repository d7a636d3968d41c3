"""An evaluation in the loop, held against the saved model asked one question at a time."""

from ml_collections import ConfigDict
import numpy as np
import pytest

import hulu_jax
from hulu_jax.cli import _evaluation
from hulu_jax.data import heldout
from hulu_jax.data import mixture
from hulu_jax.data.examples import Builder
from hulu_jax.data.schema import Ref
from hulu_jax.training import loop
from tests.data import test_stats
from tests.data.test_pipeline import SHAPE
from tests.training.test_loop import config
from tests.training.test_told import undocumented

LIMIT, NEW_TOKENS = 10, 6


def disc(kind, weight):
  fields = {"split": "test", "seed": 9, "size": 40, "pool": 0 if kind == "text" else 4, "fade": 0.0}
  entry = {"name": "synthetic_disc", "label": kind, "kind": kind, "weight": weight}
  return ConfigDict({**entry, "shuffle": False, **fields})


MIXTURE = (disc("text", 0.5), disc("2D", 0.3), disc("video", 0.2))


def evaluated(**changes):
  """The small run with an evaluation after its second step and at its end, the third."""
  cfg = config(mesh={"data": 8}, steps=3, report_every=3)
  asked = {"every": 2, "limit": LIMIT, "new_tokens": NEW_TOKENS, "mixture": MIXTURE}
  cfg.evaluation = ConfigDict(asked | changes)
  return cfg


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(workdir, scalars of each report by step)."""
  workdir, seen = tmp_path_factory.mktemp("run"), {}
  loop.train(
    evaluated(),
    workdir,
    lambda r: seen.__setitem__(r.step, dict(r.scalars)),
    evaluation=_evaluation.make,
  )
  return workdir, seen


def records():
  """(dataset, record) of the first LIMIT of the mixture, each once."""
  entries = [{**entry.to_dict(), "epochs": 1} for entry in MIXTURE]
  datasets = mixture.sources(entries)
  order = mixture.order(datasets, entries, config().seed)
  refs = [order[position] for position in range(LIMIT)]
  return [(ref.source, datasets[ref.source][ref.record]) for ref in refs]


def test_it_is_due_every_so_many_steps_and_at_the_end(run):
  _, seen = run
  assert sorted(seen) == [2, 3]
  names = {"loss", "eval/loss", "eval/exact", "eval/loss/text"}
  assert all(names <= scalars.keys() for scalars in seen.values())
  assert seen[3]["eval/loss"] < seen[2]["eval/loss"]
  assert undocumented(seen[3]) == []
  assert seen[3]["eval/records"] == LIMIT and seen[3]["eval/skipped"] == 0


def test_the_answer_loss_is_that_of_the_models_logits(run):
  """A loop over conversations alone: log softmax in float64, mean over supervised tokens."""
  workdir, seen = run
  model = hulu_jax.load(workdir)
  builder = Builder(tokenizer=model.tokenizer, policy=model.policy, root=None)
  losses = {0: [], 1: [], 2: []}
  for source, record in records():
    logits = model.logits([record["messages"]])
    example = builder(record)
    np.testing.assert_array_equal(logits.tokens[0], example.tokens)
    x = np.asarray(logits[0], np.float64)
    x -= x.max(axis=1, keepdims=True)
    x -= np.log(np.exp(x).sum(axis=1, keepdims=True))
    for i in np.flatnonzero(example.weights):
      losses[source].append(-x[i - 1, example.tokens[i]])
  # float32, and other paddings: sums are taken in another order.
  everything = [v for own in losses.values() for v in own]
  assert seen[3]["eval/loss"] == pytest.approx(np.mean(everything), rel=1e-5)
  assert seen[3]["eval/loss/2D"] == pytest.approx(np.mean(losses[1]), rel=1e-5)
  assert seen[3]["eval/loss_by_modality/video"] == pytest.approx(np.mean(losses[2]), rel=1e-5)


def test_exact_match_is_what_generate_answers(run):
  workdir, seen = run
  model = hulu_jax.load(workdir)
  hits = {"text": [], "2D": [], "video": []}
  for source, record in records():
    *asked, last = record["messages"]
    (answer,) = model.generate([asked], max_new_tokens=NEW_TOKENS)
    content = last["content"]
    wanted = content if isinstance(content, str) else "".join(item["text"] for item in content)
    hits[MIXTURE[source].label].append(answer.strip() == wanted.strip())
  assert seen[3]["eval/exact"] == np.mean([h for own in hits.values() for h in own])
  assert {k: seen[3][f"eval/exact/{k}"] for k in hits} == {k: np.mean(v) for k, v in hits.items()}


def test_shards_pack_the_rows_of_one(builder):
  """Each keeps its own of what all of them plan alike."""

  shape = test_stats.SHAPE
  examples = [builder(r) for r in test_stats.records() * 2]
  held = heldout.Held(tuple(heldout.Record(e, 0, None) for e in examples), 0)
  whole = list(heldout.batches(held, [shape], (0, 1)))
  assert len(whole) > 1
  parts = [list(heldout.batches(held, [shape], (n, 2))) for n in range(2)]
  for one, *own in zip(whole, *parts, strict=True):
    joined = np.concatenate([batch.tokens for _, batch in own])
    np.testing.assert_array_equal(joined, one[1].tokens)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"every": 0}, "says evaluation.every = 0 .expected a whole number from 1"),
    ({"evry": 3}, "no use for evaluation.evry .did you mean 'every'"),
    ({"new_tokens": 10**6}, "evaluation.new_tokens = 1000000: prompt and answer would take"),
    ({"mixture": ()}, "data.mixture is empty"),
  ],
)
def test_what_cannot_be_asked_is_refused_before_the_first_step(changes, message, tmp_path):
  seen = []
  with pytest.raises(ValueError, match=message):
    loop.train(evaluated(**changes), tmp_path, seen.append, evaluation=_evaluation.make)
  assert not seen


def test_records_that_cannot_be_used_are_counted(builder):
  texts = mixture.sources([{**MIXTURE[0].to_dict()}])
  refs = [Ref(0, n) for n in range(3)]

  class WithABadOne:
    def __getitem__(self, index):
      return {"id": "bad"} if index == 1 else texts[0][index]

  held = heldout.read(refs, [WithABadOne()], [builder], [SHAPE])
  assert len(held.records) == 2 and held.skipped == 1

"""Fine-tuning on a user's own files of every kind, then asking the result: the README's path."""

import json

import numpy as np
from PIL import Image
import pytest

from experiments import finetune_vqa
import hulu_jax
from hulu_jax.training import loop


def ask(question, answer, **medium):
  content = [medium] if medium else []
  return [
    {"role": "user", "content": [*content, {"type": "text", "text": question}]},
    {"role": "assistant", "content": [{"type": "text", "text": answer}]},
  ]


@pytest.fixture(scope="module")
def root_of_data(tmp_path_factory):
  """A colour picture, a grey one, a volume, a clip, text, and one record in LLaVA's form."""
  folder = tmp_path_factory.mktemp("data")
  rng = np.random.default_rng(0)
  Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(folder / "colour.png")
  Image.fromarray(rng.integers(0, 256, (60, 60), dtype=np.uint8)).save(folder / "grey.png")
  np.save(folder / "volume.npy", rng.normal(size=(5, 40, 40)).astype(np.float32))
  frames = [Image.fromarray(f) for f in rng.integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)]
  frames[0].save(folder / "clip.gif", save_all=True, append_images=frames[1:], duration=100)
  records = [
    {"messages": ask("What is shown?", "Noise.", type="image", path="colour.png")},
    {"messages": ask("Is it grey?", "Yes.", type="image", path="grey.png")},
    {
      "messages": ask(
        "Which organ?", "None.", type="volume", path="volume.npy", spacing_mm=[2.0, 1.0, 1.0]
      )
    },
    {"messages": ask("Does it move?", "It flickers.", type="video", path="clip.gif")},
    {"messages": ask("What is 2 + 2 ?", "4")},
    {
      "image": "grey.png",
      "conversations": [
        {"from": "human", "value": "<image>\nDescribe it."},
        {"from": "gpt", "value": "Grey noise."},
      ],
    },
  ]
  lines = (json.dumps({"id": i, **record}) for i, record in enumerate(records))
  (folder / "train.jsonl").write_text("\n".join(lines) + "\n{broken\n")
  return folder


def test_from_files_to_answers(root_of_data, tmp_path):
  cfg = finetune_vqa.get_config("tiny,full")
  with cfg.unlocked():
    cfg.steps, cfg.report_every, cfg.optimizer.warmup = 4, 1, 0.5
    cfg.mesh.data, cfg.rows, cfg.data.lookahead = 8, 8, 2
    cfg.data.root, cfg.train_file = str(root_of_data), str(root_of_data / "train.jsonl")
    cfg.data.max_bad = 1.0  # the broken line comes round again and again
  seen = {}
  loop.train(cfg, tmp_path, lambda r: seen.__setitem__(r.step, r.scalars))
  assert seen[4]["loss/mine"] < seen[1]["loss/mine"]
  assert seen[4]["skipped"] > 0

  model = hulu_jax.load(tmp_path)
  picture = {"type": "image", "path": str(root_of_data / "grey.png")}
  question = [{"role": "user", "content": [picture, {"type": "text", "text": "Is it grey?"}]}]
  assert len(model.generate([question], max_new_tokens=4)) == 1
  scores = model.logits([question])
  assert np.isfinite(scores).all() and scores.shape[2] == model.config.decoder.vocab

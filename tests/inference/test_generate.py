"""Generation equals the path without a cache, whatever lies beside a prompt in its batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hulu_jax
from hulu_jax.core import sharding
from hulu_jax.data.examples import Builder
from hulu_jax.eval.exact_match import Asker
from hulu_jax.inference import generate
from hulu_jax.inference import prompts as prompts_lib
from hulu_jax.inference import sample
from hulu_jax.models import hulu

RNG = np.random.default_rng(0)


def noise(frames, height, width, channels):
  return RNG.integers(0, 256, (frames, height, width, channels), dtype=np.uint8)


def user(*content):
  return [{"role": "user", "content": list(content)}]


def text(words):
  return {"type": "text", "text": words}


CONVERSATIONS = [
  user(text("is there a disc ?")),
  user({"type": "image", "frames": noise(1, 56, 84, 1)}, text("which quadrant is the disc in ?")),
  user(
    {"type": "volume", "frames": noise(4, 56, 56, 1)},
    {"type": "image", "frames": noise(1, 56, 56, 3)},
    text("which third contains the disc ?"),
  ),
  user({"type": "video", "frames": noise(3, 56, 56, 3), "timestamps": [0.0, 0.5, 1.0]}, text("?")),
]


@pytest.fixture(scope="module")
def model():
  return hulu_jax.load("tiny")


@pytest.fixture(scope="module")
def answers(model):
  return model.generate(CONVERSATIONS, max_new_tokens=6)


def without_cache(model, conversation, tokens):
  """Greedy answer by scoring the whole sequence anew for every token."""

  prompt = model._examples([conversation], generate=True)[0]
  out = []
  for _ in range(tokens):
    ids = np.concatenate([prompt.tokens, np.array(out, np.int32)])
    grown = type(prompt)(
      prompt.id, ids, np.zeros(len(ids), np.float32), prompt.visuals, prompt.visual_positions, 0
    )
    batch, merges = model._batch([grown])
    with jax.set_mesh(model.mesh):
      scores = hulu.logits(model.params, batch, merges, model.config, model.compute)
    out.append(int(jnp.argmax(scores[0, len(ids) - 1])))
    if out[-1] in model.tokenizer.eos:
      break
  return model._text(np.array(out))


@pytest.mark.parametrize("which", [0, 2])
def test_equals_the_path_without_a_cache(model, answers, which):
  assert answers[which] == without_cache(model, CONVERSATIONS[which], 6)


def test_a_prompt_does_not_see_its_neighbours(model, answers):
  for conversation, answer in zip(CONVERSATIONS, answers, strict=True):
    assert model.generate([conversation], max_new_tokens=6) == [answer]


def test_scores_of_a_conversation_with_its_answer(model):
  """As a user scores an answer; what stands before it does not see it."""
  (question,) = CONVERSATIONS[0]
  answer = {"role": "assistant", "content": "no , there is nothing of the kind in it"}
  asked, whole = model.logits([[question]]), model.logits([[question, answer]])
  before = asked.shape[1]
  assert whole.shape[1] > before + 8
  np.testing.assert_array_equal(whole.tokens[0, :before], asked.tokens[0])
  # float32: the rows were padded to different lengths.
  np.testing.assert_allclose(whole[0, :before], asked[0], rtol=1e-4, atol=1e-4)


def test_pictures_change_the_scores(model):
  seen = CONVERSATIONS[1]
  blank = user(
    {"type": "image", "frames": np.zeros((1, 56, 84, 1), np.uint8)}, seen[0]["content"][1]
  )
  scores = model.logits([seen, blank])
  assert scores.dtype == np.float32 and scores.shape[:2] == scores.tokens.shape
  n = scores.lengths[0]
  np.testing.assert_array_equal(scores.tokens[0], scores.tokens[1])
  assert np.abs(scores[0, n - 1] - scores[1, n - 1]).max() > 1e-3


def test_the_mesh_does_not_matter(model, answers):
  spread = hulu_jax.load("tiny", mesh={"data": 2, "fsdp": 2, "tensor": 2})
  assert spread.generate(CONVERSATIONS, max_new_tokens=6) == answers
  np.testing.assert_allclose(
    spread.logits(CONVERSATIONS[:2]), model.logits(CONVERSATIONS[:2]), atol=1e-4
  )


def test_a_run_over_context_asks_on_its_own_devices(model, answers):
  mesh = sharding.make_mesh({"fsdp": 2, "context": 2, "tensor": 2})
  where = sharding.shardings(hulu.specs(model.config), mesh)
  params = jax.device_put(jax.device_get(model.params), where)
  build = Builder(tokenizer=model.tokenizer, policy=model.policy, root=None).build
  prompts = [build(c, str(i), generate=True) for i, c in enumerate(CONVERSATIONS)]
  asker = Asker(
    config=model.config,
    compute=model.compute,
    tokenizer=model.tokenizer,
    mesh=mesh,
    rows=1,
    new_tokens=6,
  )
  with jax.set_mesh(mesh):
    assert asker.answers(params, prompts) == answers
    with pytest.raises(ValueError, match="generation on a mesh with context = 2"):
      generate.prefill(params, None, (), model.config, model.compute)


def test_too_long_is_refused(model):
  with pytest.raises(ValueError, match="positions are needed, the model holds 4096"):
    model.generate([CONVERSATIONS[0]], max_new_tokens=5000)


def test_one_conversation_is_not_a_list_of_them(model):
  with pytest.raises(ValueError, match="a list of conversations"):
    model.generate(CONVERSATIONS[0], max_new_tokens=1)


def test_sizes_come_in_few_steps():
  sizes = {prompts_lib.bucket(n) for n in range(1, 5000)}
  assert len(sizes) < 26
  assert all(n <= prompts_lib.bucket(n) <= max(2 * n - 1, 1) for n in range(1, 5000))


def test_sampling():
  logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))
  draw = jax.jit(sample.choose, static_argnames="sampling")
  keys = jax.random.split(jax.random.key(0), 400)

  def frequencies(**kwargs):
    sampling = sample.Sampling(**kwargs)
    drawn = jax.vmap(lambda k: draw(k, logits, sampling=sampling)[0])(keys)
    return np.bincount(np.asarray(drawn), minlength=4) / 400

  np.testing.assert_array_equal(frequencies(temperature=0.0, top_p=1.0), [1, 0, 0, 0])
  # 400 draws: three standard deviations of a share are at most 0.075.
  np.testing.assert_allclose(
    frequencies(temperature=1.0, top_p=1.0), [0.5, 0.3, 0.15, 0.05], atol=0.075
  )
  np.testing.assert_allclose(
    frequencies(temperature=1.0, top_p=0.6), [0.625, 0.375, 0, 0], atol=0.075
  )
  with pytest.raises(ValueError, match="temperature"):
    sample.Sampling(temperature=-1.0, top_p=1.0)

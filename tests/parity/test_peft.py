"""The real `peft` package, where it is installed: it reads our folders, we read its."""

import jax
import numpy as np
import pytest

from hulu_jax import peft as ours
from hulu_jax.core import sharding
from hulu_jax.core import tree
from hulu_jax.models import hulu
from hulu_jax.weights import adapters
from tests.parity.conftest import Pair

pytestmark = pytest.mark.slow
# float32 on both sides, sums in another order; measured at most 1.5e-5 on logits of up to 17.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def theirs():
  return pytest.importorskip("peft", reason="compares with peft, which no extra installs")


@pytest.fixture
def example(pictures, conversation):
  parts = [pictures.text(4), pictures.image(4, 6), pictures.text(5), pictures.video(2, 4, 4)]
  return conversation("x", [*parts, pictures.text(4)])


@pytest.fixture
def fresh(pair):
  """A copy that `peft` may change."""
  return type(pair.theirs).from_pretrained(pair.folder).eval()


@pytest.mark.parametrize("rslora", [False, True])
def test_peft_loads_what_we_write(rslora, theirs, pair, fresh, example, tmp_path):
  targets = "(decoder|vision)/layers/(q|k|v|o|gate|up|down)|projector/(up|down)"
  said = {"method": "lora", "rank": 4, "alpha": 6.0, "rslora": rslora, "targets": targets}
  found, specs = ours.named(said), hulu.specs(pair.config)
  rng = np.random.default_rng(0)
  new, _ = tree.partition(found.specs(specs), found.pattern(specs))
  factors = jax.tree.map(lambda s: rng.normal(0, 0.1, s.shape).astype(np.float32), new)
  mine = tree.merge(factors, found.wrap(pair.params))
  adapters.write(
    tmp_path / "mine",
    mine,
    pair.config,
    found.settings,
    base=str(pair.folder),
    layout="video_llama_3",
  )
  adapted = theirs.PeftModel.from_pretrained(fresh, str(tmp_path / "mine")).eval()
  both = Pair(adapted, mine, pair.config, pair.folder)
  want = both.their_logits(example)
  np.testing.assert_allclose(both.our_logits([example])["x"], want, atol=TOLERANCE)
  adapted.save_pretrained(tmp_path / "theirs")
  mesh = sharding.one_device_mesh()
  back, _ = adapters.load(tmp_path / "theirs", pair.params, pair.config, mesh)
  jax.tree.map(np.testing.assert_array_equal, back, mine)


def test_we_load_what_peft_makes(theirs, pair, fresh, example, tmp_path):
  """By the ends of names, which match the encoder's layers too."""
  settings = theirs.LoraConfig(
    r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], init_lora_weights=False
  )
  adapted = theirs.get_peft_model(fresh, settings).eval()
  adapted.save_pretrained(tmp_path / "theirs")
  mesh = sharding.one_device_mesh()
  read, _ = adapters.load(tmp_path / "theirs", pair.params, pair.config, mesh)
  both = Pair(adapted, read, pair.config, pair.folder)
  want = both.their_logits(example)
  np.testing.assert_allclose(both.our_logits([example])["x"], want, atol=TOLERANCE)

"""What every test stands on: eight emulated CPU devices, small meshes, a small tokenizer."""

import atexit
import os
from pathlib import Path
import shutil
import tempfile
from typing import Any

# Before JAX is imported, and for the processes that tests start: compiling is most of the suite's
# time, and tests compare values, not speed.  The quick start runs as it is compiled for users.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# The workers of a session, and the processes they start, compile many programs alike: each once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
  os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="hulu-tests-")
  os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
  atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"])

from absl import flags
from hypothesis import HealthCheck
from hypothesis import settings
import jax
import pytest

import hulu_jax
from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data.compression import Compression
from hulu_jax.data.examples import Builder
from hulu_jax.data.vision import Policy
from hulu_jax.models import hulu
from hulu_jax.models import presets

jax.config.update("jax_num_cpu_devices", 8)

# Importing the package must be enough: with few threads collectives over eight devices hang.
assert int(os.environ["NPROC"]) >= 16, f"NPROC was set before {hulu_jax.__name__} was imported"

if not flags.FLAGS.is_parsed():
  flags.FLAGS.mark_as_parsed()

# How long an example takes says how busy the machine is, nothing about the code.
settings.register_profile(
  "any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any_machine")

# Compiles in half the time; tests compare values, not speed.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ROOT = Path(__file__).parents[1]
# Enough text for a vocabulary with merges, digits and non-ASCII letters.
CORPUS = [
  "Is there a pleural effusion? No. The heart size is normal, the lungs are clear.",
  "Describe the picture.\nA round opacity of 12.5 mm in the right upper lobe.",
  "Gibt es eine Fraktur? Ja, größer als 3 mm.",
  "which third of the volume holds the disc ? the middle third",
] * 8


@pytest.fixture(scope="session")
def root() -> Path:
  """The repository."""
  return ROOT


@pytest.fixture(scope="session")
def quick() -> dict[str, Any]:
  """Compiler options for a test that compiles something large."""
  return QUICK


@pytest.fixture(scope="session")
def shared_data() -> Path:
  """The folder of real data beside the repository."""
  path = ROOT.parent / "shared" / "data"
  if not path.is_dir():
    pytest.skip(f"no {path}: the real files of the shared data folder are not on this machine")
  return path


@pytest.fixture(scope="session")
def mesh_of_one() -> jax.sharding.Mesh:
  """One device under the same explicit axes as any other mesh."""
  return sharding.one_device_mesh()


@pytest.fixture(scope="session")
def mesh_2x2x2() -> jax.sharding.Mesh:
  """Two ways of everything: the smallest mesh on which every kind of collective appears."""
  return sharding.make_mesh({"data": 2, "fsdp": 2, "tensor": 2})


@pytest.fixture(scope="session")
def fresh_tiny() -> P.Params:
  """The tiny preset as `initialize` draws it from key 0, without a mesh."""
  specs = hulu.specs(presets.TINY)
  draw = jax.jit(lambda key: P.initialize(key, specs), compiler_options=QUICK)
  return jax.device_get(draw(jax.random.key(0)))


@pytest.fixture(scope="session")
def tokenizer() -> tokenizer_lib.Tokenizer:
  """A SentencePiece model of at most 400 ids, as the tiny preset trains one."""
  return tokenizer_lib.train(CORPUS, 400)


@pytest.fixture(scope="session")
def builder(tokenizer, tmp_path_factory) -> Builder:
  """Records to examples of a few dozen tokens; volumes and clips lose what hardly changes."""
  policy = Policy(
    patch=14,
    min_tokens=1,
    max_tokens=48,
    merge={"image": 1, "volume": 2, "video": 2},
    preset="radiology",
    compression=Compression(mode="fixed", grey=12.0),
  )
  return Builder(tokenizer=tokenizer, policy=policy, root=tmp_path_factory.mktemp("records"))

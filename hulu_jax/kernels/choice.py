"""Which implementation of every kernel a run uses: a name each, resolved once and never guessed."""

from collections.abc import Mapping
import dataclasses

from hulu_jax.kernels import names
from hulu_jax.kernels.attention import names as attention

AUTO = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernels:
  """The named implementation of every operation; the names are those of its `api` module."""

  visual_tokenizer: str
  token_compaction: str
  encoder_attention: str
  decoder_attention: str


# Operation -> implementation -> the platforms that it runs on.
RUNS_ON: Mapping[str, Mapping[str, tuple[str, ...]]] = {
  "visual_tokenizer": names.PALLAS,
  "token_compaction": names.PALLAS,
  "encoder_attention": attention.RUNS_ON,
  "decoder_attention": attention.RUNS_ON,
}

REFERENCE = Kernels(
  visual_tokenizer="reference",
  token_compaction="reference",
  encoder_attention="reference",
  decoder_attention="reference",
)

_XLA = dataclasses.replace(REFERENCE, encoder_attention="xla", decoder_attention="xla")
# TPU kernels have been compiled and interpreted, not timed; see their README.
_TPU = Kernels(
  visual_tokenizer="pallas_tpu",
  token_compaction="pallas_tpu",
  encoder_attention="splash",
  decoder_attention="splash",
)
DEFAULTS: Mapping[str, Kernels] = {"cpu": _XLA, "tpu": _TPU, "gpu": _XLA}


def automatic(platform: str) -> Kernels:
  """What `auto` means on `platform`, as JAX calls it ("cpu", "tpu", "gpu").

  Raises:
    ValueError: a platform without defaults.
  """
  if platform not in DEFAULTS:
    raise ValueError(f"no kernels for platform {platform!r}; there are: {', '.join(DEFAULTS)}")
  return DEFAULTS[platform]


def resolve(wanted: Mapping[str, str], platform: str) -> Kernels:
  """A name for every operation; `wanted` gives one each, or "auto" for the platform's best.

  Raises:
    ValueError: an operation that is missing or unknown, a name that there is not or that does not
      run on this platform, or a platform without defaults.
  """
  operations = {field.name for field in dataclasses.fields(Kernels)}
  if set(wanted) != operations:
    raise ValueError(f"kernels {sorted(wanted)}; expected exactly {sorted(operations)}")
  auto = dataclasses.asdict(automatic(platform))
  chosen = {n: auto[n] if wanted[n] == AUTO else wanted[n] for n in operations}
  for operation, name in chosen.items():
    _check(operation, name, platform)
  return Kernels(**chosen)


def described(kernels: Kernels) -> str:
  """`operation=name` for every operation, in one line."""
  return ", ".join(f"{op}={name}" for op, name in dataclasses.asdict(kernels).items())


def _check(operation: str, name: str, platform: str) -> None:
  there_are = RUNS_ON[operation]
  if name not in there_are:
    raise ValueError(f"kernels.{operation}: no {name!r}; there are: {', '.join(there_are)}")
  if platform not in there_are[name]:
    able = [other for other, platforms in there_are.items() if platform in platforms]
    raise ValueError(
      f"kernels.{operation}: {name!r} runs on {' and '.join(there_are[name])}, this is {platform}; "
      f"here run: {', '.join(able)}"
    )

"""Which implementation of every kernel a run uses: a name each, resolved once and never guessed."""

from collections.abc import Mapping
import dataclasses

AUTO = "auto"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kernels:
  """The named implementation of every operation; the names are those of its `api` module."""

  visual_tokenizer: str
  token_compaction: str
  encoder_attention: str
  decoder_attention: str


REFERENCE = Kernels(
  visual_tokenizer="reference",
  token_compaction="reference",
  encoder_attention="reference",
  decoder_attention="reference",
)

# TPU kernels have been compiled and interpreted, not timed; see their README.
_TPU = dataclasses.replace(REFERENCE, visual_tokenizer="pallas_tpu", token_compaction="pallas_tpu")

DEFAULTS: Mapping[str, Kernels] = {"cpu": REFERENCE, "tpu": _TPU, "gpu": REFERENCE}


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
    ValueError: an operation that is missing or unknown, or a platform without defaults.
  """
  names = {field.name for field in dataclasses.fields(Kernels)}
  if set(wanted) != names:
    raise ValueError(f"kernels {sorted(wanted)}; expected exactly {sorted(names)}")
  auto = dataclasses.asdict(automatic(platform))
  return Kernels(**{n: auto[n] if wanted[n] == AUTO else wanted[n] for n in names})

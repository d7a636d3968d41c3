"""adapter_config.json of Hugging Face PEFT: what it says, refused where it says more than LoRA."""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
import re
from typing import Any

from hulu_jax.peft import lora
from hulu_jax.weights import files

NAME = "adapter_config.json"
# Keys of PEFT 0.21's LoraConfig that this module reads; the last may be absent.
_NEEDED, _RSLORA = ("peft_type", "r", "lora_alpha", "target_modules"), "use_rslora"
# Keys that do not change what a trained adapter computes.
_SILENT = (
  *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
  *("inference_mode", "lora_dropout", "megatron_core", "qalora_group_size"),
)
# Keys that do, unless they hold one of these.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
  "bias": ("none",),
  "init_lora_weights": (True, False, "gaussian"),  # the others change the base weights too
  **dict.fromkeys(("rank_pattern", "alpha_pattern", "loftq_config"), (None, {})),
  **dict.fromkeys(("modules_to_save", "exclude_modules", "layers_to_transform"), (None, [])),
  **dict.fromkeys(("layers_pattern", "target_parameters", "layer_replication"), (None, [])),
  **dict.fromkeys(("fan_in_fan_out", "use_dora", "use_qalora", "lora_bias"), (None, False)),
  **dict.fromkeys(("use_bdlora", "ensure_weight_tying"), (None, False)),
  **dict.fromkeys(("megatron_config", "trainable_token_indices", "eva_config"), (None,)),
  **dict.fromkeys(("corda_config", "lora_ga_config", "velora_config"), (None,)),
  **dict.fromkeys(("alora_invocation_tokens", "monteclora_config"), (None,)),
  **dict.fromkeys(("arrow_config", "kasa_config"), (None,)),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
  """What an adapter's config says; target_modules as PEFT has it."""

  r: int
  alpha: float
  rslora: bool
  target_modules: str | Sequence[str]

  def adapts(self, module: str) -> bool:
    """PEFT's rule: a string is a pattern of the whole name, a list holds names or their ends."""
    if isinstance(self.target_modules, str):
      return re.fullmatch(self.target_modules, module) is not None
    return any(module == t or module.endswith(f".{t}") for t in self.target_modules)


def read(folder: pathlib.Path) -> Said:
  """The config of an adapter's folder.

  Raises:
    ValueError: no such file, or keys that are missing, unknown or mean more than plain LoRA; all of
      them are listed.
  """
  path = folder / NAME
  raw = files.read_json(path)
  known = {*_NEEDED, _RSLORA, *_SILENT, *_NEUTRAL}
  modules = raw.get("target_modules")
  problems = {
    "missing": [key for key in _NEEDED if raw.get(key) is None],
    "unknown": sorted(raw.keys() - known),
    "not supported": [
      f"{key} = {raw[key]!r}" for key in sorted(_NEUTRAL) if key in raw and not _neutral(key, raw)
    ],
  }
  if raw.get("peft_type", "LORA") != "LORA":
    problems["not supported"].append(f"peft_type = {raw['peft_type']!r}")
  if not isinstance(modules, str | list | None):
    problems["not supported"].append(f"target_modules = {modules!r}")
  if any(problems.values()):
    listed = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in problems.items() if keys)
    raise ValueError(f"{path} is no plain LoRA: {listed}")
  rslora = raw[_RSLORA] if raw.get(_RSLORA) is not None else False
  return Said(
    r=raw["r"], alpha=raw["lora_alpha"], rslora=rslora, target_modules=raw["target_modules"]
  )


def _neutral(key: str, raw: Mapping[str, Any]) -> bool:
  """JSON's false is no 0, and its 1 is no true."""
  return any(type(raw[key]) is type(v) and raw[key] == v for v in _NEUTRAL[key])


def text(settings: lora.Settings, modules: Sequence[str], base: str) -> str:
  """The file's content.  modules: full torch names of what is adapted.

  `target_modules` becomes one pattern: the ends that PEFT users write (`q_proj`) would match the
  vision encoder's layers too.
  """
  groups = sorted({re.sub(r"\\\.\d+\\\.", lambda _: r"\.\d+\.", re.escape(m)) for m in modules})
  said = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base,
    "r": settings.rank,
    "lora_alpha": settings.alpha,
    "lora_dropout": 0.0,
    "target_modules": "|".join(groups),
    _RSLORA: settings.rslora,
    "bias": "none",
    "inference_mode": True,
  }
  return json.dumps(said, indent=2) + "\n"

"""What `import hulu_jax` offers: `load` a model, ask it, look at what it computes, `save` it."""

from collections.abc import Mapping, Sequence
import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hulu_jax.core import linear
from hulu_jax.core import params as P
from hulu_jax.core import sharding
from hulu_jax.data import chat
from hulu_jax.data import tokenizer as tokenizer_lib
from hulu_jax.data import vision
from hulu_jax.data.datasets import synthetic_disc
from hulu_jax.data.examples import Builder
from hulu_jax.data.schema import Batch
from hulu_jax.data.schema import Example
from hulu_jax.data.tokenizer import Tokenizer
from hulu_jax.data.vision import Policy
from hulu_jax.inference import generate as generate_lib
from hulu_jax.inference import prompts as prompts_lib
from hulu_jax.inference import visual
from hulu_jax.inference.sample import Sampling
from hulu_jax.inference.visual import VisualTokens
from hulu_jax.kernels import choice
from hulu_jax.models import hulu
from hulu_jax.models import presets
from hulu_jax.models.config import HuluConfig
from hulu_jax.models.scan import Compute
from hulu_jax.weights import adapters as adapters_lib
from hulu_jax.weights import card as card_lib
from hulu_jax.weights import checkpoint
from hulu_jax.weights import convert
from hulu_jax.weights import hf_read
from hulu_jax.weights import load as weights_load
from hulu_jax.weights import sources
from hulu_jax.weights.assemble import Model as Unread

Messages = Sequence[Mapping[str, Any]]


class Logits(np.ndarray):
  """float32 [batch, length, vocab]; `.tokens` int32 [batch, length] and `.lengths` beside it."""

  tokens: np.ndarray
  lengths: np.ndarray


@dataclasses.dataclass(frozen=True)
class Model:
  """A loaded model and where it runs.  tokenizer: None where none was found."""

  params: P.Params
  config: HuluConfig
  policy: Policy
  tokenizer: Tokenizer | None
  compute: Compute
  mesh: jax.sharding.Mesh

  def generate(
    self,
    conversations: Sequence[Messages],
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
  ) -> list[str]:
    """One answer per conversation; they may differ in length and in media.

    conversations: each a list of {"role", "content"}; content is a string or a list of items as in
    the record format, media by `path` or as `frames` (uint8 [T, H, W, 1 or 3]).

    Raises:
      BadRecord: a medium that cannot be read, or messages that are not a conversation.
      ValueError: longer than the model's positions.
    """
    prompts = self._examples(conversations, generate=True)
    longest = max(len(p.tokens) for p in prompts) + max_new_tokens
    self._check_length(longest)
    batch, merges = self._batch(prompts)
    plan = generate_lib.Plan(
      config=self.config,
      compute=self.compute,
      merges=merges,
      eos=self._tokenizer().eos,
      new_tokens=max_new_tokens,
      sampling=Sampling(temperature=temperature, top_p=top_p),
    )
    with jax.set_mesh(self.mesh):
      answers = generate_lib.generate(self.params, batch, jax.random.key(seed), plan)
    return [self._text(row) for row in np.asarray(answers)[: len(prompts)]]

  def logits(self, conversations: Sequence[Messages]) -> Logits:
    """Scores of every next token of whole conversations; raises as `generate`."""
    examples = self._examples(conversations, generate=False)
    self._check_length(max(len(e.tokens) for e in examples))
    batch, merges = self._batch(examples)
    with jax.set_mesh(self.mesh):
      found = _logits(self.params, batch, merges=merges, c=self.config, compute=self.compute)
    lengths = np.array([len(e.tokens) for e in examples])
    here = np.s_[: len(examples), : lengths.max()]
    out = np.asarray(found)[here].view(Logits)
    out.tokens, out.lengths = np.asarray(batch.tokens)[here], lengths
    return out

  def visual_tokens(self, medium: Mapping[str, Any]) -> VisualTokens:
    """What of one picture, volume or clip reaches the decoder: features, and where they come from.

    medium: a content item as in the record format, e.g. {"type": "volume", "path": "ct.nii.gz"}.
    Each new size is compiled anew.

    Raises:
      BadRecord: a medium that cannot be read.
      ValueError: a model that lies on several devices.
    """
    if self.mesh.size > 1:
      raise ValueError(f"visual_tokens takes a model on one device; this lies on {self.mesh.size}")
    builder = Builder(tokenizer=self._tokenizer(), policy=self.policy, root=None)
    with jax.set_mesh(self.mesh):
      return visual.tokens(
        self.params, builder.read(medium), self.policy, self.config, self.compute
      )

  def _examples(self, conversations: Sequence[Messages], *, generate: bool) -> list[Example]:
    if not conversations or isinstance(conversations[0], Mapping):
      raise ValueError("expected a list of conversations, each a list of messages")
    builder = Builder(tokenizer=self._tokenizer(), policy=self.policy, root=None)
    return [builder.build(c, str(i), generate=generate) for i, c in enumerate(conversations)]

  def _batch(self, examples: Sequence[Example]) -> tuple[Batch, tuple[int, ...]]:
    fewest = sharding.fewest_rows(self.mesh)
    rows = -(-len(examples) // fewest) * fewest
    batch, shape = prompts_lib.to_batch(examples, rows)
    merges = tuple(g.merge for g in shape.groups)
    return jax.device_put(batch, sharding.batch_sharding(self.mesh)), merges

  def _check_length(self, longest: int) -> None:
    most = self.config.decoder.max_positions
    if longest > most:
      raise ValueError(f"{longest} positions are needed, the model holds {most}")

  def _tokenizer(self) -> Tokenizer:
    if self.tokenizer is None:
      raise ValueError("the model came without a tokenizer; give load(..., tokenizer=PATH)")
    return self.tokenizer

  def _text(self, ids: np.ndarray) -> str:
    ends = np.flatnonzero(np.isin(ids, self._tokenizer().eos))
    return self._tokenizer().decode(ids[: ends[0]] if len(ends) else ids)


@jax.jit(static_argnames=("merges", "c", "compute"))
def _logits(
  w: P.Params, batch: Batch, *, merges: tuple[int, ...], c: HuluConfig, compute: Compute
) -> jax.Array:
  return hulu.logits(w, batch, merges, c, compute)


def load(
  source: str | Path,
  *,
  tokenizer: str | Path | None = None,
  dtype: str = "float32",
  mesh: Mapping[str, int] | None = None,
  seed: int = 0,
  adapters: str | Path | None = None,
  ema: bool = False,
) -> Model:
  """Loads a run folder of `hulu train`, a Hugging Face folder, or a preset with random weights.

  tokenizer: file or folder; needed where the source has none.  dtype: of parameters of a Hugging
  Face folder and of activations.  mesh: e.g. {"fsdp": 4, "tensor": 2}; None is one device;
  `context` counts to `fsdp`: a prompt stays whole.  seed: of a preset's weights.  adapters: a
  Hugging Face PEFT folder (LoRA) for this model; a run folder's own come with it, merged where
  others are given.  ema: of a run folder the moving average of what trained, not the last values.

  Raises:
    FileNotFoundError: neither a folder of these kinds nor a preset.
    ValueError: weights or adapters that do not fit, all of them listed; no average to be loaded.
  """
  path = Path(source)
  whole = sharding.one_device_mesh() if mesh is None else sharding.make_mesh(mesh)
  where = sharding.without_context(whole)
  policy = vision.HULUMED
  if checkpoint.is_run(path):
    config, policy = checkpoint.read_description(path)
    read = checkpoint.load_params if adapters is None else checkpoint.load_plain
    params = read(path, hulu.specs(config), where, ema=ema)
  elif ema:
    raise ValueError(f"ema=True: {source} is no run folder, so it holds no average")
  elif (path / "config.json").is_file():
    config = weights_load.read_config(path)
    policy = hf_read.policy(path, policy)
    params = weights_load.load_params(path, config, where, jnp.dtype(dtype))
  elif str(source) in presets.PRESETS:
    config = presets.get(str(source))
    with jax.set_mesh(where):
      params = jax.jit(lambda key: P.initialize(key, hulu.specs(config)))(jax.random.key(seed))
  else:
    raise FileNotFoundError(
      f"{source}: no run folder (model.json), no Hugging Face folder (config.json), and no preset; "
      f"presets are {', '.join(presets.PRESETS)}"
    )
  if adapters is not None:
    params, _ = adapters_lib.load(adapters, params, config, where)
  if config.vision.patch != policy.patch:
    raise ValueError(f"{source}: patches of {config.vision.patch}, media come in {policy.patch}")
  words = _find_tokenizer(path, None if tokenizer is None else Path(tokenizer), config)
  return Model(params, config, policy, words, _compute(dtype), where)


def _compute(dtype: str) -> Compute:
  """Nothing is differentiated, so nothing is cut into passes or made again."""
  return Compute(
    dtype=jnp.dtype(dtype),
    vision_pass=None,
    loss_chunk=None,
    vision_remat="none",
    decoder_remat="none",
    kernels=choice.automatic(jax.default_backend()),
  )


def save(
  model: Model,
  folder: str | Path,
  *,
  layout: str,
  dtype: str | None = None,
  shard_size: int = 5 * 10**9,
  licence: str = "",
  force: bool = False,
) -> None:
  """Writes a model to a new folder, whole or not at all, with its tokenizer and a model card.

  Adapters are merged into the weights that they adapt.

  layout: "hulu_jax" (a run folder), "hulu-med", "hulu-med-local" or "transformers"; see
  docs/convert.md.  dtype: None keeps that of each parameter.  shard_size: most bytes of a file.
  licence: of the weights, for the card.  force: replaces a checkpoint that is there.

  Raises:
    FileExistsError, FileNotFoundError: `folder` is there already, or its parent is not.
    OSError: a full disk.
    ValueError: an unknown layout, or an architecture that it cannot say.
  """
  if layout not in convert.LAYOUTS:
    raise ValueError(f"no layout {layout!r}; there are: {', '.join(convert.LAYOUTS)}")
  with jax.set_mesh(model.mesh):
    params = jax.jit(linear.plain)(model.params)  # adapters merged, all else as it is
  unread = Unread(
    config=model.config,
    policy=model.policy,
    source=sources.Params(params, model.config),
    layout="hulu_jax",
    notes=[],
  )
  order = convert.Order(
    layout=layout,
    dtype=None if dtype is None else np.dtype(jnp.dtype(dtype)),
    shard_size=shard_size,
    words=model.tokenizer,
    card=card_lib.Card(licence=licence, base="", data=""),
    made=f"Saved by `hulu_jax.save` in the layout `{layout}`.",
    source=None,
    force=force,
  )
  convert.run(unread, Path(folder), order, lambda done, total: None)


def _find_tokenizer(source: Path, given: Path | None, config: HuluConfig) -> Tokenizer | None:
  """The given one, else the source's own, else (a preset too small for Qwen's) a fresh one."""
  if given is not None:
    found = tokenizer_lib.load(given)
  elif tokenizer_lib.exists(source):
    found = tokenizer_lib.load(source)
  elif not source.is_dir() and config.decoder.vocab < tokenizer_lib.QWEN_VOCAB:
    texts = synthetic_disc.Source(kind="text", split="train", seed=0, size=500, pool=0, fade=0.0)
    messages = (m for i in range(len(texts)) for m in texts[i]["messages"])
    found = tokenizer_lib.train((t for m in messages for t in chat.texts(m)), config.decoder.vocab)
  else:
    return None
  if found.size > config.decoder.vocab:
    raise ValueError(f"the tokenizer has {found.size} ids, the model {config.decoder.vocab}")
  return found

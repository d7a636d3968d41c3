"""Text to ids and back: a Qwen `tokenizer.json` or a SentencePiece model behind one interface.

Special tokens never come out of `encode`: a user's text that contains "<image>" is text.
"""

from collections.abc import Iterable, Mapping
import gzip
import io
from pathlib import Path
from typing import Protocol

import sentencepiece
import tokenizers

# The spelling of each special token in Qwen's and Hulu-Med's vocabularies.
SPECIAL = {
  "im_start": "<|im_start|>",
  "im_end": "<|im_end|>",
  "image": "<image>",
  "stream_start": "<|stream_start|>",
  "stream_end": "<|stream_end|>",
}
# Entries of Qwen's own vocabulary, before special tokens.
QWEN_VOCAB = 151643
_JSON = "tokenizer.json"
_MODEL = "tokenizer.model"
_NAMES = (_JSON, f"{_JSON}.gz", _MODEL)


class Tokenizer(Protocol):
  """special: ids by the names of SPECIAL; eos: ids that end an answer; size: ids in use."""

  special: Mapping[str, int]
  eos: tuple[int, ...]
  size: int

  def encode(self, text: str) -> list[int]:
    """Ids of plain text."""
    ...

  def decode(self, ids: Iterable[int]) -> str:
    """Text of ids; special tokens, and ids that a padded vocabulary never names, are left out."""
    ...

  def save(self, folder: Path) -> None:
    """Writes what `load` needs into `folder`."""
    ...


class JsonTokenizer:
  """A Hugging Face `tokenizer.json`; missing special tokens take the next free ids, in order.

  That order is how Hulu-Med got <image> = 151665 (Qwen2.5) and 151669 (Qwen3).
  """

  def __init__(self, text: str):
    self._tokenizer = tokenizers.Tokenizer.from_str(text)
    for name in ("image", "stream_start", "stream_end"):
      self._tokenizer.add_special_tokens([tokenizers.AddedToken(SPECIAL[name], special=True)])
    self._tokenizer.encode_special_tokens = True
    found = {name: self._tokenizer.token_to_id(token) for name, token in SPECIAL.items()}
    ids = {name: i for name, i in found.items() if i is not None}
    missing = [SPECIAL[name] for name in SPECIAL if name not in ids]
    if missing:
      raise ValueError(f"tokenizer.json has no {', '.join(missing)}; expected a Qwen tokenizer")
    self.special: Mapping[str, int] = ids
    end = self._tokenizer.token_to_id("<|endoftext|>")
    self.eos: tuple[int, ...] = (ids["im_end"],) if end is None else (ids["im_end"], end)
    self.size = self._tokenizer.get_vocab_size(with_added_tokens=True)

  def encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  def decode(self, ids: Iterable[int]) -> str:
    return self._tokenizer.decode(list(ids), skip_special_tokens=True)

  def save(self, folder: Path) -> None:
    (folder / _JSON).write_text(self._tokenizer.to_str())


class PieceTokenizer:
  """A SentencePiece model whose control symbols are the special tokens, applied line by line.

  A word is the same piece at the start of a line, of a text and in the middle of a sentence, so a
  small model can copy it.
  """

  def __init__(self, model: bytes):
    self._model = model
    self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    self._newline = self._pieces.piece_to_id("\n")
    ids = {name: self._pieces.piece_to_id(token) for name, token in SPECIAL.items()}
    missing = [SPECIAL[name] for name, i in ids.items() if i == self._pieces.unk_id()]
    if missing:
      raise ValueError(f"SentencePiece model has no control symbols {', '.join(missing)}")
    self.special: Mapping[str, int] = ids
    self.eos: tuple[int, ...] = (ids["im_end"],)
    self.size = self._pieces.vocab_size()

  def encode(self, text: str) -> list[int]:
    first, *others = (self._pieces.encode(line) for line in text.split("\n"))
    return [*first, *(i for line in others for i in (self._newline, *line))]

  def decode(self, ids: Iterable[int]) -> str:
    lines: list[list[int]] = [[]]
    for i in map(int, ids):
      if i == self._newline:
        lines.append([])
      elif i < self.size and i not in self.special.values():
        lines[-1].append(i)
    return "\n".join(map(self._pieces.decode, lines))

  def save(self, folder: Path) -> None:
    (folder / _MODEL).write_bytes(self._model)


def train(texts: Iterable[str], size: int) -> PieceTokenizer:
  """A byte-fallback BPE model of at most `size` ids over `texts`, for presets too small for Qwen's.

  Text survives a round trip unchanged: nothing is normalised.
  """
  out = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=out,
    vocab_size=size,
    hard_vocab_limit=False,
    model_type="bpe",
    byte_fallback=True,
    control_symbols=list(SPECIAL.values()),
    user_defined_symbols=["\n"],
    character_coverage=1.0,
    normalization_rule_name="identity",
    add_dummy_prefix=True,
    remove_extra_whitespaces=False,
    split_by_number=False,
    split_by_unicode_script=False,
    bos_id=-1,
    eos_id=-1,
    pad_id=0,
    unk_id=1,
    num_threads=1,
    minloglevel=2,
  )
  return PieceTokenizer(out.getvalue())


def exists(folder: Path) -> bool:
  """Whether `load` would find a tokenizer in the folder."""
  return any((folder / name).is_file() for name in _NAMES)


def load(path: Path) -> Tokenizer:
  """Reads a tokenizer from a file (`.json`, `.json.gz`, `.model`) or a folder that holds one.

  Raises:
    FileNotFoundError: nothing of the kind is there.
  """
  found = [path] if path.is_file() else [path / n for n in _NAMES if (path / n).is_file()]
  if not found:
    raise FileNotFoundError(f"no tokenizer in {path}: expected one of {', '.join(_NAMES)}")
  data = found[0].read_bytes()
  match "".join(found[0].suffixes[-2:]):
    case ".json":
      return JsonTokenizer(data.decode())
    case ".json.gz":
      return JsonTokenizer(gzip.decompress(data).decode())
    case _:
      return PieceTokenizer(data)

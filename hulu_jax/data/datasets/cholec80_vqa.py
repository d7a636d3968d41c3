"""Cholec80-VQA: questions about phase and tools in frames of gallbladder operations.

Layout, of github.com/lalithjets/Surgical_VQA (README, "Directory Setup";
`dataloaders/dataloaderClassification.py`): `{Classification,Sentence}/<video>/<frame>_QA.txt`,
lines "question|answer", and `cropped_image/<video>/<frame>.png`, frames of the 25 a second of
Cholec80, which is asked for at camma.u-strasbg.fr.

Example:
  {"id": "cholec80-1-100-0", "group": "video-1", "answer_type": "closed", "messages": [
    {"role": "user", "content": [
      {"type": "image", "path": "/data/Cholec80-VQA/cropped_image/1/100.png", "modality": "ES"},
      {"type": "text", "text": "what is the phase of image?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "preparation"}]}]}
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hulu_jax.data.datasets import _card
from hulu_jax.data.datasets import _source
from hulu_jax.data.datasets._source import Placed
from hulu_jax.media.errors import BadRecord

CARD = _card.Card(
  title="Cholec80-VQA",
  licence="CC BY-NC-SA 4.0 for Cholec80, on request; none stated for the questions",
  url="https://github.com/lalithjets/Surgical_VQA",
  kinds=("image",),
  group="operation (video)",
  split="published: 32 videos to train, 8 to validate",
  caveats=(
    _card.DERIVED,
    "40 operations of one hospital; neighbouring frames are nearly the same",
    "a frame alone does not always tell the phase",
  ),
)
TASKS = {"classification": "Classification", "sentence": "Sentence"}
# The authors' `val_seq`.
_VALIDATION = (5, 11, 12, 17, 19, 26, 27, 31)

Item = tuple[str, Path, str, str]


class Source(_source.Base[Item]):
  """One question a line.

  root: the folder of the set; split: train, validation or all; task: classification (a word) or
  sentence; every: only frames whose number is a multiple, 100 in the authors' code.

  Raises:
    FileNotFoundError: it is not the folder of this set.
    ValueError: an unknown task, or a split without rows.
  """

  def __init__(self, *, root: str, split: str, task: str, every: int):
    if task not in TASKS or every < 1:
      raise ValueError(f"task={task!r}, every={every}; tasks are {', '.join(TASKS)}, every from 1")
    self._root, self._task = _source.folder(root), task
    self._images = _source.first_of(self._root, "cropped_image", "cropped_images")
    frames = list(self._frames(every))
    super().__init__(self._rows(frames), split, (path for path, _, _ in frames))

  def _record(self, item: Item) -> dict[str, Any]:
    name, image, question, answer = item
    if not answer:
      raise BadRecord("format", 'a line of another form; expected "question|answer"')
    made = _source.record(name, question, answer, [_source.medium("image", image, "ES")])
    kind = "closed" if self._task == "classification" else "open"
    return {**made, "answer_type": kind, "group": f"video-{image.parent.name}", "derived": True}

  def _frames(self, every: int) -> Iterator[tuple[Path, str, int]]:
    """The file of questions, the video and the number of each frame that is asked about."""
    videos = [p for p in (self._root / TASKS[self._task]).iterdir() if p.name.isdigit()]
    for video in sorted(videos, key=lambda path: int(path.name)):
      for path, frame in _numbered(video):
        if not frame % every:
          yield path, video.name, frame

  def _rows(self, frames: Iterable[tuple[Path, str, int]]) -> Iterator[Placed[Item]]:
    for path, video, frame in frames:
      split = "validation" if int(video) in _VALIDATION else "train"
      lines = [line for line in path.read_text().splitlines() if line.strip()]
      for number, line in enumerate(lines):
        question, _, answer = line.partition("|")
        name = f"cholec80-{video}-{frame}-{number}"
        image = self._images / video / f"{frame}.png"
        yield Placed((name, image, question.strip(), answer.strip()), video, split)


def _numbered(video: Path) -> list[tuple[Path, int]]:
  found = [(path, path.stem.partition("_")[0]) for path in video.glob("*.txt")]
  return sorted(
    ((path, int(frame)) for path, frame in found if frame.isdigit()), key=lambda pair: pair[1]
  )

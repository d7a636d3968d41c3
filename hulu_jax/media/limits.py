"""How large a file may be: checked from its header, before anything is allocated."""

import dataclasses

from hulu_jax.media.errors import BadRecord


@dataclasses.dataclass(frozen=True)
class Limits:
  """What `read` accepts; `dataclasses.replace(DEFAULT, max_frames=50)` changes one of them.

  max_pixels: of one frame.  max_voxels: of all frames of one file that are held together.
  max_frames: in the file.  max_bytes: on disk and after inflating.  max_seconds: of a clip.
  max_files: in a folder, with the folders below it.
  """

  max_pixels: int = 64_000_000
  max_voxels: int = 400_000_000
  max_frames: int = 20_000
  max_bytes: int = 1_000_000_000
  max_seconds: float = 3600.0
  max_files: int = 20_000

  def check(self, frames: int, height: int, width: int) -> None:
    """Raises BadRecord unless a file of this declared shape may be read."""
    if min(frames, height, width) < 1:
      raise BadRecord("geometry", f"a size of {frames} x {height} x {width}; expected >= 1 each")
    self.within("pixels in a frame", height * width, self.max_pixels)
    self.within("frames", frames, self.max_frames)
    self.within("voxels", frames * height * width, self.max_voxels)

  def check_bytes(self, count: int) -> None:
    """Raises BadRecord unless `count` bytes may be read or inflated."""
    self.within("bytes", count, self.max_bytes)

  def check_seconds(self, seconds: float) -> None:
    """Raises BadRecord unless a clip that says it lasts so long may be read."""
    if not 0 <= seconds <= self.max_seconds:  # not-a-number too
      raise BadRecord("limit", f"a clip of {seconds:,.0f} s; the limit is {self.max_seconds:,g} s")

  def within(self, what: str, found: int, most: int) -> None:
    """Raises BadRecord where `found` of something is more than `most`."""
    if found > most:
      raise BadRecord("limit", f"{found:,} {what}; the limit is {most:,}")


DEFAULT = Limits()

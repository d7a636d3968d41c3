"""How much memory this process has held: what runs report, and what tests bound."""

from pathlib import Path
import resource
import sys


def peak() -> int:
  """The most bytes of memory that this process has held since it began.

  On Linux `ru_maxrss` begins with what the parent held before `exec`, so a process that a large one
  started would report its parent.
  """
  if sys.platform == "linux":
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
  found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return found * (1 if sys.platform == "darwin" else 1024)

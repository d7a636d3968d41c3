"""The peak of a process is its own, whoever started it."""

import subprocess
import sys

MIB = 2**20
# A process of `own` MiB that was started by one of `parents` MiB prints its peak.
START = """
import subprocess, sys
held = bytearray(b"x") * (int(sys.argv[1]) << 20)
child = "from hulu_jax.core import memory; held = bytearray(b'x') * (int('%s') << 20)" % sys.argv[2]
command = [sys.executable, "-c", child + "; print(memory.peak())"]
print(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
"""


def peak(parents: int, own: int, root) -> int:
  command = [sys.executable, "-c", START, str(parents), str(own)]
  done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
  return int(done.stdout)


def test_a_peak_is_that_of_the_process_alone(root):
  small = peak(400, 0, root)
  assert small < 200 * MIB
  assert small + 150 * MIB < peak(0, 200, root) < small + 250 * MIB

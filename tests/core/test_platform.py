"""Emulated devices never hang: the thread pool is wide, or a mesh over them is refused."""

import os
import subprocess
import sys

import pytest

from hulu_jax.core import sharding


def test_importing_the_package_widens_the_pool_unless_the_user_chose():
  code = "import os, hulu_jax; print(os.environ['NPROC'])"
  for given, want in ((None, "32"), ("7", "7")):
    env = {k: v for k, v in os.environ.items() if k != "NPROC"}
    env |= {} if given is None else {"NPROC": given}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    assert out.stdout.decode().strip() == want


@pytest.mark.parametrize("found", ["", "8", "many"])
def test_a_mesh_that_would_hang_is_refused(monkeypatch, found):
  monkeypatch.setenv("NPROC", found)
  with pytest.raises(
    RuntimeError, match="8 emulated CPU devices with NPROC=.* would hang; set NPROC"
  ):
    sharding.make_mesh({"data": 8})


NARROWED = """
import os, sys
import hulu_jax, jax
from hulu_jax.core import platform
if sys.argv[1:]:
  jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
platform.narrow()
print(os.environ.get("NPROC"))
"""


@pytest.mark.parametrize(
  ("env", "devices", "left"),
  [
    ({}, [], "None"),
    ({"NPROC": "16"}, [], "16"),
    ({}, ["8"], "32"),
    ({"JAX_NUM_CPU_DEVICES": "8"}, [], "32"),
    ({"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}, [], "32"),
  ],
)
def test_a_command_on_one_device_narrows_it_again(env, devices, left):
  hidden = ("NPROC", "XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
  env = {k: v for k, v in os.environ.items() if k not in hidden} | env
  command = [sys.executable, "-c", NARROWED, *devices]
  out = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
  assert out.stdout.strip() == left

"""Where a reader goes and does not go: roots, links, pipes, devices, what is empty or locked."""

import os
import socket
import subprocess
import sys

import pytest

from hulu_jax.media import BadRecord
from hulu_jax.media import Limits
from hulu_jax.media import paths
from hulu_jax.media import read
from tests.media import tiny


def series(folder, slices=3):
  folder.mkdir()
  for z in range(slices):
    dataset = tiny.ct(ImagePositionPatient=[0, 0, 2 * z])
    (folder / f"{z}.dcm").write_bytes(tiny.saved(dataset))
  return folder


def refused(kind, path, **more):
  with pytest.raises(BadRecord) as error:
    read(path, **more)
  assert error.value.kind == kind, error.value
  return error.value.reason


@pytest.fixture
def outside(tmp_path):
  """A picture and a slice beside the root `tmp_path / "data"`, which is made."""
  (tmp_path / "data").mkdir()
  (tmp_path / "secret.png").write_bytes(tiny.picture("PNG"))
  (tmp_path / "secret.dcm").write_bytes(tiny.saved(tiny.ct(ImagePositionPatient=[0, 0, 6])))
  return tmp_path


def test_a_path_stays_in_its_root(outside):
  root = outside / "data"
  (root / "a.png").write_bytes(tiny.picture("PNG"))
  (root / "inner").symlink_to("a.png")
  (root / "outer").symlink_to("../secret.png")
  (root / "up").symlink_to("..")
  assert read(root / "a.png", root=root).kind == read(root / "inner", root=root).kind == "image"
  assert read(root / "outer").kind == "image"  # a caller without a root names what is opened
  for name in ("outer", "../secret.png", "up/secret.png", "../data/../secret.png"):
    assert "root=" in refused("path", root / name, root=root)
  refused("path", "/etc/hostname", root=root)
  refused("path", outside / "gone", root=root)  # nothing is said of what lies outside
  refused("missing", root / "gone", root=root)
  assert paths.inside(root, root / "inner") == root / "inner"


def test_a_root_that_is_a_link_is_where_it_leads(outside):
  (outside / "data" / "a.png").write_bytes(tiny.picture("PNG"))
  (outside / "link").symlink_to("data")
  for root in (outside / "data", outside / "link"):
    for path in (outside / "data" / "a.png", outside / "link" / "a.png"):
      assert read(path, root=root).kind == "image"


def test_a_folder_is_its_own_root(outside):
  folder = series(outside / "data" / "ct")
  (folder / "3.dcm").symlink_to(outside / "secret.dcm")
  reason = refused("path", folder)
  assert "root=" in reason and "secret" not in reason
  assert len(read(folder, root=outside).frames) == 4
  refused("path", folder, root=outside / "data")


def test_a_folder_inside_is_looked_at_too(outside):
  folder = series(outside / "data" / "ct")
  (folder / "more").mkdir()
  (folder / "more" / "x").symlink_to("/etc/passwd")
  refused("path", folder)
  (folder / "more" / "x").unlink()
  (folder / "more").rmdir()
  (folder / "more").symlink_to("/etc")
  refused("path", folder)


def test_hidden_entries_are_not_looked_at(outside):
  """A repository's own folder, as of git-annex, is full of links."""
  folder = series(outside / "data" / "ct")
  (folder / ".git").mkdir()
  (folder / ".git" / "x").symlink_to("/etc/passwd")
  (folder / ".hidden").symlink_to(outside / "secret.dcm")
  assert len(read(folder).frames) == 3


def test_links_to_files_that_were_not_fetched_are_counted(outside):
  """As in a git-annex clone: a series without some of its slices would be read as whole."""
  folder = series(outside / "data" / "ct")
  for name in ("3.dcm", "4.dcm"):
    (folder / name).symlink_to(f"../objects/{name}")
  assert "2 of 5 entries link to a file" in refused("missing", folder, root=outside / "data")


def test_links_in_a_circle_end(outside):
  root = outside / "data"
  (root / "a").symlink_to("b")
  (root / "b").symlink_to("a")
  for more in ({}, {"root": root}):
    with pytest.raises(BadRecord):
      read(root / "a", **more)
    with pytest.raises(BadRecord):
      read(root, **more)


@pytest.mark.timeout(20)
def test_pipes_sockets_and_devices_are_never_opened(outside):
  """Opening a pipe that nobody writes to would wait for ever."""
  folder = series(outside / "data" / "ct")
  pipe = folder / "pipe"
  os.mkfifo(pipe)
  assert "neither a file nor a folder" in refused("path", pipe)
  assert "a pipe, socket or device" in refused("path", folder)
  pipe.unlink()
  with socket.socket(socket.AF_UNIX) as server:
    server.bind(str(folder / "s"))
    refused("path", folder / "s")
    refused("path", folder)
  (folder / "s").unlink()
  for device in ("/dev/zero", "/dev/null", "/dev/tty"):
    refused("path", device)
  (folder / "link").symlink_to("/dev/zero")
  refused("path", folder, root="/")
  (outside / "link").symlink_to("/dev/zero")
  refused("path", outside / "link")


@pytest.mark.timeout(20)
def test_the_second_file_of_a_pair_is_looked_at_too(outside):
  """AFNI and PAR/REC headers name no file: the library opens the one beside them."""
  root = outside / "data"
  (root / "a*+orig.HEAD").write_bytes(b"type = string-attribute\n")
  (root / "a*+orig.BRIK").symlink_to(outside / "secret.png")
  refused("path", root / "a*+orig.HEAD")
  refused("path", root / "a*+orig.HEAD", root=root)
  (root / "a*+orig.BRIK").unlink()
  os.mkfifo(root / "a*+orig.BRIK")
  refused("path", root / "a*+orig.HEAD")


def test_empty_files_and_folders(tmp_path):
  (tmp_path / "a.dcm").touch()
  assert refused("empty", tmp_path / "a.dcm") == "a file of 0 bytes"
  (tmp_path / "empty").mkdir()
  refused("format", tmp_path / "empty")
  refused("missing", tmp_path / "a.dcm" / "below a file")
  refused("missing", tmp_path / ("long" * 100))


def test_a_name_with_a_null_byte_is_no_file(tmp_path):
  with pytest.raises(BadRecord):
    read(f"{tmp_path}/a\0b")


def test_a_folder_of_too_many_files(tmp_path):
  folder = series(tmp_path / "ct", slices=6)
  assert "the limit is 5" in refused("limit", folder, limits=Limits(max_files=5))


@pytest.mark.parametrize("name", ["a.png", "a.nii.gz", "plain.dcm", "a.mp4", "a.npy", "a.gif"])
def test_a_name_does_not_matter(tmp_path, name):
  """Every format under every wrong extension, and without one."""
  for suffix in ("", ".txt", ".dcm", ".nii.gz", ".png", ".mp4", ".npy", ".exe"):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(tiny.MADE[name]())
    assert read(path).frames.size


READ_AS_NOBODY = """
import os, sys
from hulu_jax.media import BadRecord, read
os.chdir(sys.argv[1])
if os.geteuid() == 0:  # who may read everything
  os.setegid(65534)
  os.seteuid(65534)
for path in sys.argv[2:]:
  try:
    read(path)
  except BadRecord as bad:
    print(bad.kind, bad.reason)
"""


def test_what_may_not_be_read_is_missing(outside):
  folder = series(outside / "data" / "ct")
  folder.chmod(0o755)
  (folder / "1.dcm").chmod(0)
  (folder / "below").mkdir(mode=0)
  command = [sys.executable, "-c", READ_AS_NOBODY, str(folder), "1.dcm", ".", "below"]
  done = subprocess.run(command, capture_output=True, text=True)
  (folder / "below").chmod(0o700)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines() == [
    "missing the file cannot be opened (PermissionError)",
    "missing it cannot be opened (PermissionError)",
    "missing it cannot be opened (PermissionError)",
  ]

"""Parts of a parameter tree by path."""

import jax
import pytest

from hulu_jax.core import tree

TREE = {"vision": {"q": 1, "norm": {"scale": 2}}, "decoder": {"q": 3, "q_bias": 4}}


def test_paths_are_readable():
  assert tree.names(TREE) == ["decoder/q", "decoder/q_bias", "vision/norm/scale", "vision/q"]


def test_partition_splits_by_whole_path_and_merge_undoes_it():
  hit, rest = tree.partition(TREE, r".*/q")
  assert hit == {
    "vision": {"q": 1, "norm": {"scale": None}},
    "decoder": {"q": 3, "q_bias": None},
  }
  assert tree.names(rest) == ["decoder/q_bias", "vision/norm/scale"]
  assert tree.merge(hit, rest) == TREE
  assert tree.merge(rest, hit) == TREE


def test_everything_may_train():
  hit, rest = tree.partition(TREE, ".*")
  assert hit == TREE
  assert jax.tree.leaves(rest) == []
  assert tree.merge(hit, rest) == TREE


def test_a_pattern_that_matches_nothing_lists_what_there_is():
  with pytest.raises(ValueError, match=r"'decodr/\.\*' matches no .*\['decoder', 'vision'\]"):
    tree.partition(TREE, "decodr/.*")

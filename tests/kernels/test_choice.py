"""A run's kernels: every name is checked before anything is compiled."""

import dataclasses

import pytest

from hulu_jax.kernels import choice

AUTO = dict.fromkeys((f.name for f in dataclasses.fields(choice.Kernels)), "auto")


@pytest.mark.parametrize("platform", choice.DEFAULTS)
def test_auto_is_something_that_runs_there(platform):
  assert choice.resolve(AUTO, platform) == choice.automatic(platform)


def test_a_name_is_kept():
  chosen = choice.resolve(AUTO | {"encoder_attention": "reference"}, "cpu")
  assert chosen.encoder_attention == "reference"
  assert chosen.decoder_attention == "xla"


def test_an_unknown_name_lists_those_there_are():
  with pytest.raises(ValueError, match="decoder_attention: no 'flash'; there are: .*xla"):
    choice.resolve(AUTO | {"decoder_attention": "flash"}, "cpu")


def test_a_missing_or_unknown_operation_is_an_error():
  with pytest.raises(ValueError, match="expected exactly"):
    choice.resolve({"encoder_attention": "auto"}, "cpu")
  with pytest.raises(ValueError, match="expected exactly"):
    choice.resolve(AUTO | {"attention": "auto"}, "cpu")


def test_an_unknown_platform_is_an_error():
  with pytest.raises(ValueError, match="'rocm'"):
    choice.resolve(AUTO, "rocm")


def test_a_name_of_another_platform_says_what_runs_here():
  with pytest.raises(ValueError, match="'splash' runs on tpu, this is cpu; here run: reference, x"):
    choice.resolve(AUTO | {"encoder_attention": "splash"}, "cpu")
  with pytest.raises(ValueError, match="'splash_interpret' runs on cpu, this is tpu"):
    choice.resolve(AUTO | {"encoder_attention": "splash_interpret"}, "tpu")


def test_a_choice_is_one_line():
  line = choice.described(choice.automatic("tpu"))
  assert "decoder_attention=splash" in line and "\n" not in line

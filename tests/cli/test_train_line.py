"""What `hulu train` prints of a report where there is no terminal."""

from hulu_jax.cli import _progress
from hulu_jax.cli import train
from hulu_jax.training.reports import Report


def test_a_line_has_losses_and_speed_and_an_evaluation_its_own(capsys):
  scalars = {"loss": 0.36249, "loss/text": 0.2, "loss_by_modality/text": 0.2, "kept": 1.0}
  asked = {"eval/loss": 0.5, "eval/exact": 0.25, "eval/exact_by_modality/text": 0.25}
  speed = {"step_seconds": 1.0, "tokens_per_second": 12345.6, "utilisation": 0.4123}
  with _progress.Line("train", 40) as line:
    train._show(line, Report("align", 20, scalars | asked, speed), "align")
    train._show(line, Report("align", 21, scalars, {}), "align")  # not yet a twentieth further
    train._show(line, Report("align", 40, scalars, {}), "")
  lines = capsys.readouterr().out.splitlines()
  assert lines == [
    "train 20/40  0 s  align  loss 0.362  loss/text 0.200  12,346 tokens/s  41.2% of peak",
    "evaluation at step 20: loss 0.500  exact 0.250",
    "train 40/40  0 s  loss 0.362  loss/text 0.200",
  ]

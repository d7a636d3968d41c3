"""The loss curve: a picture from good metrics, an error and no file from bad ones."""

import json

from PIL import Image
import pytest

from hulu_jax.eval import figures


def write(path, rows):
  path.write_text("".join(f"{row}\n" for row in rows))
  return path


def test_draws_a_picture_and_leaves_nothing_else(tmp_path):
  rows = [json.dumps({"step": k, "loss": 4 / (k + 1), "lr": 0.1}) for k in range(50)]
  png = tmp_path / "out" / "loss.png"
  figures.loss_curve(write(tmp_path / "metrics.jsonl", rows), png)
  figures.loss_curve(tmp_path / "metrics.jsonl", png)
  assert [p.name for p in png.parent.iterdir()] == ["loss.png"]
  with Image.open(png) as picture:
    assert picture.format == "PNG"
    # The curve is blue on white.
    colors = picture.convert("RGB").getcolors(1 << 20)
  assert any(blue > red + 60 for _, (red, _, blue) in colors)


@pytest.mark.parametrize(
  ("rows", "message"),
  [([], "is empty"), (['{"step": 1, "loss": 2.0}', '{"step": 2}'], "line 2"), (["[]"], "line 1")],
)
def test_bad_metrics_leave_no_picture(tmp_path, rows, message):
  with pytest.raises(ValueError, match=message):
    figures.loss_curve(write(tmp_path / "metrics.jsonl", rows), tmp_path / "loss.png")
  assert not (tmp_path / "loss.png").exists()

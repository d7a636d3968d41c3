"""The Wilson interval against values worked out elsewhere."""

import pytest

from hulu_jax.eval import stats


# R. G. Newcombe, Statistics in Medicine 17 (1998) 857-872, table I, method 3, to four decimals.
@pytest.mark.parametrize(
  ("successes", "n", "low", "high"),
  [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
  ],
)
def test_published_values(successes, n, low, high):
  assert stats.wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_hand_computed_value():
  # p = 1/2, n = 4, z = 1.959964: centre 1/2, half = z / (4 + z^2) * sqrt(4 * 1/4 + z^2 / 4)
  #   = 1.959964 / 7.841459 * sqrt(1.960365) = 0.249949 * 1.400130 = 0.349961.
  assert stats.wilson(2, 4) == pytest.approx((0.150039, 0.849961), abs=1e-6)


def test_bounds_stay_inside_and_mirror():
  assert stats.wilson(20, 20)[1] == 1.0
  low, high = stats.wilson(7, 30)
  assert stats.wilson(23, 30) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, n):
  with pytest.raises(ValueError, match="expected 0 <= successes <= n"):
    stats.wilson(successes, n)

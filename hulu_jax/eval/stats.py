"""Says how sure a measured proportion is."""

import math
import statistics


def wilson(successes: int, n: int) -> tuple[float, float]:
  """The 95 % score interval of a binomial proportion.

  E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
  J. Am. Stat. Assoc. 22 (1927) 209-212; without continuity correction.

  Raises:
    ValueError: n is not positive, or successes lie outside 0..n.
  """
  if n <= 0 or not 0 <= successes <= n:
    raise ValueError(f"found {successes} successes of {n}; expected 0 <= successes <= n and n > 0")
  z = statistics.NormalDist().inv_cdf(0.975)
  p = successes / n
  centre = (p + z * z / (2 * n)) / (1 + z * z / n)
  half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
  # At p = 0 and p = 1 one bound is 0 or 1 exactly; rounding may put it a hair outside.
  return max(0.0, centre - half), min(1.0, centre + half)

"""Confidence intervals."""

import math

Z_95 = 1.959964  # 95 % of a normal distribution lie within this many standard deviations


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share of `count` trials (Wilson 1927, score interval)."""
    if count < 1:
        raise ValueError(f"expected at least one trial, got {count}")
    spread = Z_95**2 / count
    center = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, center - half), min(1.0, center + half)

"""Robust statistics of raw samples. The headline is the median: one slow pass must not move it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PERCENTILE_SAMPLES = 20  # fewer samples say nothing about tails
NORMAL_MAD = 1.4826  # MAD x this estimates the standard deviation of normal noise


@dataclass(frozen=True, slots=True)
class Summary:
    """What samples say; percentiles are None below PERCENTILE_SAMPLES samples."""

    count: int
    median: float
    mad: float  # median absolute deviation, unscaled
    minimum: float
    maximum: float
    p5: float | None
    p95: float | None

    @property
    def spread(self) -> float:
        """Noise as a fraction of the median: scaled MAD / median; 0 for a median of 0."""
        return NORMAL_MAD * self.mad / self.median if self.median else 0.0


def median(samples: Sequence[float]) -> float:
    """Middle value; mean of the two middle ones for an even count. Raises ValueError without samples."""
    return _quantile(sorted(samples), 0.5)


def mad(samples: Sequence[float]) -> float:
    """Median absolute deviation from the median, unscaled."""
    middle = median(samples)
    return median([abs(sample - middle) for sample in samples])


def percentile(samples: Sequence[float], percent: float) -> float | None:
    """Linear interpolation between the two nearest ranks; None below PERCENTILE_SAMPLES samples."""
    if not 0 <= percent <= 100:
        raise ValueError(f"a percentile lies in 0..100, found {percent}")
    if len(samples) < PERCENTILE_SAMPLES:
        return None
    return _quantile(sorted(samples), percent / 100)


def summarise(samples: Sequence[float]) -> Summary:
    """All of the above. Raises ValueError without samples."""
    return Summary(
        count=len(samples),
        median=median(samples),
        mad=mad(samples),
        minimum=min(samples),
        maximum=max(samples),
        p5=percentile(samples, 5),
        p95=percentile(samples, 95),
    )


def _quantile(ordered: Sequence[float], fraction: float) -> float:
    if not ordered:
        raise ValueError("no samples")
    position = fraction * (len(ordered) - 1)
    below = math.floor(position)
    above = math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)

"""A measure of error as a power of set size, with an interval whose unit is the responder."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm, t

from vwm.behaviour.circular import FloatArray

_RESAMPLES = 4000


@dataclass(frozen=True)
class PowerLawFit:
    """measure = scale · n^exponent over the responders of a table."""

    measure: str
    exponent: float  # mean over responders of each one's exponent
    low: float  # 95 % interval of that mean from a bootstrap over responders; NaN with fewer than three
    high: float
    scale: float  # geometric mean over responders of the measure at one item, in the measure's unit
    n_responders: int
    set_sizes: tuple[int, ...]  # the set sizes that every responder has


def fit(table: pd.DataFrame, measure: str = "circular_variance", seed: int = 0) -> PowerLawFit:
    """Fit ``measure`` = scale · set_size^exponent to each responder by least squares on logarithms, and average.

    Args:
        table: rows responder × set size with columns ``responder``, ``set_size`` and ``measure`` (positive).
        measure: ``mean_abs_error``, ``circular_variance`` or another positive column.
        seed: of the bootstrap.

    Raises:
        ValueError: fewer than two set sizes that every responder has, or a value that has no logarithm.
    """
    values = table.pivot(index="set_size", columns="responder", values=measure).dropna().sort_index()
    sizes, measured = values.index.to_numpy(dtype=np.float64), values.to_numpy(dtype=np.float64)
    if sizes.size < 2 or measured.shape[1] == 0:
        raise ValueError(f"a power law needs two set sizes that every responder has; {list(values.index)} were given")
    if not np.all(np.isfinite(measured) & (measured > 0)):
        raise ValueError(f"a power law needs {measure} above 0 and finite")
    exponents, log_scales = np.polyfit(np.log(sizes), np.log(measured), 1)
    low, high = _interval_of_mean(exponents, seed)
    return PowerLawFit(
        measure=measure,
        exponent=float(exponents.mean()),
        low=low,
        high=high,
        scale=float(np.exp(log_scales.mean())),
        n_responders=exponents.size,
        set_sizes=tuple(int(n) for n in values.index),
    )


def _interval_of_mean(values: FloatArray, seed: int) -> tuple[float, float]:
    """Expanded percentile interval of the mean (Hesterberg 2015, The American Statistician 69:371).

    A bootstrap over few values is too narrow: by √((N − 1)/N), and because the normal stands in for Student's t. The
    percentiles taken are therefore further out, so that for normal values the interval is that of Student's t.
    """
    n = values.size
    if n < 3:
        return np.nan, np.nan
    resampled = np.random.default_rng(seed).choice(values, (_RESAMPLES, n)).mean(axis=1)
    outside = norm.cdf(-np.sqrt(n / (n - 1)) * t.ppf(0.975, n - 1))
    low, high = np.quantile(resampled, [outside, 1 - outside])
    return float(low), float(high)

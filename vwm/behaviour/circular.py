"""Circular statistics of response errors. Every function takes errors in radians, of any shape, as one sample.

Conventions: circular SD σ = √(−2 ln R) and circular variance σ² = −2 ln R, with the resultant length R. Some texts call
1 − R the circular variance; here that is ``one_minus_resultant``. Deviations enter through h = sin²(δ/2) with δ the
distance to the mean direction, because 1 − R = 2·mean(h) keeps its digits when errors are small and
1 − |mean(exp(ie))| does not.
"""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import quad
from scipy.stats import bootstrap

FloatArray = NDArray[np.float64]


def wrap(angle: ArrayLike) -> FloatArray:
    """``angle`` in radians, moved by whole turns into [-π, π)."""
    wrapped = np.mod(np.asarray(angle, dtype=np.float64) + np.pi, 2 * np.pi) - np.pi
    # For an angle a hair below -π the remainder rounds up to a whole turn.
    return np.where(wrapped >= np.pi, -np.pi, wrapped)


def mean_abs_error(errors: ArrayLike) -> float:
    """Mean |error| in radians; π/2 under uniform responding."""
    return float(np.mean(np.abs(wrap(_sample(errors)))))


def mean_direction(errors: ArrayLike) -> float:
    """The direction of the mean of exp(ie), in radians."""
    return float(np.angle(np.mean(np.exp(1j * _sample(errors)))))


def resultant_length(errors: ArrayLike) -> float:
    """R = |mean(exp(ie))|: 1 when all errors are equal, near 0 under uniform responding."""
    return 1 - _one_minus_resultant(_half_angle_squares(errors))


def circular_variance(errors: ArrayLike) -> float:
    """−2 ln R, in rad² (the convention of the human data of Bays 2014; not 1 − R)."""
    dispersion = one_minus_resultant(errors)
    return float(-2 * np.log1p(-dispersion)) if dispersion < 1 else np.inf


def one_minus_resultant(errors: ArrayLike) -> float:
    """1 − R, without unit, between 0 and 1: the circular variance of Mardia & Jupp (2000) and of astropy."""
    return _one_minus_resultant(_half_angle_squares(errors))


def circular_sd(errors: ArrayLike) -> float:
    """√(−2 ln R), in radians: the SD of the wrapped normal with this R."""
    return float(np.sqrt(circular_variance(errors)))


def circular_kurtosis(errors: ArrayLike) -> float:
    """(ρ₂ cos(μ₂ − 2μ₁) − R⁴)/(1 − R)², without unit: 0 for a wrapped normal, NaN when all errors are equal.

    Source: N. I. Fisher, Statistical Analysis of Circular Data (1993), section 2.3.
    With h as above ρ₂ cos(μ₂ − 2μ₁) = mean(cos 2δ) = 1 − 8·mean(h) + 8·mean(h²), from which the terms that cancel
    are taken out by hand.
    """
    h = _half_angle_squares(errors)
    v = _one_minus_resultant(h)
    return float(8 * np.mean(h**2) / v**2 - 6 + 4 * v - v**2) if v > 0 else np.nan


def precision(errors: ArrayLike) -> float:
    """1/circular SD minus its expectation under uniform responding, in 1/rad: 0 at chance.

    Source: Bays, Catalao & Husain (2009), Journal of Vision 9(10):7.
    """
    errors = _sample(errors)
    sd = circular_sd(errors)
    return (1 / sd if sd > 0 else np.inf) - uniform_precision(errors.size)


@lru_cache(maxsize=4096)
def uniform_precision(count: int) -> float:
    """Expectation of 1/circular SD over samples of ``count`` uniform errors, in 1/rad.

    By Rayleigh's law count·R² follows Exp(1), for few errors approximately, so SD² = −ln R² has the density
    N·exp(−x − N·exp(−x)). The integral of its product with 1/√x is taken over s = √x, where it has no pole.
    """

    def integrand(s: float) -> float:
        return float(2 * count * np.exp(-s * s - count * np.exp(-s * s)))

    peak = np.sqrt(np.log(count + 1))
    value, _ = quad(integrand, 0, peak + 7, points=[peak], epsabs=1e-12, epsrel=1e-12, limit=200)
    return float(value)


def bootstrap_interval(
    statistic: Callable[[FloatArray], float], errors: ArrayLike, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """BCa bootstrap interval of a statistic of this module (Efron 1987).

    Args:
        statistic: such as ``circular_kurtosis``.
        errors: [trials], or [trials, items] where a trial has an error for each of several items, as a network's
            has: what is drawn again are trials.
        seed: of the 2,000 resamples.
        level: of confidence.

    Raises:
        ValueError: fewer than two trials.
    """
    sample = np.asarray(errors, dtype=np.float64)
    if len(sample) < 2:
        raise ValueError("a bootstrap needs two trials or more")
    if np.ptp(sample) == 0:  # Every resample is the same, and BCa's correction would be 0/0.
        value = statistic(sample)
        return value, value
    found = bootstrap(
        (np.arange(len(sample)),),
        lambda trials: statistic(sample[trials]),
        n_resamples=2000,
        vectorized=False,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def _sample(errors: ArrayLike) -> FloatArray:
    sample = np.asarray(errors, dtype=np.float64).ravel()
    if sample.size == 0:
        raise ValueError("a statistic of no errors was asked for")
    return sample


def _half_angle_squares(errors: ArrayLike) -> FloatArray:
    """h = sin²(δ/2) for every distance δ to the mean direction."""
    sample = _sample(errors)
    h: FloatArray = np.sin(wrap(sample - mean_direction(sample)) / 2) ** 2
    return h


def _one_minus_resultant(h: FloatArray) -> float:
    return min(1.0, float(2 * np.mean(h)))

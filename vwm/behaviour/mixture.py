"""The two-component mixture of Zhang & Luck (2008): errors at the target, von Mises, or uniform guesses.

p(e) = w·exp(κ cos e)/(2π I0(κ)) + (1 − w)/2π, fitted by maximum likelihood. With d = 1 − cos e = 2 sin²(e/2) the
density times 2π is 1 + w·(g − 1), where g = exp(−κd)/(e^{−κ} I0(κ)) takes the scaled Bessel function and therefore
neither overflows nor loses digits at any κ.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import maximum_filter
from scipy.optimize import minimize
from scipy.special import i0e, i1e

from vwm.behaviour.circular import FloatArray

KAPPA_MIN, KAPPA_MAX = 1e-3, 1e5  # where κ is looked for: von Mises SDs from 3.9 rad (flat) down to 0.18°
W_MAX = 1 - 1e-9  # at w = 1 one error far from the target would have the likelihood 0 in floating point

_START_GROUPS = 256
_START_W = np.linspace(0.02, 0.98, 17)
_START_KAPPA = np.geomspace(1e-2, 5e4, 41)
_STARTS = 3
_UNIFORM_NOT_REJECTED = 5.99  # twice the gain in log-likelihood: 95 % point of χ² with the two parameters


@dataclass(frozen=True)
class MixtureFit:
    """The most likely two-component mixture of a sample of errors."""

    w: float  # share of responses at the target
    kappa: float  # concentration of the von Mises
    log_likelihood: float  # natural logarithm, of errors in radians
    n: int  # errors fitted
    flag: str  # why w and κ cannot be told from these errors; empty where they can

    @property
    def sd(self) -> float:
        """SD of the von Mises in radians."""
        return float(sd_of_kappa(self.kappa))

    def capacity(self, set_size: int) -> float:
        """K = w·n: items in memory at this set size."""
        return self.w * set_size


def sd_of_kappa(kappa: ArrayLike) -> FloatArray:
    """Circular SD √(−2 ln(I1(κ)/I0(κ))) of a von Mises, in radians; infinite at κ = 0."""
    kappa = np.asarray(kappa, dtype=np.float64)
    with np.errstate(divide="ignore"):
        sd: FloatArray = np.sqrt(-2 * np.log(i1e(kappa) / i0e(kappa)))
    return sd


def fisher_information(kappa: ArrayLike) -> FloatArray:
    """J = κ·I1(κ)/I0(κ): the Fisher information of one von Mises response about the angle, in 1/rad²."""
    kappa = np.asarray(kappa, dtype=np.float64)
    information: FloatArray = kappa * i1e(kappa) / i0e(kappa)
    return information


def log_likelihood(errors: ArrayLike, w: float, kappa: float) -> float:
    """Log-likelihood of ``errors`` (radians) under the mixture, for any κ ≥ 0."""
    d = _one_minus_cos(errors)
    with np.errstate(divide="ignore"):  # w = 1 and an impossible error: −∞ is the answer
        relative = np.log1p(w * (_relative_density(d, kappa) - 1))
    return float(np.sum(relative) - d.size * np.log(2 * np.pi))


def fit_mixture(errors: ArrayLike) -> MixtureFit:
    """Fit w and κ to a sample of errors in radians.

    The likelihood can have several maxima. All of a grid over (w, κ) is looked at, with the sorted errors merged
    into groups of neighbours; its highest maxima start an optimiser on the groups, and the best of those ends on
    all errors.
    """
    d = np.sort(_one_minus_cos(errors))
    if d.size == 0:
        raise ValueError("a mixture was to be fitted to no errors")
    merged, weight = _merge(d)
    candidates = [_climb(merged, weight, start) for start in _starts(merged, weight)]
    _, start = max(candidates, key=lambda candidate: candidate[0])
    gain, (w, log_kappa) = _climb(d, np.ones(d.size), start)
    kappa = float(np.exp(log_kappa))
    return MixtureFit(
        w=1.0 if w == W_MAX else w,
        kappa=kappa,
        log_likelihood=float(d.size * (gain - np.log(2 * np.pi))),
        n=d.size,
        flag=_flag(kappa, gain * d.size),
    )


def _flag(kappa: float, gain: float) -> str:
    """Why a fit whose log-likelihood is ``gain`` above that of uniform responding is not to be relied on."""
    if 2 * gain < _UNIFORM_NOT_REJECTED:
        return "not told apart from guessing"
    if kappa < KAPPA_MIN * 1.01:
        return "kappa at its lower bound"
    if kappa > KAPPA_MAX / 1.01:
        return "kappa at its upper bound"
    return ""


def _one_minus_cos(errors: ArrayLike) -> FloatArray:
    d: FloatArray = 2 * np.sin(np.asarray(errors, dtype=np.float64).ravel() / 2) ** 2
    return d


def _relative_density(d: FloatArray, kappa: float) -> FloatArray:
    """Density of the von Mises over that of the uniform."""
    g: FloatArray = np.exp(-kappa * d) / i0e(kappa)
    return g


def _merge(d: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Means and sizes of groups of neighbours in sorted ``d``, the groups as equal in size as they can be."""
    groups = min(_START_GROUPS, d.size)
    edges = np.arange(groups) * d.size // groups
    sizes = np.diff(np.append(edges, d.size)).astype(np.float64)
    return np.add.reduceat(d, edges) / sizes, sizes


def _starts(d: FloatArray, weight: FloatArray) -> list[tuple[float, float]]:
    """(w, log κ) of the highest local maxima of the likelihood on a grid, the highest first."""
    excess = np.stack([_relative_density(d, kappa) - 1 for kappa in _START_KAPPA])
    heights = np.stack([np.log1p(w * excess) @ weight for w in _START_W])
    peaks = np.argwhere(heights == maximum_filter(heights, size=3))
    ordered = sorted(peaks, key=lambda peak: -heights[tuple(peak)])
    return [(float(_START_W[i]), float(np.log(_START_KAPPA[j]))) for i, j in ordered[:_STARTS]]


def _climb(d: FloatArray, weight: FloatArray, start: tuple[float, float]) -> tuple[float, tuple[float, float]]:
    """The maximum above ``start``: the mean log-likelihood over that of uniform responding, and its (w, log κ)."""
    weight = weight / weight.sum()

    def downhill(point: FloatArray) -> tuple[float, FloatArray]:
        w, kappa = point[0], np.exp(point[1])
        g = _relative_density(d, kappa)
        share = weight / (1 + w * (g - 1))
        by_w = share @ (g - 1)
        by_log_kappa = kappa * w * ((share * g) @ (1 - i1e(kappa) / i0e(kappa) - d))
        return -float(weight @ np.log1p(w * (g - 1))), -np.array([by_w, by_log_kappa])

    result = minimize(
        downhill,
        np.array(start),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0, W_MAX), (np.log(KAPPA_MIN), np.log(KAPPA_MAX))],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )
    return -float(result.fun), (float(result.x[0]), float(result.x[1]))

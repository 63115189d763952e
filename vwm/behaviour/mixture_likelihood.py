"""The likelihood of mixtures of von Mises responses and uniform guesses, its derivatives, and the climb to its maximum.

With d = 1 − cos e = 2 sin²(e/2) a von Mises over the uniform density is g = exp(−κd)/(e^{−κ}I0(κ)), which takes the
scaled Bessel function and therefore neither overflows nor loses digits at any κ. A response's density times 2π is

    r = v·f₁ + (1 − v)·(s·f₂ + (1 − s)·f₃),

where the f are g at the target, the mean of g over the non-targets, and 1 for a guess, in an order of choice. In
(v, s, ln κ) every constraint is a bound on one coordinate, and the share that comes first is a coordinate itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import i0e, i1e
from scipy.stats import chi2

from vwm.behaviour.circular import FloatArray

KAPPA_MIN, KAPPA_MAX = 1e-3, 1e5  # where κ is looked for: von Mises SDs from 3.9 rad (flat) down to 0.18°
LOWER = np.array([0.0, 0.0, np.log(KAPPA_MIN)])
UPPER = np.array([1.0, 1.0, np.log(KAPPA_MAX)])

# A share of guesses that is always there, because one error far from all items would otherwise have the likelihood 0
# in floating point. It moves no fitted share by more than itself.
_LAPSE = 1e-9
_LONGEST_STEP = np.array([0.5, 0.5, 1.0])
_GAIN_TO_STOP = 1e-6  # in log-likelihood: the last step moves parameters by a thousandth of a standard error

Point = FloatArray  # [3] (v, s, ln κ)
Component = tuple[FloatArray, FloatArray, FloatArray]  # [N] the relative density and its two derivatives by ln κ


def one_minus_cos(errors: ArrayLike) -> FloatArray:
    """1 − cos e for errors of any shape in radians, with all digits at small errors."""
    d: FloatArray = 2 * np.sin(np.asarray(errors, dtype=np.float64) / 2) ** 2
    return d


def relative_density(d: FloatArray, kappa: float) -> FloatArray:
    """Density of the von Mises over that of the uniform, at d = 1 − cos e."""
    g: FloatArray = np.exp(-kappa * d) / i0e(kappa)
    return g


@dataclass(frozen=True)
class Likelihood:
    """The log-likelihood of a sample over that of uniform responding, as a function of (v, s, ln κ)."""

    target: FloatArray  # [N] 1 − cos of response − target
    others: FloatArray | None  # [N, M] 1 − cos of response − non-target; None for the mixture without swaps
    weight: FloatArray  # [N] how many responses a row stands for
    order: tuple[str, str, str] = ("p_u", "p_t", "p_n")  # the shares v, (1 − v)·s and (1 − v)·(1 − s)

    def rows(self, chosen: NDArray[np.intp]) -> "Likelihood":
        """The likelihood of some rows only."""
        others = None if self.others is None else self.others[chosen]
        return replace(self, target=self.target[chosen], others=others, weight=self.weight[chosen])

    def derivatives(self, point: Point) -> tuple[float, FloatArray, FloatArray]:
        """The log-likelihood gained over uniform responding, its gradient [3] and Hessian [3, 3]."""
        v, s, log_kappa = point
        kappa = float(np.exp(log_kappa))
        nothing = np.zeros_like(self.target)
        guess = (nothing + 1, nothing, nothing)
        parts = {
            "p_t": _with_derivatives(self.target[:, None], kappa),
            "p_n": guess if self.others is None else _with_derivatives(self.others, kappa),
            "p_u": guess,
        }
        first, second, third = (parts[name] for name in self.order)
        rest = [s * one + (1 - s) * other for one, other in zip(second, third, strict=True)]
        density, by_log_kappa, curvature = (v * one + (1 - v) * other for one, other in zip(first, rest, strict=True))
        density = (1 - _LAPSE) * density + _LAPSE
        inverse = 1 / density
        share = self.weight * inverse
        between = second[0] - third[0]
        slopes = np.stack([first[0] - rest[0], (1 - v) * between, by_log_kappa]) * inverse
        hessian = -(slopes * self.weight) @ slopes.T
        hessian[0, 1] -= share @ between
        hessian[0, 2] += share @ (first[1] - rest[1])
        hessian[1, 2] += (1 - v) * (share @ (second[1] - third[1]))
        hessian[2, 2] += share @ curvature
        hessian[(1, 2, 2), (0, 0, 1)] = hessian[(0, 0, 1), (1, 2, 2)]
        return float(self.weight @ np.log(density)), slopes @ self.weight, hessian


def _with_derivatives(d: FloatArray, kappa: float) -> Component:
    """Mean over the columns of d of the relative density, and its first two derivatives by ln κ; each [N]."""
    ratio = i1e(kappa) / i0e(kappa)
    g = relative_density(d, kappa)
    away = kappa * (1 - ratio - d)
    mean = np.full(d.shape[1], 1 / d.shape[1])
    value = g @ mean
    g *= away
    first = g @ mean
    g *= away
    second = g @ mean + first - kappa**2 * (1 - ratio / kappa - ratio**2) * value
    return value, first, second


@dataclass(frozen=True)
class Maximum:
    """A maximum of a likelihood between bounds."""

    gain: float  # log-likelihood over that of uniform responding
    point: Point
    hessian: FloatArray  # [3, 3] by (v, s, ln κ), close to the maximum


def climb(likelihood: Likelihood, start: Point, lower: Point = LOWER, upper: Point = UPPER) -> Maximum:
    """The maximum above ``start`` between the bounds.

    Newton's method on the coordinates that no bound holds back. Where the likelihood does not curve downwards its
    curvature is turned round, and a step that gains nothing is shortened.
    """
    point = np.clip(start, lower, upper)
    value, gradient, hessian = likelihood.derivatives(point)
    for _ in range(100):
        free = ~(((point <= lower) & (gradient <= 0)) | ((point >= upper) & (gradient >= 0)))
        if not free.any():
            break
        step = np.zeros(3)
        curvatures, axes = np.linalg.eigh(hessian[np.ix_(free, free)])
        floor = 1e-9 * max(1.0, float(np.abs(curvatures).max()))
        step[free] = axes @ ((axes.T @ gradient[free]) / np.maximum(np.abs(curvatures), floor))
        step /= max(1.0, float(np.max(np.abs(step) / _LONGEST_STEP)))
        if gradient @ step < _GAIN_TO_STOP:
            # So near the maximum Newton's step is good to its square, and what it gains is known without a look.
            return Maximum(value + float(gradient @ step) / 2, np.clip(point + step, lower, upper), hessian)
        for shorter in 4.0 ** -np.arange(12):
            candidate = np.clip(point + shorter * step, lower, upper)
            found = likelihood.derivatives(candidate)
            if found[0] > value:
                break
        else:  # What is left to gain is below rounding.
            break
        point, (value, gradient, hessian) = candidate, found
    return Maximum(value, point, hessian)


def profile_interval(likelihood: Likelihood, best: Point, coordinate: int, level: float) -> tuple[float, float]:
    """Where the likelihood, maximised over the other coordinates, falls by what χ² with one degree allows.

    Args:
        likelihood: with the share asked for first in its order, when it is a share.
        best: the maximum, which lies within the interval.
        coordinate: of (v, s, ln κ).
        level: of confidence, such as 0.95.

    Returns:
        Both ends; an end is the bound where even that is not excluded.
    """
    highest = climb(likelihood, best)
    allowed = chi2.ppf(level, 1) / 2

    def excess(start: Point) -> Callable[[float], float]:
        def at(value: float) -> float:
            lower, upper = LOWER.copy(), UPPER.copy()
            lower[coordinate] = upper[coordinate] = value
            reached = climb(likelihood, start, lower, upper)
            start[:] = reached.point
            return highest.gain - reached.gain - allowed

        return at

    ends = []
    for bound in (LOWER[coordinate], UPPER[coordinate]):
        at = excess(highest.point.copy())
        inside = highest.point[coordinate]
        if inside == bound or at(bound) <= 0:
            ends.append(float(bound))
        else:
            at = excess(highest.point.copy())
            ends.append(float(brentq(at, inside, bound, xtol=1e-5)))
    return ends[0], ends[1]

"""Mixture models of response errors, fitted by maximum likelihood.

Two components (Zhang & Luck 2008): w·vonMises(0, κ) + (1 − w)/2π. Three components (Bays, Catalao & Husain 2009): p_t
at the target, p_n at the non-targets, equally likely each, p_u uniform; one κ. Errors are in radians throughout.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter

from vwm.behaviour.circular import FloatArray
from vwm.behaviour.mixture_likelihood import (
    LOWER,
    UPPER,
    Likelihood,
    Maximum,
    Point,
    climb,
    one_minus_cos,
    profile_interval,
    relative_density,
)
from vwm.behaviour.von_mises import fisher_information, sd_of_kappa

_ROWS_OF_THE_GRID = 300  # on which the starts are looked for
_ROWS_OF_THE_STARTS = 1000  # on which the starts are climbed from
_STARTS = 4
_START_GUESSES = np.array([0.02, 0.1, 0.3, 0.6, 0.85, 0.97])
_START_SHARES = np.array([0.3, 0.6, 0.85, 0.98])  # of the target among what is in memory
_START_KAPPA = np.geomspace(1e-1, 5e4, 24)
_FLAT_KAPPA = 1.0  # SD 73°: the share of guesses then rests on the model's exact shape
_UNCERTAIN_SHARE, _UNCERTAIN_LOG_KAPPA = 0.15, 0.5  # standard errors
_UNIFORM_NOT_REJECTED = 5.99  # twice the gain in log-likelihood: 95 % point of χ² with the two parameters


class _VonMisesWidth:
    """How wide the von Mises component of a mixture is."""

    kappa: float

    @property
    def sd(self) -> float:
        """SD of the von Mises in radians."""
        return float(sd_of_kappa(self.kappa))

    @property
    def information(self) -> float:
        """Fisher information J of the von Mises, in 1/rad²."""
        return float(fisher_information(self.kappa))


@dataclass(frozen=True)
class MixtureFit(_VonMisesWidth):
    """The most likely two-component mixture of a sample of errors."""

    w: float  # share of responses at the target
    kappa: float  # concentration of the von Mises
    log_likelihood: float  # natural logarithm, of errors in radians
    n: int  # errors fitted
    flag: str  # why w and κ cannot be told from these errors; empty where they can

    def capacity(self, set_size: int) -> float:
        """K = w·n: items in memory at this set size."""
        return self.w * set_size


@dataclass(frozen=True)
class ThreeComponentFit(_VonMisesWidth):
    """The most likely three-component mixture of a sample of responses."""

    p_t: float  # share of responses at the target
    p_n: float  # share at the non-targets, equally likely each: the swap rate
    p_u: float  # share of uniform guesses
    kappa: float  # the one concentration, at targets and non-targets
    log_likelihood: float  # natural logarithm, of errors in radians
    n: int  # responses fitted
    flag: str  # why the parameters cannot be told from these responses; empty where they can

    def capacity(self, set_size: int) -> float:
        """K = p_t·n: items in memory at this set size."""
        return self.p_t * set_size


def log_likelihood(errors: ArrayLike, w: float, kappa: float) -> float:
    """Log-likelihood of ``errors`` under the two-component mixture, for any κ ≥ 0."""
    d = one_minus_cos(errors).ravel()
    with np.errstate(divide="ignore"):  # w = 1 and an impossible error: −∞ is the answer
        relative = np.log1p(w * (relative_density(d, kappa) - 1))
    return float(np.sum(relative) - d.size * np.log(2 * np.pi))


def fit_mixture(errors: ArrayLike) -> MixtureFit:
    """Fit w and κ to a sample of errors.

    Raises:
        ValueError: there are no errors.
    """
    likelihood = _likelihood(errors, None)
    found = _maximise(likelihood)
    p_u, _, log_kappa = found.point
    n = likelihood.target.size
    return MixtureFit(
        w=float(1 - p_u),
        kappa=float(np.exp(log_kappa)),
        log_likelihood=found.gain - n * float(np.log(2 * np.pi)),
        n=n,
        flag=_flag(found, (0, 2)),
    )


def fit_three_component(
    errors: ArrayLike, nontarget_errors: ArrayLike, start: ThreeComponentFit | None = None
) -> ThreeComponentFit:
    """Fit p_t, p_n, p_u and κ to responses at one set size.

    Args:
        errors: [N] response − target.
        nontarget_errors: [N, places] response − each non-target, as many in every row; NaN where no item was shown.
        start: the fit of similar data, from which to climb instead of looking for starts.

    Raises:
        ValueError: there are no errors, no non-targets, or not as many of them in every row.
    """
    likelihood = _likelihood(errors, nontarget_errors)
    if start is None:
        found = _maximise(likelihood)
    else:
        memory = start.p_t + start.p_n
        at_target = start.p_t / memory if memory > 0 else 1.0
        found = climb(likelihood, np.array([start.p_u, at_target, np.log(start.kappa)]))
    p_u, s, log_kappa = found.point
    n = likelihood.target.size
    return ThreeComponentFit(
        p_t=float((1 - p_u) * s),
        p_n=float((1 - p_u) * (1 - s)),
        p_u=float(p_u),
        kappa=float(np.exp(log_kappa)),
        log_likelihood=found.gain - n * float(np.log(2 * np.pi)),
        n=n,
        flag=_flag(found, (0, 1, 2)),
    )


def intervals(
    errors: ArrayLike, nontarget_errors: ArrayLike | None, fit: MixtureFit | ThreeComponentFit, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Profile-likelihood intervals of the shares and of κ, for independent responses.

    Unlike a standard error, the profile knows that a share lies between 0 and 1, near which swap rates often are.

    Returns:
        ``w`` and ``kappa`` of a two-component fit; ``p_t``, ``p_n``, ``p_u`` and ``kappa`` of one with swaps.
    """
    likelihood = _likelihood(errors, nontarget_errors)
    if isinstance(fit, MixtureFit):
        shares = {"p_t": fit.w, "p_n": 0.0, "p_u": 1 - fit.w}
        asked = {"p_t": "w"}
    else:
        shares = {"p_t": fit.p_t, "p_n": fit.p_n, "p_u": fit.p_u}
        asked = {name: name for name in shares}
    found = {}
    for share, name in asked.items():
        others = [other for other in ("p_t", "p_u", "p_n") if other != share]
        seen_from = replace(likelihood, order=(share, others[0], others[1]))
        rest = shares[others[0]] + shares[others[1]]
        best = np.array([shares[share], shares[others[0]] / rest if rest > 0 else 1.0, np.log(fit.kappa)])
        found[name] = profile_interval(seen_from, best, 0, level)
    low, high = profile_interval(seen_from, best, 2, level)
    return found | {"kappa": (float(np.exp(low)), float(np.exp(high)))}


def _likelihood(errors: ArrayLike, nontarget_errors: ArrayLike | None) -> Likelihood:
    """The likelihood of a sample; without non-targets its rows stand in the order of the errors' size."""
    target = one_minus_cos(errors).ravel()
    if target.size == 0:
        raise ValueError("a mixture was to be fitted to no errors")
    weight = np.ones(target.size)
    if nontarget_errors is None:
        return Likelihood(np.sort(target), None, weight)
    given = np.asarray(nontarget_errors, dtype=np.float64)
    shown = ~np.isnan(given)
    counts = np.unique(shown.sum(axis=1))
    if given.shape[0] != target.size or counts.size != 1 or counts[0] == 0:
        raise ValueError("non-targets are needed, as many for every response")
    return Likelihood(target, one_minus_cos(given[shown].reshape(target.size, -1)), weight)


def _maximise(likelihood: Likelihood) -> Maximum:
    """The highest maximum in (p_u, s, ln κ).

    The likelihood can have several maxima. A grid over all parameters is looked at on a few rows of evenly spaced
    rank; its highest peaks are climbed from on more rows, and from the best of those on all.
    """
    lower = LOWER.copy()
    if likelihood.others is None:
        lower[1] = 1  # Without non-targets there is nothing to share the memory with.
    ranked = np.argsort(likelihood.target, kind="stable")
    some = likelihood.rows(ranked[_evenly(ranked.size, _ROWS_OF_THE_STARTS)])
    starts = _starts(likelihood.rows(ranked[_evenly(ranked.size, _ROWS_OF_THE_GRID)]))
    best = max((climb(some, start, lower) for start in starts), key=lambda found: found.gain)
    return best if some.target.size == ranked.size else climb(likelihood, best.point, lower)


def _evenly(count: int, most: int) -> NDArray[np.intp]:
    """The numbers of at most ``most`` of ``count`` rows, evenly spread."""
    chosen = min(count, most)
    return (2 * np.arange(chosen) + 1) * count // (2 * chosen)


def _starts(likelihood: Likelihood) -> list[Point]:
    """(p_u, s, ln κ) of the highest local maxima of the likelihood on a grid, the highest first."""
    shares = np.array([1.0]) if likelihood.others is None else _START_SHARES
    p_u, s = (axis[..., None] for axis in np.meshgrid(_START_GUESSES, shares, indexing="ij"))
    heights = np.empty((_START_GUESSES.size, shares.size, _START_KAPPA.size))
    for number, kappa in enumerate(_START_KAPPA):
        near = s * relative_density(likelihood.target, kappa)
        if likelihood.others is not None:
            near = near + (1 - s) * relative_density(likelihood.others, kappa).mean(axis=1)
        heights[..., number] = np.log(p_u + (1 - p_u) * near).sum(axis=-1)
    peaks = np.argwhere(heights == maximum_filter(heights, size=3))
    ordered = sorted(peaks, key=lambda peak: -heights[tuple(peak)])[:_STARTS]
    return [np.array([_START_GUESSES[i], shares[j], np.log(_START_KAPPA[k])]) for i, j, k in ordered]


def _flag(found: Maximum, free: tuple[int, ...]) -> str:
    """Why a fit is not to be relied on, from the curvature of its likelihood in the ``free`` coordinates."""
    p_u, s, log_kappa = found.point
    if 2 * found.gain < _UNIFORM_NOT_REJECTED:
        return "not told apart from guessing"
    if log_kappa < LOWER[2] + 0.01:
        return "kappa at its lower bound"
    if log_kappa > UPPER[2] - 0.01:
        return "kappa at its upper bound"
    if log_kappa < np.log(_FLAT_KAPPA):
        return "von Mises too flat to be told apart from guesses: kappa below 1"
    covariance = _covariance(found, free)
    if covariance is None:
        return "parameters not told apart from each other"
    # p_t and p_n by (p_u, s, ln κ); with two components p_t is w.
    slopes = np.array([[-s, 1 - p_u, 0], [s - 1, p_u - 1, 0]])
    if np.diag(slopes @ covariance @ slopes.T).max() > _UNCERTAIN_SHARE**2:
        return "shares uncertain: standard error above 0.15"
    if covariance[2, 2] > _UNCERTAIN_LOG_KAPPA**2:
        return "kappa uncertain: standard error of its logarithm above 0.5"
    return ""


def _covariance(found: Maximum, free: tuple[int, ...]) -> FloatArray | None:
    """Covariance [3, 3] of (v, s, ln κ) from the observed information; None where that has no inverse."""
    inside = tuple(i for i in free if LOWER[i] < found.point[i] < UPPER[i])
    for coordinates in (free, inside):  # At a bound the likelihood may rise outwards and need not curve down.
        chosen = np.ix_(coordinates, coordinates)
        information = -found.hessian[chosen]
        if coordinates and np.linalg.eigvalsh(information)[0] > 0:
            covariance = np.zeros((3, 3))
            covariance[chosen] = np.linalg.inv(information)
            return covariance
    return None

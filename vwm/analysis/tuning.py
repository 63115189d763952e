"""Measures of the responses of units: how sharply tuned, to how much at a time, and in how many dimensions."""

import numpy as np
from numpy.typing import NDArray

from vwm.behaviour.circular import FloatArray


def squared_vector_strength(rates: FloatArray, angle: FloatArray) -> FloatArray:
    """The square of the vector strength |E(r e^{iθ})|/E(r) without its chance floor, [N]; NaN for a silent unit.

    |Σ r e^{iθ}|² of finitely many trials is Σ r² on average even if the rates have nothing to do with the angles. Both
    sums below therefore run over pairs of different trials, as in pairwise phase consistency (Vinck et al. 2010,
    NeuroImage 51:112), so that an untuned unit gives 0 on average; single values may lie below.

    Args:
        rates: [trials, N], not negative.
        angle: [trials], independent of each other and uniform on the circle, radians.
    """
    own = np.sum(rates**2, axis=0)
    vector = np.exp(1j * angle) @ rates
    of_pairs = vector.real**2 + vector.imag**2 - own
    pairs = rates.sum(axis=0) ** 2 - own
    return _ratio(of_pairs, pairs)


def chance_floor(rates: FloatArray) -> FloatArray:
    """Root mean square of |Σ r e^{iθ}|/Σ r if the angles had nothing to do with the rates [trials, N], [N]."""
    total = rates.sum(axis=0)
    return _ratio(np.sqrt(np.sum(rates**2, axis=0)), total)


def inverse_participation_ratio(weights: FloatArray) -> FloatArray:
    """Σ w²/(Σ w)² over the last axis: 1 if one weight is all, 1/M if all M are equal; NaN if they sum to 0 or less.

    Estimates of weights that are 0 may lie below, which can take the ratio beyond 1; it is 1 then.
    """
    total = weights.sum(axis=-1)
    capped: FloatArray = np.minimum(_ratio(np.sum(weights**2, axis=-1), np.sign(total) * total**2), 1)
    return capped


def width_at_half_height(curves: FloatArray) -> FloatArray:
    """Width of tuning curves [..., angles] halfway between their least and greatest rate, radians; NaN if flat.

    Args:
        curves: rates at angles evenly spaced over the circle. The width is that of the peak, to both sides of the
            greatest rate, with straight lines between the angles.
    """
    count = curves.shape[-1]
    peak = curves.argmax(axis=-1)[..., None]
    half = (curves.max(axis=-1) + curves.min(axis=-1))[..., None] / 2
    width = np.zeros(curves.shape[:-1])
    for side in (1, -1):
        along = np.take_along_axis(curves, (peak + side * np.arange(count)) % count, axis=-1)
        first = np.argmax(along < half, axis=-1)[..., None]  # 0 for a flat curve
        below = np.take_along_axis(along, first, axis=-1)
        above = np.take_along_axis(along, np.maximum(first - 1, 0), axis=-1)
        with np.errstate(invalid="ignore"):
            width += (first - 1 + (above - half) / (above - below))[..., 0]
    is_flat = np.ptp(curves, axis=-1) <= 0
    widths: FloatArray = np.where(is_flat, np.nan, width * 2 * np.pi / count)
    return widths


def participation_ratio(responses: FloatArray) -> float:
    """(Σ λ)²/Σ λ² of the eigenvalues λ of the covariance of responses [trials, N]: in how many dimensions they vary."""
    covariance = np.cov(responses.T)
    squares = float(np.sum(covariance**2))
    return float(np.trace(covariance)) ** 2 / squares if squares > 0 else float("nan")


def item_and_interaction(
    first: FloatArray, item_changed: FloatArray, others_changed: FloatArray, second: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Variance that one item causes by itself, and together with the others: what each pair of trials adds to it.

    Responses r(i, o) depend on the angle i of an item and on those of all others, o, with an independent second choice
    i′, o′. With a = r(i, o) − r(i′, o) and b = r(i, o′) − r(i′, o′), the means of ab/2 and of (a − b)²/4 are the
    variance of the item's main effect and that of its interactions (Sobol' 1993; Owen 2013, ACM TOMACS 23:11): the
    second is 0 for each pair where responses add up.

    Args:
        first, item_changed, others_changed, second: r(i, o), r(i′, o), r(i, o′) and r(i′, o′), [pairs, N].
    """
    a, b = first - item_changed, others_changed - second
    return a * b / 2, (a - b) ** 2 / 4


def decoding_accuracy(train: FloatArray, test: FloatArray, labels: NDArray[np.int64]) -> FloatArray:
    """Share of test responses that a linear classifier puts on the right side, for each way to divide conditions.

    The classifier is a regularised least-squares fit of ±1 to responses, standardised unit by unit, with an offset.

    Args:
        train, test: [conditions, repeats, N].
        labels: [dichotomies, conditions], ±1.
    """
    mean = train.mean(axis=(0, 1))
    spread = train.std(axis=(0, 1))
    scale = np.where(spread > 0, spread, 1)

    def standardised(responses: FloatArray) -> FloatArray:
        rows: FloatArray = ((responses - mean) / scale).reshape(-1, responses.shape[-1])
        return rows

    x = standardised(train)
    wanted = np.repeat(labels, train.shape[1], axis=1).T.astype(np.float64)
    offset = wanted.mean(axis=0)
    ridge = 1e-3 * len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(x.T @ x + ridge, x.T @ (wanted - offset))
    right = np.sign(standardised(test) @ weights + offset) == np.repeat(labels, test.shape[1], axis=1).T
    accuracy: FloatArray = right.mean(axis=0)
    return accuracy


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """NaN where what is divided by is not above 0."""
    ratio: FloatArray = np.divide(above, below, out=np.full_like(below, np.nan), where=below > 0)
    return ratio

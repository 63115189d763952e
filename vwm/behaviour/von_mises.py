"""The von Mises distribution's SD and Fisher information, and the way back from information to concentration.

The scaled Bessel functions e^{−κ}Iₙ(κ) are used throughout, so nothing overflows or loses digits at any κ.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import i0e, i1e

from vwm.behaviour.circular import FloatArray


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


def kappa_of_information(information: ArrayLike) -> FloatArray:
    """κ with κ·I1(κ)/I0(κ) = ``information`` > 0 (1/rad²), by Newton's method on logarithms.

    J is κ²/2 for small κ and κ − 1/2 for large; √(2J + J²) + J/(2 + 2J) has both limits and starts the iteration.
    """
    information = np.asarray(information, dtype=np.float64)
    log_kappa = np.log(np.sqrt(2 * information + information**2) + information / (2 + 2 * information))
    for _ in range(6):
        kappa = np.exp(log_kappa)
        ratio = i1e(kappa) / i0e(kappa)
        slope = kappa * (1 - ratio**2) / ratio  # d ln J / d ln κ of J = κ·A(κ), because A' = 1 − A/κ − A²
        log_kappa = log_kappa - np.log(kappa * ratio / information) / slope
    found: FloatArray = np.exp(log_kappa)
    return found

"""The density of errors when the Fisher information J of an item in memory is fixed or varies by a gamma law.

Densities are relative to that of uniform responding, as functions of d = 1 − cos(error), and less 1: the *excess*. A
share f of items in memory and 1 − f guesses then have the relative density 1 + f·excess.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import digamma, gammaln, i0e, i1e

from vwm.behaviour.circular import FloatArray
from vwm.behaviour.mixture_likelihood import relative_density
from vwm.behaviour.von_mises import kappa_of_information

# Nodes of the trapezoid rule over ln J. On a smooth integrand that vanishes at both ends its error falls with the
# steepness exp(−2π²(width/step)²); the narrowest gamma law allowed, of shape 1/step², is one step wide (1e-8).
# What lies below the first node responds like guessing, because at J = 1e-5 rad⁻² no angle is half a percent likelier.
_STEP = 1 / 16
_LOG_J = np.arange(np.log(1e-5), np.log(1e6), _STEP)
_KAPPA = kappa_of_information(np.exp(_LOG_J))
SHAPE_MAX = _STEP**-2  # J varies by at least 6 %

Excess = tuple[FloatArray, FloatArray, FloatArray]  # [N] each: the excess, and its derivatives by ln(mean J) and ln τ


def fixed(d: FloatArray, information: float) -> Excess:
    """Excess of responses vonMises(κ(J)) with the same J = ``information`` (1/rad²) for all items."""
    kappa = float(kappa_of_information(information))
    ratio = i1e(kappa) / i0e(kappa)
    g = relative_density(d, kappa)
    # d ln κ / d ln J is the second factor, see kappa_of_information.
    return g - 1, g * (1 - ratio - d) * ratio / (1 - ratio**2), np.zeros_like(d)


@dataclass(frozen=True)
class GammaMixture:
    """Responses vonMises(κ(J)) with J ~ Gamma, for given errors: the von Mises at every node is computed once."""

    nodes: FloatArray  # [N, nodes] excess at every node

    @classmethod
    def at(cls, d: FloatArray) -> "GammaMixture":
        """For the errors with these d = 1 − cos(error), [N]."""
        return cls(np.exp(-np.outer(d, _KAPPA)) / i0e(_KAPPA) - 1)

    def excess(self, mean: float, tau: float) -> Excess:
        """Excess for the gamma law of J with this mean and scale τ, both in 1/rad²; shape mean/τ up to SHAPE_MAX."""
        shape = min(mean / tau, SHAPE_MAX)
        scale = mean / shape
        relative = np.exp(_LOG_J) / scale
        weight = _STEP * np.exp(shape * np.log(relative) - relative - gammaln(shape))
        by_log_shape = shape * (np.log(relative) - digamma(shape))
        by_log_scale = relative - shape
        if shape < SHAPE_MAX:  # The shape is mean/τ, the scale τ.
            slopes = (by_log_shape, by_log_scale - by_log_shape)
        else:
            slopes = (by_log_scale, np.zeros_like(weight))
        excess, by_mean, by_tau = (self.nodes @ np.stack([weight, weight * slopes[0], weight * slopes[1]], axis=1)).T
        return excess, by_mean, by_tau

"""Responses simulated from the models that tests and benchmarks fit, written with scipy and numpy alone."""

import numpy as np
from scipy.special import i0e, i1e

from vwm.behaviour.circular import FloatArray, wrap
from vwm.behaviour.responses import Responses


def swapping(
    p_t: float, p_n: float, kappa: float, set_size: int, count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Errors [count] and errors to the non-targets [count, set_size − 1] of a responder who also swaps and guesses."""
    offsets = rng.uniform(-np.pi, np.pi, (count, set_size - 1))
    chosen = offsets[np.arange(count), rng.integers(set_size - 1, size=count)]
    kind = rng.random(count)
    remembered = wrap(np.where(kind < p_t, 0, chosen) + rng.vonmises(0, kappa, count))
    errors = np.where(kind < p_t + p_n, remembered, rng.uniform(-np.pi, np.pi, count))
    return errors, wrap(errors[:, None] - offsets)


def varying(
    set_sizes: tuple[int, ...],
    count: int,
    rng: np.random.Generator,
    J1: float,
    alpha: float = 0.0,
    tau: float | None = None,
    capacity: float = np.inf,
) -> Responses:
    """``count`` responses at each set size: J = J1·min(n, K)^−α, or by a gamma law with that mean; guesses beyond K."""
    errors = []
    for n in set_sizes:
        items = min(n, capacity)
        mean = J1 * items**-alpha
        information = np.full(count, mean) if tau is None else rng.gamma(mean / tau, tau, count)
        remembered = rng.vonmises(0, kappa_by_table(information))
        errors.append(np.where(rng.random(count) < items / n, remembered, rng.uniform(-np.pi, np.pi, count)))
    return of_errors(dict(zip(set_sizes, errors, strict=True)))


def averaging(set_sizes: tuple[int, ...], count: int, rng: np.random.Generator, J1: float, slots: int) -> Responses:
    """``count`` responses at each set size by a responder whose slots are shared out over the items."""
    errors = {}
    for n in set_sizes:
        shared_out = np.bincount(np.arange(slots) % n, minlength=n)  # slots of each item
        of_target = rng.choice(shared_out, count)
        remembered = rng.vonmises(0, kappa_by_table(np.maximum(of_target, 1) * J1))
        errors[n] = np.where(of_target > 0, remembered, rng.uniform(-np.pi, np.pi, count))
    return of_errors(errors)


_KAPPA = np.geomspace(1e-8, 1e7, 200_001)
_LOG_INFORMATION = np.log(_KAPPA * i1e(_KAPPA) / i0e(_KAPPA))


def kappa_by_table(information: FloatArray) -> FloatArray:
    """κ with this Fisher information, interpolated in a fine table of J(κ); that of 10⁻¹⁵ for any less."""
    found: FloatArray = np.exp(np.interp(np.log(np.maximum(information, 1e-15)), _LOG_INFORMATION, np.log(_KAPPA)))
    return found


def of_errors(errors: dict[int, FloatArray], responder: str = "simulated") -> Responses:
    """Responses with these errors by set size, each to the target 0 on a trial of its own."""
    set_size = np.repeat(list(errors), [len(sample) for sample in errors.values()])
    response = np.concatenate(list(errors.values()))
    nothing = np.full((response.size, 0), np.nan)
    return Responses(responder, np.arange(response.size), set_size, np.zeros(response.size), response, nothing)

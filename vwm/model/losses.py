"""Decoding of the read-out, the five losses, and the errors that are reported."""

import math

import torch
from torch import Tensor

from vwm.config import ErrorDef
from vwm.model.task import Trials, wrap

# acos has an infinite slope at ±1, and the square root at 0. Cosines are kept this far inside, which holds the slope
# below about 700 and moves an error of exactly 0 to 1.4e-3 rad; lengths are kept above it.
GUARD = 1e-6
_SHORTEST = 1e-12  # of a read-out that still has a direction


def decoded_angle(readout: Tensor) -> Tensor:
    """The angle of the time-averaged (cos, sin) pair, radians, [..., M] from [steps, ..., M, 2].

    Averaging the pair and not the angle matters near ±π, where the average of angles is off by up to π.
    """
    mean = readout.mean(0)
    return torch.atan2(mean[..., 1], mean[..., 0])


def mean_over_shown(values: Tensor, trials: Trials) -> Tensor:
    """The mean of ``values`` [..., trials, M] over the items that a trial shows, [..., trials]."""
    return torch.where(trials.present, values, 0).sum(-1) / trials.set_size


def error_loss(error_def: ErrorDef, readout: Tensor, trials: Trials) -> Tensor:
    """The loss of every trial, [..., trials]: the mean over its shown items.

    With û the read-out [steps, ..., trials, M, 2], u the target, ⟨·⟩ the mean over steps and δ = acos(u·⟨û/|û|⟩):
    l2 |u − ⟨û⟩|²; sqrtl2 10·√|u − ⟨û⟩|; rad δ; exp −10·exp(−3δ/π); norml2 |u − ⟨û/|û|⟩|.
    """
    target = trials.target.to(readout.dtype)
    if error_def in ("l2", "sqrtl2"):
        difference = target - readout.mean(0)
        if error_def == "l2":
            return mean_over_shown(difference.square().sum(-1), trials)
        distance = torch.linalg.vector_norm(difference, dim=-1)
        return mean_over_shown(10 * distance.clamp_min(GUARD).sqrt(), trials)
    cos, sin = readout.unbind(-1)
    inverse_length = torch.rsqrt((cos * cos + sin * sin).clamp_min(_SHORTEST**2))
    direction = torch.stack([(cos * inverse_length).mean(0), (sin * inverse_length).mean(0)], dim=-1)
    if error_def == "norml2":
        return mean_over_shown(torch.linalg.vector_norm(target - direction, dim=-1), trials)
    delta = torch.acos((target * direction).sum(-1).clamp(GUARD - 1, 1 - GUARD))
    if error_def == "rad":
        return mean_over_shown(delta, trials)
    return mean_over_shown(-10 * torch.exp(-3 * delta / math.pi), trials)


def absolute_error(readout: Tensor, trials: Trials) -> Tensor:
    """The reported error of every trial, [..., trials]: the mean |wrapped error| over its shown items, radians."""
    return mean_over_shown(wrap(decoded_angle(readout) - trials.angle).abs(), trials)

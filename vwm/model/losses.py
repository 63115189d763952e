"""Decoding of the read-out, the five losses, and the errors that are reported."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from vwm.config import ErrorDef
from vwm.model.task import Trials, wrap

# acos has an infinite slope at ±1, and the square root at 0. Cosines are kept this far inside, which holds the slope
# below about 700 and moves an error of exactly 0 to 1.4e-3 rad; lengths are kept above it.
GUARD = 1e-6
_SHORTEST = 1e-12  # of a read-out that still has a direction


def decoded_angle(readout: Tensor) -> Tensor:
    """The angle of the time-averaged (cos, sin) pair, radians, [..., trials, M] from [steps, ..., trials, M, 2].

    Averaging the pair and not the angle matters near ±π, where the average of angles is off by up to π.
    """
    mean = _mean_over_steps(readout)
    return torch.atan2(mean[..., 1], mean[..., 0])


def _mean_over_steps(readout: Tensor) -> Tensor:
    """[..., trials, M, 2] from [steps, ..., trials, M, 2]; the trials are next to each other in memory."""
    return readout.movedim(-3, -1).mean(0).movedim(-1, -3)


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
        difference = target - _mean_over_steps(readout)
        if error_def == "l2":
            return mean_over_shown(difference.square().sum(-1), trials)
        distance = torch.linalg.vector_norm(difference, dim=-1)
        return mean_over_shown(10 * distance.clamp_min(GUARD).sqrt(), trials)
    # torch gives apply no types.
    direction: Tensor = _MeanDirection.apply(readout)  # type: ignore[no-untyped-call]
    if error_def == "norml2":
        return mean_over_shown(torch.linalg.vector_norm(target - direction, dim=-1), trials)
    delta = torch.acos((target * direction).sum(-1).clamp(GUARD - 1, 1 - GUARD))
    if error_def == "rad":
        return mean_over_shown(delta, trials)
    return mean_over_shown(-10 * torch.exp(-3 * delta / math.pi), trials)


class _MeanDirection(Function):
    """⟨û/|û|⟩ from û, [..., M, 2] from [steps, ..., M, 2], with its gradient in a few passes over the read-out.

    With d = û/|û| and ∂L/∂⟨d⟩ = g it is ∂L/∂û = (g − d (d·g)) / (steps |û|).
    """

    @staticmethod
    def forward(ctx: Any, readout: Tensor) -> Tensor:
        cos, sin = readout.unbind(-1)
        inverse_length = torch.rsqrt((cos * cos + sin * sin).clamp_min_(_SHORTEST**2))
        ctx.save_for_backward(readout, inverse_length)
        # Transposed, the trials are last in shape as they are in memory, and sums over steps go along rows.
        return torch.stack([(part * inverse_length).mT.mean(0).mT for part in (cos, sin)], dim=-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        readout, inverse_length = ctx.saved_tensors
        cos, sin = readout.unbind(-1)
        by_cos, by_sin = (gradient / len(readout)).unbind(-1)
        along = (cos * by_cos).addcmul_(sin, by_sin).mul_(inverse_length).mul_(inverse_length)
        result = torch.empty_like(readout)  # with its strides
        for part, value, by_part in zip(result.unbind(-1), (cos, sin), (by_cos, by_sin), strict=True):
            torch.mul(inverse_length, by_part.addcmul(value, along, value=-1), out=part)
        return result


def absolute_error(readout: Tensor, trials: Trials) -> Tensor:
    """The reported error of every trial, [..., trials]: the mean |wrapped error| over its shown items, radians."""
    return mean_over_shown(wrap(decoded_angle(readout) - trials.angle).abs(), trials)

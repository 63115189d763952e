"""All steps of a batch of trials, as plain autograd; several networks at once along a leading member dimension."""

from collections.abc import Callable

import torch
from torch import Tensor


def saturating(drive: Tensor, saturation: Tensor) -> Tensor:
    """φ(x) = (r_max / 2)·(1 + tanh(0.14 x − 4.2)), Hz; ``saturation`` is r_max, broadcast against the drive."""
    return saturation / 2 * (1 + torch.tanh(0.14 * drive - 4.2))


def power_law(drive: Tensor) -> Tensor:
    """φ(x) = 0.18·max(x − 10, 1e-10)^1.7, Hz: no saturation."""
    return 0.18 * (drive - 10).clamp_min(1e-10) ** 1.7


def run_recurrence(
    weights: Tensor,
    input_drive: Tensor,
    leak: Tensor,
    steps: int,
    stimulus_steps: range,
    activation: Callable[[Tensor], Tensor],
    transmit: Callable[[Tensor], Tensor],
) -> Tensor:
    """Integrate τ dr/dt = −r + φ(W r̃ + B u) from r = 0 by Euler's method.

    Args:
        weights: [members, N, N], W_ij s_j: receiving unit first, the sign of the sending unit applied.
        input_drive: [members, trials, N], B·u while the stimulus is on.
        leak: [members, 1, N], dt/τ.
        steps: Euler steps of a trial.
        stimulus_steps: indices of the steps that receive the input.
        activation: φ, from [members, trials, N] to the same shape.
        transmit: from rates r to transmitted rates r̃, [members, trials, N].

    Returns:
        Rates in Hz, [steps, members, trials, N]; index t holds the state after step t.
    """
    rates = torch.zeros_like(input_drive)
    states = []
    for step in range(steps):
        drive = torch.bmm(transmit(rates), weights.transpose(1, 2))
        if step in stimulus_steps:
            drive = drive + input_drive
        rates = rates + leak * (activation(drive) - rates)
        states.append(rates)
    return torch.stack(states)

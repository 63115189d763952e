"""Spike noise: what a unit transmits when its rate is r and its spikes are counted over one step."""

import math

import torch
from torch import Tensor

from vwm.config import ModelParams

# A rate of exactly 0 (the initial state) has no gamma law and no finite slope of its square root. Rates are floored
# here, far below the resting rate of about 1e-2 Hz, wherever a formula needs them positive.
FLOOR_HZ = 1e-6


def transmit(params: ModelParams, rates: Tensor, generator: torch.Generator) -> Tensor:
    """The transmitted rates r̃ for rates r (Hz, any shape), a fresh draw for every element.

    With k = spike_noise_factor and λ = (dt / 1000 ms) / k²:

    - gamma: Gamma(shape r·λ, rate λ), mean r, variance r·k²·1000/dt; differentiable in r by implicit
      reparameterisation (Figurnov, Mohamed & Mnih 2018).
    - gauss: max(0, r + k·√(1000 r / dt)·N(0, 1)), the same variance before it is cut at 0.
    - puregauss: max(0, r + 15 k·N(0, 1)), a variance that does not depend on the rate.
    - csnr: Gamma(shape κ, rate κ/r) with κ = 5·(dt / 1000 ms)/k², a constant ratio of mean to SD; equals gamma at 5 Hz.

    k² is the Fano factor of the spike count. With k = 0 nothing is drawn and r̃ = r.
    """
    k, dt = params.spike_noise_factor, params.dt
    if k == 0:
        return rates
    if params.spike_noise_type == "gamma":
        precision = dt / 1000 / k**2
        return torch._standard_gamma(rates.clamp_min(FLOOR_HZ) * precision, generator=generator) / precision
    if params.spike_noise_type == "csnr":
        shape = torch.full_like(rates, 5 * dt / 1000 / k**2, requires_grad=False)
        return rates * torch._standard_gamma(shape, generator=generator) / shape
    normal = torch.empty_like(rates, requires_grad=False).normal_(generator=generator)
    if params.spike_noise_type == "gauss":
        return torch.relu(rates + k * math.sqrt(1000 / dt) * rates.clamp_min(FLOOR_HZ).sqrt() * normal)
    return torch.relu(rates + 15 * k * normal)

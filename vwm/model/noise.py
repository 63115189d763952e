"""Spike noise: what a unit transmits when its rate is r and its spikes are counted over one step."""

import math

import torch
from torch import Tensor

from vwm.config import ModelParams, SpikeNoiseType
from vwm.model.gamma import gamma_quantile
from vwm.model.variates import random_words, standard_normal, uniform

# A rate of exactly 0 (the initial state) has no gamma law and no finite slope of its square root. Rates are floored
# here, far below the resting rate of about 1e-2 Hz, wherever a formula needs them positive.
FLOOR_HZ = 1e-6


def strength(params: ModelParams) -> float:
    """The number that sets the spread, with k = spike_noise_factor > 0 and dt in seconds; one of each kind:

    gamma λ = dt/k², csnr κ = 5·dt/k², gauss k/√dt, puregauss 15 k.
    """
    k, seconds = params.spike_noise_factor, params.dt / 1000
    by_kind = {
        "gamma": seconds / k**2,
        "csnr": 5 * seconds / k**2,
        "gauss": k / math.sqrt(seconds),
        "puregauss": 15 * k,
    }
    return by_kind[params.spike_noise_type]


def transmitted(kind: SpikeNoiseType, rates: Tensor, key: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
    """The transmitted rates r̃ for rates r, and their slopes ∂r̃/∂r with the random variates held.

    With λ, κ and the like from `strength`:

    - gamma: Gamma(shape r·λ, rate λ), mean r, variance r·k²·1000/dt; differentiable in r by reparameterisation
      (Figurnov, Mohamed & Mnih 2018), see `gamma_quantile`.
    - gauss: max(0, r + k·√(1000 r / dt)·N(0, 1)), the same variance before it is cut at 0.
    - puregauss: max(0, r + 15 k·N(0, 1)), a variance that does not depend on the rate.
    - csnr: Gamma(shape κ, rate κ/r), a constant ratio of mean to SD; equals gamma at 5 Hz.

    k² is the Fano factor of the spike count.

    Args:
        kind: of the noise.
        rates: Hz, [members, …].
        key: [members, 2], the random words of this step.
        strength: broadcast against the rates.
    """
    word, other = random_words(rates, key)
    normal = standard_normal(word, rates.dtype)
    if kind == "gamma":
        z, slope = gamma_quantile(normal, uniform(other, rates.dtype), rates.clamp_min(FLOOR_HZ) * strength)
        return z / strength, slope
    if kind == "csnr":
        z, _ = gamma_quantile(normal, uniform(other, rates.dtype), strength + torch.zeros_like(rates))
        return rates * z / strength, z / strength
    if kind == "gauss":
        root = rates.clamp_min(FLOOR_HZ).sqrt()
        value = rates + strength * root * normal
        slope = 1 + torch.where(rates > FLOOR_HZ, strength * normal / (2 * root), 0)
    else:
        value = rates + strength * normal
        slope = torch.ones_like(rates)
    return torch.relu(value), torch.where(value > 0, slope, 0)


def transmitted_by_torch(
    kind: SpikeNoiseType, rates: Tensor, strength: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """As `transmitted` for gamma and csnr, with torch's own gamma sampler: exact, and several times slower."""
    shape = rates.clamp_min(FLOOR_HZ) * strength if kind == "gamma" else strength + torch.zeros_like(rates)
    z = torch._standard_gamma(shape, generator=generator)
    if kind == "gamma":
        return z / strength, torch._standard_gamma_grad(shape, z)
    return rates * z / strength, z / strength

"""Fisher information about an item's angle in the spikes that the read-out hears: an upper bound of any decoder's.

Given the course of the network's own noise ξ, which does not depend on the angle, the rates r_t(θ, ξ) are fixed and the
spikes of the read-out are independent draws of every unit at every step of the read-out. Since knowing ξ as well can
only help,

    J(θ) ≤ E_ξ Σ_t Σ_i j(r_ti) (∂r_ti/∂θ)²,

with j(r) the information of one draw about its rate. The slope is that with ξ held: the same random words with the
angle moved by ± h. The other items' angles are taken as known, which can only help too.

A gamma law of a small shape tells its rate by the logarithm of what it draws, so nearly silent units tell much that no
linear read-out can use. With 1/variance in place of j the sum bounds what a read-out û = F r̃ can do, whatever F: by
Cauchy and Schwarz (∂E û/∂θ)² ≤ E_ξ Σ (∂r/∂θ)²/v · E_ξ Σ F² v, and the last factor is at most the variance of û.
"""

import copy

import numpy as np
import torch
from torch import Tensor

from vwm.behaviour.circular import FloatArray
from vwm.config import ModelParams
from vwm.model.network import Network
from vwm.model.noise import FLOOR_HZ, strength
from vwm.model.task import Trials, draw_trials, wrap
from vwm.model.trajectory import rates_of_steps, spikes

_STEP = 1e-3  # h, radians
_APART = 0.2  # radians between the two angles that are told apart by sampling


def information_of_a_draw(params: ModelParams, rates: Tensor) -> Tensor:
    """j(r), 1/Hz²: the Fisher information of one transmitted rate about the rate r > 0, of the shape of ``rates``.

    With the numbers of `noise.strength`: gamma λ²·ψ′(rλ), the trigamma function, which is λ/r only for many spikes a
    step; csnr κ/r². A normal law N(r, σ²) has 1/σ² + ½(∂σ²/∂r)²/σ⁴: gauss 1/(s²r) + 1/(2r²), puregauss 1/s². What
    these two lose where they are cut at 0 is not taken off, so there j is an upper bound.

    Args:
        params: with spike_noise_factor > 0.
        rates: Hz.
    """
    number = strength(params)
    r = rates.clamp_min(FLOOR_HZ)
    if params.spike_noise_type == "gamma":
        trigamma: Tensor = torch.special.polygamma(1, r * number)
        return number**2 * trigamma
    if params.spike_noise_type == "csnr":
        return number / r.square()
    if params.spike_noise_type == "gauss":
        return 1 / (number**2 * r) + 1 / (2 * r.square())
    return torch.full_like(r, number**-2)


def linear_information_of_a_draw(params: ModelParams, rates: Tensor) -> Tensor:
    """1/variance of one transmitted rate, 1/Hz², the normal laws before they are cut: see `noise.transmitted`."""
    number = strength(params)
    r = rates.clamp_min(FLOOR_HZ)
    variance = {
        "gamma": r / number,
        "csnr": r.square() / number,
        "gauss": number**2 * r,
        "puregauss": torch.full_like(r, number**2),
    }
    return 1 / variance[params.spike_noise_type]


@torch.no_grad()
def bounds(network: Network, n: int, trials_of_each: int, generator: torch.Generator) -> tuple[FloatArray, FloatArray]:
    """The bounds of any and of a linear read-out for each of some trials of n items, 1/rad², [trials] each.

    Their means bound the mean information.

    The item asked about is the shown one at the lowest location. Encoding noise is part of ξ.

    Args:
        network: with spike noise.
        n: set size.
        trials_of_each: how many trials.
        generator: of stimuli and spikes.
    """
    double = copy.deepcopy(network).double()
    # Words that are held move torch's own sampler, which rejects, by jumps; the law is the same.
    double.params = network.params.model_copy(update={"gamma_sampler": "quantile"})
    params = double.params
    trials = draw_trials(params, torch.full((trials_of_each,), n), generator, torch.float64)
    asked = torch.nn.functional.one_hot(trials.present.int().argmax(1), params.max_item_num)
    courses = []
    for move in (-_STEP, _STEP):
        moved = Trials(trials.set_size, trials.present, trials.angle, trials.encoded + move * asked)
        same_words = torch.Generator(generator.device)
        same_words.set_state(generator.get_state())
        courses.append(rates_of_steps(double, moved, same_words))
    of_any, of_linear = torch.zeros(2, trials_of_each, dtype=torch.float64, device=generator.device)
    for step, (lower, upper) in enumerate(zip(*courses, strict=True)):
        if step >= params.steps - params.decode_steps:
            square = ((upper - lower) / (2 * _STEP)).square()
            rates = (upper + lower) / 2
            of_any += (information_of_a_draw(params, rates) * square).sum(1)
            of_linear += (linear_information_of_a_draw(params, rates) * square).sum(1)
    return of_any.cpu().numpy(), of_linear.cpu().numpy()


@torch.no_grad()
def linear_information(
    network: Network, n: int, stimulus_sets: int, repeats: int, generator: torch.Generator
) -> FloatArray:
    """What the best linear decoder near each angle gets from spikes averaged over the read-out, 1/rad², [sets].

    J = μ′ᵀ Σ⁻¹ μ′ with all noise that there is, the network's own and the encoding's included. μ′ and Σ are those of
    ``repeats`` trials at each of two angles of one item, the others' angles being the same; what sampling adds to the
    estimate is taken off (Kanitscheider et al. 2015, PLoS Computational Biology 11:e1004218), so single values may be
    negative where J is small.

    Args:
        network: with spike noise.
        n: set size; the item that moves is the shown one at the lowest location.
        stimulus_sets: how many sets are drawn.
        repeats: T, more than (N + 3)/2.
        generator: of stimuli and spikes.
    """
    params = network.params
    sets = draw_trials(params, torch.full((stimulus_sets,), n), generator, network.tau.dtype)
    heard = torch.Generator(generator.device).manual_seed(n)
    found = []
    for number in range(stimulus_sets):
        one = Trials(
            *(values[number : number + 1].expand(2 * repeats, *values.shape[1:]) for values in vars(sets).values())
        )
        moved = torch.nn.functional.one_hot(one.present.int().argmax(1), params.max_item_num) * (_APART / 2)
        moved[:repeats] *= -1
        noise = torch.randn(one.angle.shape, generator=generator, device=generator.device, dtype=one.angle.dtype)
        encoded = wrap(one.angle + moved + params.ILC_noise * noise)
        average = torch.zeros(2 * repeats, len(network.tau), dtype=torch.float64, device=generator.device)
        for step, rates in enumerate(
            rates_of_steps(network, Trials(one.set_size, one.present, one.angle, encoded), generator)
        ):
            if step >= params.steps - params.decode_steps:
                average += spikes(network, rates, heard) / params.decode_steps
        found.append(_unbiased_information(average[:repeats].cpu().numpy(), average[repeats:].cpu().numpy()))
    return np.array(found)


def _unbiased_information(first: FloatArray, second: FloatArray) -> float:
    """Linear information from T samples [T, N] at each of two angles `_APART` from each other."""
    spread = np.sqrt((first.var(axis=0, ddof=1) + second.var(axis=0, ddof=1)) / 2)
    speaks = spread > 0  # the others are silent in all trials, and would make the covariance singular
    first, second = first[:, speaks] / spread[speaks], second[:, speaks] / spread[speaks]
    count, units = first.shape
    covariance = np.atleast_2d(np.cov(first, rowvar=False) + np.cov(second, rowvar=False)) / 2
    slope = (second.mean(axis=0) - first.mean(axis=0)) / _APART
    raw = float(slope @ np.linalg.solve(covariance, slope))
    information: float = raw * (2 * count - units - 3) / (2 * count - 2) - 2 * units / (count * _APART**2)
    return information

"""The oracle of the recurrence: the same trials step by step, with every derivative left to autograd."""

import torch
from torch import Tensor

from vwm.model.network import Network
from vwm.model.noise import FLOOR_HZ, strength, transmitted
from vwm.model.task import Trials, input_code
from vwm.model.variates import draw_keys


def simulate_plainly(network: Network, trials: Trials, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rates [steps, trials, N], mean rate [trials] and read-out [decode steps, trials, M, 2] of one network.

    The keys are those of the recurrence, so that both hear the same spikes.
    """
    params = network.params
    weights = network.recurrent * network.sign
    drive = input_code(params, trials) @ network.input.T
    rates = torch.zeros_like(drive)

    keys = draw_keys(params.steps + 1 + params.decode_steps, generator)

    def noisy(rates: Tensor, key: int) -> Tensor:
        k = params.spike_noise_factor
        if k == 0:
            return rates
        if params.gamma_sampler == "torch" and params.spike_noise_type == "gamma":
            precision = params.dt / 1000 / k**2
            return torch._standard_gamma(rates.clamp_min(FLOOR_HZ) * precision, generator=generator) / precision
        spread = torch.tensor(strength(params), dtype=rates.dtype)
        return transmitted(params.spike_noise_type, rates[None], keys[key][None], spread)[0][0]

    def phi(x: Tensor) -> Tensor:
        if params.saturation_firing_rate > 0:
            return params.saturation_firing_rate / 2 * (1 + torch.tanh(0.14 * x - 4.2))
        return 0.18 * (x - 10).clamp_min(1e-10) ** 1.7

    states, readouts = [], []
    for step in range(params.steps):
        x = noisy(rates, step) @ weights.T
        if step in params.stimulus_steps:
            x = x + drive
        rates = rates + params.dt / network.tau * (phi(x) - rates)
        states.append(rates)
        late = step - (params.steps - params.decode_steps)
        if late >= 0:
            readouts.append(noisy(rates, params.steps + 1 + late) @ network.readout.T)
    stacked = torch.stack(states)
    readout = torch.stack(readouts)
    return stacked, stacked.mean(dim=(0, 2)), readout.view(*readout.shape[:-1], params.max_item_num, 2)

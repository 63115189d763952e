"""The rates of a network step by step, for analyses: noise on or off, and no more in memory than the caller keeps."""

from collections.abc import Iterator

import torch
from torch import Tensor

from vwm.model.network import Network
from vwm.model.noise import strength, transmitted
from vwm.model.recurrence import activation
from vwm.model.task import Trials, input_code
from vwm.model.variates import draw_keys


@torch.no_grad()
def rates_of_steps(network: Network, trials: Trials, generator: torch.Generator | None) -> Iterator[Tensor]:
    """The rates after each step of a trial in turn, Hz, [trials, N]; the first is that after step 0.

    Gamma variates are quantiles of random words whatever ``gamma_sampler`` says: the law is the same, and the noise can
    be held while an angle moves, as the Fisher information needs it. With quantile sampling and a generator in the same
    state, the rates are those of `simulate`.

    Args:
        network: in float32 or float64; the trials' code is cast to its type.
        trials: a batch; what bounds the memory is its size, since one step is held at a time.
        generator: the source of the spike noise, or None for a run without noise.
    """
    params = network.params
    drive = input_code(params, trials).to(network.tau.dtype) @ network.input.T
    rates = torch.zeros_like(drive)
    is_noisy = generator is not None and params.spike_noise_factor > 0
    keys = draw_keys(params.steps + 1 + params.decode_steps, generator) if is_noisy and generator is not None else None
    for step in range(params.steps):
        sent = rates if keys is None else _sent(network, rates, keys[step])
        rates = euler_step(network, rates, sent, drive if step in params.stimulus_steps else None)
        yield rates


def euler_step(network: Network, rates: Tensor, sent: Tensor, drive: Tensor | None) -> Tensor:
    """The rates one step later, [trials, N]: r + (dt/τ)(−r + φ(W r̃ + B u)).

    Args:
        network: whose step it is.
        rates: r, [trials, N].
        sent: r̃, what the units transmit; the rates themselves without noise.
        drive: B·u, [trials, N], or None without a stimulus.
    """
    params = network.params
    x = sent @ (network.recurrent * network.sign).T
    if drive is not None:
        x = x + drive
    value, _ = activation(x, saturation_of(network))
    return rates + params.dt / network.tau * (value - rates)


def saturation_of(network: Network) -> Tensor | None:
    """r_max in Hz as the activation function takes it, or None where the rates do not saturate."""
    r_max = network.params.saturation_firing_rate
    return network.tau.new_tensor(r_max) if r_max > 0 else None


def spikes(network: Network, rates: Tensor, generator: torch.Generator) -> Tensor:
    """A fresh draw of the transmitted rates r̃, Hz, of the shape of ``rates``; the rates where there is no noise."""
    if network.params.spike_noise_factor == 0:
        return rates
    return _sent(network, rates, draw_keys(1, generator)[0])


def _sent(network: Network, rates: Tensor, key: Tensor) -> Tensor:
    params = network.params
    return transmitted(params.spike_noise_type, rates[None], key[None], rates.new_tensor(strength(params)))[0][0]


def estimates(network: Network, sent: Tensor) -> Tensor:
    """û = F r̃, the (cos, sin) estimate of every location, [trials, M, 2], from [trials, N]."""
    return (sent @ network.readout.T).view(len(sent), network.params.max_item_num, 2)

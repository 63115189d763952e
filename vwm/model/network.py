"""The network of excitatory and inhibitory rate units, and a batch of trials run through one or several of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vwm.config import ModelParams
from vwm.model.noise import transmit
from vwm.model.recurrence import power_law, run_recurrence, saturating
from vwm.model.task import Trials, input_code


class Network(nn.Module):
    """One network: recurrent weights W, input weights B, read-out F (all learnt), time constants τ and signs s (fixed).

    Under Dale's law the first ⌊N/2⌋ units are excitatory (s = +1) and the rest inhibitory (s = −1), with W ≥ 0;
    without it s = 1 and W is free.
    """

    tau: Tensor
    sign: Tensor

    def __init__(self, params: ModelParams, generator: torch.Generator, dtype: torch.dtype = torch.float32) -> None:
        """Draw the published initial weights and the time constants from ``generator``, on its device."""
        super().__init__()
        self.params = params
        n, m = params.num_neurons, params.max_item_num

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, device=generator.device, dtype=dtype)

        recurrent = normal(n, n)
        recurrent = recurrent.abs() / math.sqrt(0.682 * n) if params.dales_law else recurrent / math.sqrt(n)
        inputs = normal(n, m * params.input_channels) * 0.418
        self.recurrent = nn.Parameter(recurrent)  # W [N, N]
        self.input = nn.Parameter(inputs.abs() if params.positive_input else inputs)  # B [N, channels × M]
        self.readout = nn.Parameter(normal(2 * m, n) * math.sqrt(2 / (n + 2 * m)))  # F [2 M, N]

        excitatory = n // 2 if params.dales_law else n
        uniform = torch.rand(n, generator=generator, device=generator.device, dtype=dtype)
        log_tau = math.log(params.tau_min) + uniform * math.log(params.tau_max / params.tau_min)
        tau = log_tau.exp().clamp(params.tau_min, params.tau_max)
        self.register_buffer("tau", torch.cat([tau[:excitatory].sort().values, tau[excitatory:].sort().values]))
        sign = torch.ones(n, device=generator.device, dtype=dtype)
        sign[excitatory:] = -1
        self.register_buffer("sign", sign)

    @torch.no_grad()
    def project(self) -> None:
        """Put the weights back where the constraints allow them, after a step of the optimiser."""
        if self.params.dales_law:
            self.recurrent.relu_()
        if self.params.positive_input:
            self.input.relu_()


@dataclass(frozen=True)
class Simulation:
    """A batch of trials run through some networks.

    Attributes:
        rates: [steps, members, trials, N], Hz.
        readout: [decode steps, members, trials, M, 2], the (cos, sin) estimate û of every location.
    """

    rates: Tensor
    readout: Tensor


def can_run_together(first: ModelParams, second: ModelParams) -> bool:
    """Whether networks of these two parameter sets fit into one batched simulation."""

    def shape(params: ModelParams) -> tuple[object, ...]:
        return (
            params.num_neurons,
            params.max_item_num,
            params.positive_input,
            params.saturation_firing_rate > 0,
            params.steps,
            params.stimulus_steps,
            params.decode_steps,
        )

    return shape(first) == shape(second)


def simulate(
    networks: Sequence[Network], trials: Sequence[Trials], generators: Sequence[torch.Generator]
) -> Simulation:
    """Run each network on its own trials with its own random numbers, all members at once.

    Args:
        networks: members for which `can_run_together` holds.
        trials: a batch for each member, equally many trials each.
        generators: the source of each member's spike noise.
    """
    first = networks[0].params
    if not all(can_run_together(first, network.params) for network in networks[1:]):
        raise ValueError("these networks differ in a size that a batched simulation needs to be equal")

    def noisy(rates: Tensor) -> Tensor:
        """Transmitted rates; the member dimension is the third from the right."""
        drawn = [
            transmit(network.params, member, generator)
            for network, member, generator in zip(networks, rates.unbind(-3), generators, strict=True)
        ]
        return torch.stack(drawn, dim=-3)

    weights = torch.stack([network.recurrent * network.sign for network in networks])
    code = torch.stack([input_code(network.params, batch) for network, batch in zip(networks, trials, strict=True)])
    input_drive = torch.bmm(code, torch.stack([network.input for network in networks]).transpose(1, 2))
    leak = torch.stack([network.params.dt / network.tau for network in networks])[:, None, :]
    saturation = torch.tensor(
        [network.params.saturation_firing_rate for network in networks], dtype=leak.dtype, device=leak.device
    )[:, None, None]
    rates = run_recurrence(
        weights,
        input_drive,
        leak,
        first.steps,
        first.stimulus_steps,
        (lambda drive: saturating(drive, saturation)) if first.saturation_firing_rate > 0 else power_law,
        noisy,
    )
    # The read-out hears the spikes as well, a fresh draw of them.
    heard = noisy(rates[first.steps - first.decode_steps :])
    readout = torch.einsum("smtn,mcn->smtc", heard, torch.stack([network.readout for network in networks]))
    return Simulation(rates, readout.view(*readout.shape[:-1], first.max_item_num, 2))

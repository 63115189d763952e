"""The network of excitatory and inhibitory rate units, and a batch of trials run through one or several of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from vwm.config import ModelParams
from vwm.model.noise import strength
from vwm.model.recurrence import Spikes, Trial, has_kernel, run_trial
from vwm.model.task import Trials, input_gain, stacked, unit_code
from vwm.model.variates import draw_keys


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
        mean_rate: [members, trials], over steps and units, Hz.
        readout: [decode steps, members, trials, M, 2], the (cos, sin) estimate û of every location.
    """

    mean_rate: Tensor
    readout: Tensor


def batch_shape(params: ModelParams) -> tuple[object, ...]:
    """The sizes of a simulation: networks for which this is equal can be trained as one pack."""
    return (
        params.num_neurons,
        params.max_item_num,
        params.positive_input,
        params.saturation_firing_rate > 0,
        params.steps,
        params.stimulus_steps,
        params.decode_steps,
    )


def noise_law(params: ModelParams) -> tuple[str, ...]:
    """What networks of one simulation have in common beside their shape: how their spike noise is drawn."""
    return (params.spike_noise_type, params.gamma_sampler) if params.spike_noise_factor > 0 else ()


def draws_by_torch(network: Network, compile: bool) -> bool:
    """Whether gamma variates come from torch's sampler: uncompiled, the other one is a hundred small operations."""
    params = network.params
    if params.spike_noise_factor == 0 or params.spike_noise_type not in ("gamma", "csnr"):
        return False
    is_compiled = compile or has_kernel(network.tau, params.num_neurons)
    return params.gamma_sampler == "torch" or (params.gamma_sampler == "auto" and not is_compiled)


@dataclass(frozen=True)
class Prepared:
    """What a simulation of some networks has in common from batch to batch.

    Attributes:
        trial: sizes, constants and noise; the keys of its spikes are 0 until they are drawn.
        sign: of the sending units, [members, 1, N].
        input_gain: [members, 1, 1].
    """

    trial: Trial
    sign: Tensor
    input_gain: Tensor

    @property
    def draws(self) -> int:
        """How many draws of spikes a trial has: the rates before each step and after the last, and each read-out."""
        return self.trial.steps + 1 + self.trial.decode_steps

    def with_keys(self, keys: Tensor, generators: Sequence[torch.Generator] = ()) -> "Prepared":
        """The same with the spikes of one batch.

        Args:
            keys: see `draw_spikes`.
            generators: of the members; torch's sampler goes on with them where it is used.
        """
        spikes = self.trial.spikes
        if spikes.by_torch:
            spikes = replace(spikes, generators=[_where(self.sign, generator) for generator in generators])
        return replace(self, trial=replace(self.trial, spikes=replace(spikes, keys=keys.to(self.sign.device))))


def prepare(networks: Sequence[Network], compile: bool) -> Prepared:
    """What does not depend on the trials: see `simulate` for the arguments."""
    first = networks[0].params
    if len({(batch_shape(network.params), noise_law(network.params)) for network in networks}) > 1:
        raise ValueError("these networks differ in a size or in the noise, which one simulation needs to be equal")
    like = networks[0].tau

    def constants(values: Sequence[float]) -> Tensor:
        """One number a member, [members, 1, 1]."""
        return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None, None]

    is_noisy = first.spike_noise_factor > 0
    spikes = Spikes(
        kind=first.spike_noise_type if is_noisy else None,
        strength=constants([strength(network.params) if is_noisy else 0.0 for network in networks]),
        keys=torch.zeros(0, dtype=torch.int32),
        by_torch=draws_by_torch(networks[0], compile),
        generators=(),
    )
    saturation = constants([network.params.saturation_firing_rate for network in networks])
    trial = Trial(
        steps=first.steps,
        decode_steps=first.decode_steps,
        stimulus_steps=first.stimulus_steps,
        leak=torch.stack([network.params.dt / network.tau for network in networks])[:, None, :],
        saturation=saturation if first.saturation_firing_rate > 0 else None,
        spikes=spikes,
        compile=compile,
    )
    sign = torch.stack([network.sign for network in networks])[:, None, :]
    return Prepared(trial, sign, constants([input_gain(network.params) for network in networks]))


def draw_spikes(draws: int, generators: Sequence[torch.Generator]) -> Tensor:
    """The random words of so many draws of each member's spikes, int32 [draws, members, 2]."""
    return torch.stack([draw_keys(draws, generator) for generator in generators], dim=1)


def simulate(
    networks: Sequence[Network],
    trials: Sequence[Trials],
    generators: Sequence[torch.Generator],
    *,
    compile: bool = False,
) -> Simulation:
    """Run each network on its own trials with its own random numbers, all members at once.

    Args:
        networks: members of equal `batch_shape` and `noise_law`.
        trials: a batch for each member, equally many trials each.
        generators: the source of each member's spike noise, on the CPU or on the networks' device.
        compile: whether element-wise parts are compiled: worth it from about 1e8 updates of a unit on.
    """
    prepared = prepare(networks, compile)
    keys = draw_spikes(prepared.draws, generators)
    return simulate_prepared(networks, stacked(trials), prepared.with_keys(keys, generators))


def simulate_prepared(networks: Sequence[Network], trials: Trials, prepared: Prepared) -> Simulation:
    """As `simulate`, with the trials of all members in one and all that does not depend on them prepared."""
    params = networks[0].params
    code = unit_code(params.positive_input, trials) * prepared.input_gain
    mean_rate, readout = run_trial(
        prepared.trial,
        weights=torch.stack([network.recurrent for network in networks]) * prepared.sign,
        input_drive=torch.bmm(code, torch.stack([network.input for network in networks]).transpose(1, 2)),
        readout_weights=torch.stack([network.readout for network in networks]),
    )
    return Simulation(mean_rate, readout.view(*readout.shape[:-1], params.max_item_num, 2))


def _where(like: Tensor, generator: torch.Generator) -> torch.Generator:
    """The generator, or one on the tensor's device that begins from it: torch's sampler draws where the rates are."""
    if generator.device.type == like.device.type:
        return generator
    return torch.Generator(like.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))

"""Responses as most analyses mean them: rates averaged over a phase of the trial, and the groups of units."""

import torch

from vwm.behaviour.circular import FloatArray
from vwm.config import ModelParams
from vwm.model.network import Network
from vwm.model.task import Trials
from vwm.model.trajectory import rates_of_steps, spikes


def phases_from_stimulus(params: ModelParams) -> dict[str, range]:
    """The steps of each phase from the stimulus on, by name; a phase without steps is left out."""
    on, decode = params.stimulus_steps, params.steps - params.decode_steps
    phases = {"stimulus": on, "delay": range(on.stop, decode), "read-out": range(decode, params.steps)}
    return {name: steps for name, steps in phases.items() if len(steps)}


def groups_of(network: Network) -> dict[str, slice]:
    """Excitatory and inhibitory units, or all of them where they are not told apart."""
    count, excitatory = len(network.sign), int((network.sign > 0).sum())
    if excitatory == count:
        return {"all": slice(0, count)}
    return {"excitatory": slice(0, excitatory), "inhibitory": slice(excitatory, count)}


@torch.no_grad()
def mean_rates(network: Network, trials: Trials, noise: torch.Generator | None = None) -> dict[str, FloatArray]:
    """Mean rates [trials, N], Hz, of each phase from the stimulus on.

    Args:
        network: whose rates they are.
        trials: a batch; one step of it is held at a time.
        noise: the source of spike noise in the network and, drawn afresh, in what is heard of its rates; without it
            there is none in either.
    """
    phases = phases_from_stimulus(network.params)
    sums = {phase: torch.zeros(len(trials.set_size), len(network.tau)).to(network.tau) for phase in phases}
    for step, rates in enumerate(rates_of_steps(network, trials, noise)):
        for phase, steps in phases.items():
            if step in steps:
                heard = rates if noise is None else spikes(network, rates, noise)
                sums[phase] += heard / len(steps)
    return {phase: values.double().cpu().numpy() for phase, values in sums.items()}
